//! How a container begins, whatever is in its image: by a busybox of the machine and a script.
//!
//! Owns three files that the container finds in `/distci`. The script gives the command exactly its
//! environment, one pipe for all that it prints, and an init above it that takes care of orphans; it
//! tells how far it came in a file, because exit codes of containers may be their maker's.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cell::{Command, Site};
use crate::processes::KEY_VARIABLE;

/// What runs first in the container.
pub(super) const COMMAND: [&str; 3] = ["/distci/busybox", "sh", "/distci/start"];
/// Most that is read of the progress: whatever runs in the container can write there.
const MOST_PROGRESS: u64 = 1024;

/// The first process of a container has waited for all others that were, so it knows what they took
/// of the disks.
const END: &[u8] = b"code=$?; while read -r name count; do case $name in
read_bytes:) read=$count;; write_bytes:) written=$count;; esac; done < /proc/1/io
echo ended $code $read $written > /distci/progress; exit $code
";

/// How far a container came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// It did not come to the command.
    Nothing,
    /// There is no such program.
    NotStarted(String),
    /// The command has begun.
    Begun,
    /// It ended.
    Ended {
        /// The exit code.
        code: u8,
        /// Bytes that it and its children read from disks.
        read: u64,
        /// Bytes that they wrote.
        written: u64,
    },
}

impl Progress {
    /// That of the last run.
    pub(super) fn read(site: &Site) -> io::Result<Self> {
        let mut text = Vec::new();
        let file = File::open(progress(site))?;
        file.take(MOST_PROGRESS).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        Ok(Self::parse(&text))
    }
}

impl Progress {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Some(program) = text.strip_prefix("missing ") {
            return Self::NotStarted(format!("{program}: no such program"));
        }
        let mut words = text.split_whitespace();
        let word = words.next();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        match (word, numbers.as_slice()) {
            (Some("ended"), &[code, read, written]) => Self::Ended {
                // A shell knows no greater ones.
                code: u8::try_from(code).unwrap_or(u8::MAX),
                read,
                written,
            },
            (Some(_), _) => Self::Begun,
            (None, _) => Self::Nothing,
        }
    }
}

/// Prepares a run of `command`.
pub(super) fn write(site: &Site, command: &Command) -> io::Result<()> {
    for (path, content) in [
        (script(site), text(site, command)),
        (progress(site), Vec::new()),
    ] {
        // The environment may hold secrets.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path)?.write_all(&content)?;
    }
    Ok(())
}

/// The files on the machine, where they are in the container, and how they are mounted there.
pub(super) fn files(site: &Site, busybox: &Path) -> [(PathBuf, &'static str, &'static str); 3] {
    [
        (busybox.to_owned(), "/distci/busybox", ",readonly"),
        (script(site), "/distci/start", ",readonly"),
        (progress(site), "/distci/progress", ""),
    ]
}

fn script(site: &Site) -> PathBuf {
    site.folder.join("start")
}

fn progress(site: &Site) -> PathBuf {
    site.folder.join("progress")
}

fn text(site: &Site, command: &Command) -> Vec<u8> {
    let mut text = Script::default();
    text.words(b"exec 2>&1; cd ", [&command.directory]);
    text.raw(b" || exit\n");
    text.words(b"for program in", programs(command));
    text.raw(b"; do\n[ -f \"$program\" ] && [ -x \"$program\" ] && break; program=\ndone\n");
    text.words(
        b"if [ -z \"$program\" ]; then echo missing",
        command.argv.first(),
    );
    text.raw(b" > /distci/progress; exit; fi\n");
    // What this shell has to say of how its child died is not for the console.
    text.raw(b"echo begun > /distci/progress; exec 3>&1 >/dev/null 2>&1\n");
    let key = (OsString::from(KEY_VARIABLE), site.key.clone());
    let env = command.env.iter().chain([&key]).map(|(name, value)| {
        let mut entry = name.clone();
        entry.push("=");
        entry.push(value);
        entry
    });
    text.words(b"/distci/busybox env -i", env);
    text.words(b" \"$program\"", command.argv.iter().skip(1));
    text.raw(b" >&3 2>&3 3>&-\n");
    text.raw(END);
    text.0
}

/// Where the program may be: the container's own shell would find its applets first.
fn programs(command: &Command) -> Vec<OsString> {
    let Some(program) = command.argv.first() else {
        return Vec::new();
    };
    if program.as_bytes().contains(&b'/') {
        return vec![program.clone()];
    }
    let path = command.env.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map(|(_, path)| path.clone()).unwrap_or_default();
    let folders = std::env::split_paths(&path);
    folders.map(|f| f.join(program).into()).collect()
}

#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn raw(&mut self, text: &[u8]) {
        self.0.extend(text);
    }

    /// Appends words that mean what they are.
    fn words(&mut self, before: &[u8], words: impl IntoIterator<Item = impl AsRef<OsStr>>) {
        self.raw(before);
        for word in words {
            self.raw(b" '");
            for byte in word.as_ref().as_bytes() {
                match byte {
                    b'\'' => self.raw(b"'\\''"),
                    byte => self.0.push(*byte),
                }
            }
            self.raw(b"'");
        }
    }
}
