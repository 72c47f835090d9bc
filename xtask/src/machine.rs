//! Where things are on this machine: the work tree, the tools, the programs on the path.
//!
//! Reads the environment once; every other module asks here. Nothing is written.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use anyhow::{Context, Result};

/// The places that chores work in.
pub(crate) struct Machine {
    /// The root of the work tree.
    pub(crate) root: PathBuf,
    /// The project's part of the user's cache folder.
    pub(crate) cache: PathBuf,
    /// Where `cargo install` puts the tools of the gate.
    pub(crate) tools: PathBuf,
    path: OsString,
}

impl Machine {
    /// Finds the work tree from what cargo tells the program it runs.
    pub(crate) fn here() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .context("start me as `cargo xtask`, which says where the work tree is")?;
        let root = Path::new(&manifest)
            .parent()
            .context("xtask lies in no work tree")?
            .to_owned();
        let cache = cache()?.join("distci");
        let tools = cache.join("tools");
        let inherited = env::var_os("PATH").unwrap_or_default();
        let directories = std::iter::once(tools.join("bin")).chain(env::split_paths(&inherited));
        let path = env::join_paths(directories).context("the tools' folder cannot be on a PATH")?;
        Ok(Self {
            root,
            cache,
            tools,
            path,
        })
    }

    /// A command, spelt as one types it, that starts in the work tree and finds our tools first.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .current_dir(&self.root)
            .env("PATH", &self.path);
        command
    }

    /// Whether the path holds a program of this name.
    pub(crate) fn has(&self, program: &str) -> bool {
        env::split_paths(&self.path).any(|directory| is_executable(&directory.join(program)))
    }

    /// Where the tools are compiled, apart from the project: its own target folder would be locked
    /// for minutes.
    pub(crate) fn tools_target(&self) -> PathBuf {
        self.tools.join("target")
    }

    /// Removes what compiling the tools left, which is twenty times their size.
    pub(crate) fn sweep_tools(&self) -> Result<()> {
        let leavings = self.tools_target();
        match fs::remove_dir_all(&leavings) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| leavings.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// Whether this process may install packages of the system.
    pub(crate) fn is_root() -> bool {
        fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
    }
}

fn cache() -> Result<PathBuf> {
    if let Some(named) = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        return Ok(named.into());
    }
    let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cache"))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
