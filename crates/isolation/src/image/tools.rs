//! The tools of the machine that builds need.
//!
//! Owns running them so that nothing of them is left: each under a supervisor, in a mount namespace
//! of its own, which takes their mounts with it however they end.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;

use super::build::BuildError;
use crate::cell::{Ended, Output};
use crate::error::Error;
use crate::launch::Launch;
use crate::view::View;

/// How much of a tool's words is kept.
const TAIL: usize = 4096;
/// A disk with fewer free bytes is the reason why something failed on it.
const FULL: u64 = 1024 * 1024;
/// What tools may know of our own environment: the ways out of this network.
const PROXIES: [&str; 7] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
];

/// Who runs them.
#[derive(Debug)]
pub(super) struct Tools<'a> {
    /// The command that becomes the supervisor.
    pub(super) supervisor: &'a [OsString],
    /// The folder of the build, whose name all their processes bear.
    pub(super) folder: &'a Path,
    /// Asks everything to end.
    pub(super) stop: &'a CancellationToken,
}

/// How a tool ended, and the last that it said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) ended: Ended,
    pub(super) last: String,
}

/// Where a tool's words go: to whoever builds, and the last of them are kept.
pub(super) struct Words<'a> {
    pub(super) tell: &'a mut (dyn FnMut(&[u8]) + Send),
    last: Vec<u8>,
}

#[async_trait]
impl Output for Words<'_> {
    async fn take(&mut self, bytes: &[u8]) {
        (self.tell)(bytes);
        self.last.extend_from_slice(bytes);
        let excess = self.last.len().saturating_sub(TAIL);
        self.last.drain(..excess);
    }
}

impl Tools<'_> {
    /// Runs one to its end, with `scratch` for its temporary files.
    ///
    /// # Errors
    /// [`BuildError::Stopped`], and what the supervisor says.
    pub(super) async fn run(
        &self,
        argv: Vec<OsString>,
        scratch: &Path,
        tell: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Said, BuildError> {
        let unshare = ["unshare", "--mount", "--propagation", "private", "--"];
        let launch = Launch {
            supervisor: self.supervisor,
            key: &self.folder.into(),
            argv: unshare.iter().map(OsString::from).chain(argv).collect(),
            directory: PathBuf::from("/"),
            env: environment(scratch),
            group: None,
            others: None,
            container: false,
            view: View::default(),
            stage: None,
            files: Vec::new(),
        };
        let mut words = Words {
            tell,
            last: Vec::new(),
        };
        let stop = async {
            self.stop.cancelled().await;
            Duration::ZERO
        };
        let finished = launch.run(&mut words, Box::pin(stop)).await?;
        if finished.ended == Ended::Stopped {
            return Err(BuildError::Stopped);
        }
        // Tools tell of it in many words, or in none.
        if finished.ended != Ended::Exit(0) && is_full(self.folder)? {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        Ok(Said {
            ended: finished.ended,
            last: String::from_utf8_lossy(&words.last).trim().to_owned(),
        })
    }
}

fn is_full(folder: &Path) -> io::Result<bool> {
    let disk = statvfs(folder).map_err(io::Error::from)?;
    Ok(disk.blocks_available() * disk.fragment_size() < FULL)
}

fn environment(scratch: &Path) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), path()),
        ("HOME".into(), "/root".into()),
        ("LC_ALL".into(), "C.UTF-8".into()),
        ("DEBIAN_FRONTEND".into(), "noninteractive".into()),
        ("TMPDIR".into(), scratch.into()),
    ];
    let known = |name: &str| Some((name.into(), std::env::var_os(name)?));
    env.extend(PROXIES.iter().filter_map(|name| known(name)));
    env
}

/// Where tools are: an ordinary path may lack the folders of root's.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

/// Where a tool is, if it is there.
pub(super) fn find(tool: &str) -> Option<PathBuf> {
    let path = path();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(tool));
    candidates.find(|candidate| candidate.is_file())
}

/// An error of a machine that lacks something.
pub(super) fn missing(what: &str) -> BuildError {
    BuildError::Isolation(Error::Unsupported(what.to_owned()))
}
