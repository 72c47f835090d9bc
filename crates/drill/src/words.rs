//! What a script tells of itself on its console, and how that is read.
//!
//! A script says when it began and ended, what it left in the workspace, what it found there, and
//! which locks it held; its last line counts and digests all that it said before. So a console alone
//! tells what the attempt did, and whether a byte of it is missing.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use distci_checker::history::Bytes;
use distci_model::Timestamp;
use distci_model::id::TaskName;
use distci_model::outcome::Verdict;
use sha2::{Digest, Sha256};

/// What begins each line of ours.
const MARK: &str = "drill: ";
/// What begins the last of them.
const SAID: &str = "drill: said ";
/// What begins the worker's own lines.
const WORKER: &str = "[distci] ";

/// A script that does these deeds, in the words of the functions that are defined here.
pub(crate) fn script(deeds: &str) -> String {
    format!(
        r#"said="$TMPDIR/said"
say() {{ printf '{MARK}%s\n' "$*" | tee -a "$said"; }}
say_many() {{ seq -f "{MARK}line %g" "$1" | tee -a "$said"; }}
look() {{ for task in "$@"; do say found "$task" "$(cat "$task.made")"; done; }}
verdict=success
say began "$(date +%s.%N)"
{deeds}
made="$DISTCI_BUILD_ID/$DISTCI_TASK/$DISTCI_ATTEMPT/$(cat /proc/sys/kernel/random/uuid)"
printf '%s' "$made" > "$(printf '%s' "$DISTCI_TASK" | tr -c 'a-z0-9' '-').made"
say made "$made"
say ended "$(date +%s.%N)" "$verdict"
printf '{SAID}%s %s\n' "$(wc -c < "$said")" "$(sha256sum < "$said" | cut -c 1-64)"
test "$verdict" = success || exit 3
"#
    )
}

/// What a script has told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// When it began; none if not even that came.
    pub(crate) began: Option<Timestamp>,
    /// When it ended and how; none if it was killed before.
    pub(crate) ended: Option<(Timestamp, Verdict)>,
    /// What it left in the workspace.
    pub(crate) made: Option<String>,
    /// What it found there, by the task that it is of.
    pub(crate) found: BTreeMap<TaskName, String>,
    /// What it found in an artifact.
    pub(crate) copied: Option<String>,
    /// Its locks, with how many may hold each.
    pub(crate) locks: BTreeMap<String, u32>,
    /// All that it wrote, as it counted itself; none if it was killed before.
    pub(crate) wrote: Option<Bytes>,
    /// All that was kept of it.
    pub(crate) kept: Bytes,
}

impl Told {
    /// Reads a console.
    pub(crate) fn read(console: &[u8]) -> Self {
        let mut told = Self {
            kept: bytes_of(&[]),
            ..Self::default()
        };
        let mut kept = Vec::new();
        for line in console.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(WORKER.as_bytes()) {
                continue;
            }
            let text = String::from_utf8_lossy(line);
            match text
                .strip_suffix('\n')
                .and_then(|text| text.strip_prefix(SAID))
            {
                Some(said) => told.wrote = parse_bytes(said),
                None => kept.extend_from_slice(line),
            }
            if let Some(words) = text
                .strip_suffix('\n')
                .and_then(|text| text.strip_prefix(MARK))
            {
                told.note(words);
            }
        }
        told.kept = bytes_of(&kept);
        told
    }

    fn note(&mut self, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        match *words {
            ["began", at] => self.began = parse_time(at),
            ["ended", at, "success"] => {
                self.ended = parse_time(at).map(|at| (at, Verdict::Success));
            }
            ["ended", at, "failure"] => {
                self.ended = parse_time(at).map(|at| (at, Verdict::Failure));
            }
            ["made", made] => self.made = Some(made.to_owned()),
            ["found", task, made] => {
                if let Ok(task) = task.parse() {
                    self.found.insert(task, made.to_owned());
                }
            }
            // A file that is not there is found empty.
            ["found", task] => {
                if let Ok(task) = task.parse() {
                    self.found.insert(task, String::new());
                }
            }
            ["copied", made] => self.copied = Some(made.to_owned()),
            ["lock", lock, slots] => {
                if let Ok(slots) = slots.parse() {
                    self.locks.insert(lock.to_owned(), slots);
                }
            }
            _ => {}
        }
    }
}

fn bytes_of(bytes: &[u8]) -> Bytes {
    Bytes {
        length: bytes.len() as u64,
        digest: HEXLOWER.encode(&Sha256::digest(bytes)),
    }
}

fn parse_bytes(said: &str) -> Option<Bytes> {
    let (length, digest) = said.split_once(' ')?;
    Some(Bytes {
        length: length.trim().parse().ok()?,
        digest: digest.to_owned(),
    })
}

/// Seconds since 1970, with a fraction where the machine's `date` knows one.
fn parse_time(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nanoseconds = fraction.parse().unwrap_or(0);
    Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs a script as a worker would.
    fn run(deeds: &str) -> (Vec<u8>, Option<i32>, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new("sh")
            .args(["-e", "-c", &script(deeds)])
            .current_dir(dir.path())
            .env("TMPDIR", dir.path())
            .env("DISTCI_BUILD_ID", "drill#1")
            .env("DISTCI_TASK", "only")
            .env("DISTCI_ATTEMPT", "1")
            .output()
            .unwrap();
        let made = std::fs::read_to_string(dir.path().join("only.made")).ok();
        (output.stdout, output.status.code(), made)
    }

    #[test]
    fn a_script_tells_what_it_did() {
        let (mut console, code, made) =
            run("say lock x 2; say_many 3; echo y > top.made; look top");
        assert_eq!(code, Some(0));
        console.splice(0..0, b"[distci] taken by w\n".iter().copied());
        let told = Told::read(&console);
        let (began, ended) = (told.began.unwrap(), told.ended.unwrap());
        assert!(began <= ended.0);
        assert_eq!(ended.1, Verdict::Success);
        assert_eq!(told.made, made);
        assert_eq!(told.found[&"top".parse().unwrap()], "y");
        assert_eq!(told.locks["x"], 2);
        assert_eq!(told.wrote, Some(told.kept));
    }

    #[test]
    fn a_refusal_is_told() {
        let (console, code, _) = run("verdict=failure");
        assert_eq!(code, Some(3));
        let told = Told::read(&console);
        assert_eq!(told.ended.unwrap().1, Verdict::Failure);
    }

    #[test]
    fn a_missing_byte_is_seen() {
        let (console, _, _) = run("say_many 100");
        for at in [10, console.len() / 2] {
            let mut holed = console.clone();
            holed.remove(at);
            let told = Told::read(&holed);
            assert_ne!(told.wrote, Some(told.kept), "without byte {at}");
        }
        let killed = Told::read(&console[..console.len() / 2]);
        assert!(killed.ended.is_none() && killed.wrote.is_none());
    }
}
