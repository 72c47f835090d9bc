//! The first process of a container: the image's shell, which reads what to do from its input and
//! appends there, as comments, how it went.
//!
//! It is first, so nobody in the container can kill it, and everybody there ends with it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::cell::Command;
use crate::error::Error;
use crate::processes::KEY_VARIABLE;

/// What it said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Nothing: there was no container.
    Nothing,
    /// That it is there.
    Begun,
    /// That the command could not be started.
    NotStarted,
    /// With what the command ended, as a shell tells it.
    Ended(u8),
}

/// Writes what `command` means to such a process to `path`. Gives the length of it: what follows in
/// the file are its words.
pub(super) fn write(path: &Path, command: &Command, key: &OsStr) -> Result<usize, Error> {
    let text = script(command, key)?;
    // The environment holds secrets. The shell inherits the open file, so it needs no permission.
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(&text)?;
    Ok(text.len())
}

fn script(command: &Command, key: &OsStr) -> Result<Vec<u8>, Error> {
    // One compound command, so that the shell has read all of it before it says its first word: that
    // moves the place from which it reads. The tool's errors go elsewhere. A shell whose `exec` fails
    // runs its trap; one that became the command has none any more.
    let mut text = b"{ exec 2>&1; none=; trap none=1 USR1; umask 022\necho '# begun' >&0\n\
        ( trap 'kill -USR1 1' EXIT\ncd -- "
        .to_vec();
    quote(command.directory.as_os_str(), &mut text);
    text.extend(b" || exit 127\nunset none container PATH OLDPWD\n");
    let key_of_attempt = (OsStr::new(KEY_VARIABLE), key);
    let given = command.env.iter();
    let given = given.map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    for (name, value) in given.chain([key_of_attempt]) {
        if !is_variable(name) {
            let name = name.display();
            let why = format!("a shell cannot hand on an environment variable named {name:?}");
            return Err(Error::Unsupported(why));
        }
        text.extend(b"export ");
        text.extend(name.as_bytes());
        text.push(b'=');
        quote(value, &mut text);
        text.push(b'\n');
    }
    text.extend(b"exec");
    for word in &command.argv {
        text.push(b' ');
        quote(word, &mut text);
    }
    text.extend(b" </dev/null\n)\necho \"# ended $? $none\" >&0\nexit 0\n}\n");
    Ok(text)
}

fn quote(word: &OsStr, text: &mut Vec<u8>) {
    text.push(b'\'');
    for byte in word.as_bytes() {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            byte => text.push(*byte),
        }
    }
    text.push(b'\'');
}

fn is_variable(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    name.first().is_some_and(|first| !first.is_ascii_digit()) && name.iter().all(known)
}

/// The last word in the file at `path`, after so many bytes.
pub(super) fn read(path: &Path, written: usize) -> Result<Word, Error> {
    let bytes = fs::read(path)?;
    let said = String::from_utf8_lossy(bytes.get(written..).unwrap_or_default());
    let word = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["#", "begun"] => Some(Word::Begun),
        // With these a shell says so too; the signal alone anybody in the container can send.
        ["#", "ended", "126" | "127", "1"] => Some(Word::NotStarted),
        ["#", "ended", code, _] => code.parse().ok().map(Word::Ended),
        _ => None,
    };
    let last = said.lines().rev().find_map(word);
    Ok(last.unwrap_or(Word::Nothing))
}

#[cfg(test)]
mod tests {
    use std::process::{Command as Program, Stdio};

    use super::*;

    /// Run by a shell that is not first anywhere, which only a signal to the first would notice.
    fn run(command: &Command) -> (Word, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("init");
        let written = write(&path, command, OsStr::new("k")).unwrap();
        assert_eq!(read(&path, written).unwrap(), Word::Nothing);
        let mut input = fs::OpenOptions::new();
        let input = input.read(true).append(true).open(&path).unwrap();
        let mut shell = Program::new("sh");
        let done = shell.arg("-s").stdin(Stdio::from(input)).output().unwrap();
        let word = read(&path, written).unwrap();
        (word, String::from_utf8(done.stdout).unwrap())
    }

    fn command(argv: &[&str], odd: &str) -> Command {
        Command {
            argv: argv.iter().map(Into::into).collect(),
            directory: "/".into(),
            env: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("ODD".into(), odd.into()),
            ],
        }
    }

    #[test]
    fn what_is_odd_arrives_whole() {
        let odd = "a'b \"$c\\\n# ended 9 \n'";
        let argv = ["sh", "-c", "printf %s \"$ODD|$1|$(pwd)\"; exit 3", "x", odd];
        let (word, printed) = run(&command(&argv, odd));
        assert_eq!(word, Word::Ended(3));
        assert_eq!(printed, format!("{odd}|{odd}|/"));
    }

    #[test]
    fn builtins_of_the_shell_are_no_programs() {
        assert_eq!(run(&command(&["true"], "")).0, Word::Ended(0));
        assert_ne!(run(&command(&["exit", "0"], "")).0, Word::Ended(0));
    }

    #[test]
    fn a_name_that_no_shell_knows_is_refused() {
        for name in ["", "1A", "A.B", "A B", "A$(id)"] {
            let mut command = command(&["true"], "");
            command.env.push((name.into(), "x".into()));
            let refused = script(&command, OsStr::new("k")).unwrap_err();
            assert!(refused.to_string().contains("named"), "{refused}");
        }
    }
}
