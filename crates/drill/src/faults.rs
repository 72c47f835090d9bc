//! What can be done to a cluster, as the operator wrote it down.
//!
//! Owns the form of the file and the running of its commands. Knows nothing of what a command does:
//! it may ask a machine over ssh to kill a process, or a hypervisor to take a machine away.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use distci_model::id::WorkerName;
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// A fault lasts at most so many seconds.
const LONGEST: u64 = 3600;
/// So much of what a failing command said is told.
const SAID: usize = 2000;

/// The faults of a cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Each of them is done in turn, in an order drawn from the seed.
    pub faults: Vec<Planned>,
    /// A command that finds nothing wrong with the store when all is over, such as `distci fsck`.
    #[serde(default)]
    pub check: Option<String>,
}

/// One fault that can be done.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// What it is, in words.
    pub name: String,
    /// The command that does it, for `sh -c`.
    pub hurt: String,
    /// The command that takes it back; none if the fault passes by itself.
    #[serde(default)]
    pub heal: Option<String>,
    /// How many seconds lie between the two.
    #[serde(default)]
    pub lasts: u64,
    /// The worker that it ends: what that one held must be begun anew soon.
    #[serde(default)]
    pub ends: Option<WorkerName>,
    /// Within how many seconds of it requests are to be served.
    #[serde(default)]
    pub served_within: Option<u64>,
    /// Within how many seconds of it a build of one task is to be done.
    #[serde(default)]
    pub built_within: Option<u64>,
}

impl Faults {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The text is no such file: where, and why.
    pub fn parse(text: &str) -> Result<Self> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let faults: Self = match serde_path_to_error::deserialize(&mut reader) {
            Ok(faults) => faults,
            Err(error) => {
                let (path, cause) = (error.path().to_string(), error.into_inner());
                bail!("{path}: {cause}");
            }
        };
        reader.end()?;
        let mut names = BTreeSet::new();
        for fault in &faults.faults {
            let name = &fault.name;
            ensure!(!name.trim().is_empty(), "a fault without a name");
            ensure!(names.insert(name), "two faults are called {name:?}");
            ensure!(!fault.hurt.trim().is_empty(), "{name}: `hurt` is empty");
            ensure!(
                fault.lasts <= LONGEST,
                "{name}: `lasts` is {}, and at most {LONGEST} seconds",
                fault.lasts
            );
            ensure!(
                fault.lasts == 0 || fault.heal.is_some(),
                "{name}: it `lasts`, and no command is given to `heal` it"
            );
        }
        Ok(faults)
    }
}

/// Runs a command of the operator's to its end.
///
/// # Errors
/// It cannot be started, fails, or takes longer than two minutes; with what it said.
pub(crate) async fn run(command: &str) -> Result<()> {
    let running = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = timeout(PATIENCE, running)
        .await
        .with_context(|| format!("`{command}` did not end within {} s", PATIENCE.as_secs()))??;
    if ended.status.success() {
        return Ok(());
    }
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let start = said.floor_char_boundary(said.len().saturating_sub(SAID));
    bail!("`{command}`: {}: {}", ended.status, said[start..].trim());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Faults::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_read() {
        let text = r#"{ "faults": [
            { "name": "kill -9", "hurt": "kill -9 7", "heal": "start", "lasts": 5,
              "ends": "w1", "served_within": 5, "built_within": 45 },
            { "name": "blink", "hurt": "true" } ],
            "check": "distci fsck" }"#;
        let faults = Faults::parse(text).unwrap();
        assert_eq!(faults.faults.len(), 2);
        assert_eq!(faults.faults[0].lasts, 5);
        assert_eq!(faults.check.as_deref(), Some("distci fsck"));
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_place() {
        let refusals = [
            ("{}", "missing field `faults`"),
            (
                r#"{ "faults": [{ "name": "a" }] }"#,
                "faults[0]: missing field `hurt`",
            ),
            (
                r#"{ "faults": [{ "name": "a", "hurt": "x", "lats": 3 }] }"#,
                "faults[0].lats: unknown field `lats`",
            ),
            (
                r#"{ "faults": [{ "name": "a", "hurt": "x", "lasts": 3 }] }"#,
                "no command is given to `heal`",
            ),
            (
                r#"{ "faults": [{ "name": "a", "hurt": "x" }, { "name": "a", "hurt": "y" }] }"#,
                "two faults are called \"a\"",
            ),
            (
                r#"{ "faults": [{ "name": "a", "hurt": "x", "heal": "y", "lasts": 9999 }] }"#,
                "at most 3600 seconds",
            ),
            (r#"{ "faults": [] } x"#, "trailing characters"),
        ];
        for (text, words) in refusals {
            let said = refused(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why() {
        let error = run("echo no such machine >&2; exit 7").await.unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("exit status: 7") && said.contains("no such machine"),
            "{said}"
        );
        run("true").await.unwrap();
    }
}
