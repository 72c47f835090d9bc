//! The jobs of the workload, and what each of their scripts must have printed.
//!
//! A script prints numbered lines that name build, task and attempt, and keeps a ledger outside of
//! `DistCI`: a file for each attempt that began, so that nobody can run, or count, one twice.

use std::path::Path;

use serde_json::{Value, json};

/// Where a build of five tasks in a row is asked for.
pub(crate) const ROW: &str = "row";
/// One task.
pub(crate) const SINGLE: &str = "single";
/// Parallel tasks between two, artifacts, and a build downstream.
pub(crate) const DIAMOND: &str = "diamond";
/// What the diamond triggers.
pub(crate) const AFTER: &str = "after";
/// A script that says no.
pub(crate) const REFUSING: &str = "refusing";

/// A script of the workload.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) task: &'static str,
    needs: Option<Vec<&'static str>>,
    label: Option<&'static str>,
    /// Lines, and whether there is a tenth of a second between them.
    lines: u32,
    slow: bool,
    /// The first attempt prints on until it is killed.
    hangs_first: bool,
    /// What the script does after its lines.
    ending: &'static str,
}

impl Script {
    fn new(task: &'static str) -> Self {
        Self {
            task,
            needs: None,
            label: None,
            lines: 20,
            slow: false,
            hangs_first: false,
            ending: "",
        }
    }

    fn after(mut self, needs: &[&'static str]) -> Self {
        self.needs = Some(needs.to_vec());
        self
    }

    fn lines(mut self, lines: u32) -> Self {
        self.lines = lines;
        self
    }

    fn ending(mut self, ending: &'static str) -> Self {
        self.ending = ending;
        self
    }

    /// What the script prints in an attempt; of one that hangs, as much as anybody may have seen.
    pub(crate) fn console(&self, build: &str, attempt: u32) -> String {
        let lines = if self.hangs(attempt) {
            100_000
        } else {
            self.lines
        };
        let line = |line| format!("{build} {} {attempt} line {line}\n", self.task);
        (1..=lines).map(line).collect()
    }

    /// Whether this attempt never ends by itself.
    pub(crate) fn hangs(&self, attempt: u32) -> bool {
        self.hangs_first && attempt == 1
    }

    fn json(&self, ledger: &Path) -> Value {
        let pause = if self.slow { "sleep 0.1" } else { ":" };
        let last = if self.hangs_first {
            format!(
                "$([ $DISTCI_ATTEMPT -gt 1 ] && echo {} || echo 100000)",
                self.lines
            )
        } else {
            self.lines.to_string()
        };
        let script = format!(
            "ledger={}/$JOB_NAME-$BUILD_NUMBER-$DISTCI_TASK-$DISTCI_ATTEMPT\n\
             echo \"begin $DISTCI_ATTEMPT_KEY\" >> $ledger\n\
             last={last}\n\
             line=1\n\
             while [ $line -le $last ]; do\n  \
             echo \"$DISTCI_BUILD_ID $DISTCI_TASK $DISTCI_ATTEMPT line $line\"\n  \
             line=$((line + 1))\n  {pause}\n\
             done\n\
             {}\n\
             echo end >> $ledger\n",
            ledger.display(),
            self.ending
        );
        let mut params = json!({ "script": script });
        if let Some(label) = self.label {
            params["nodelabels"] = json!([label]);
        }
        let mut task = json!({ "name": self.task, "type": "execute-shell", "params": params });
        if let Some(needs) = &self.needs {
            task["needs"] = json!(needs);
        }
        task
    }
}

/// A job of the workload.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) scripts: Vec<Script>,
    /// Tasks before and after the scripts, of other kinds.
    before: Vec<Value>,
    behind: Vec<Value>,
    /// The job that each success triggers.
    pub(crate) downstream: Option<&'static str>,
    /// Whether its builds succeed.
    pub(crate) succeeds: bool,
}

impl Job {
    fn new(name: &'static str, scripts: Vec<Script>) -> Self {
        Self {
            name,
            scripts,
            before: Vec::new(),
            behind: Vec::new(),
            downstream: None,
            succeeds: true,
        }
    }

    /// One task of so many seconds on the workers that carry a label.
    pub(crate) fn long(name: &'static str, label: &'static str, seconds: u32) -> Self {
        let mut script = Script::new("long").lines(seconds * 10);
        script.slow = true;
        script.label = Some(label);
        Self::new(name, vec![script])
    }

    /// Its first attempt runs until it is killed.
    pub(crate) fn hanging_first(mut self) -> Self {
        for script in &mut self.scripts {
            script.hangs_first = true;
        }
        self
    }

    /// The job file.
    pub(crate) fn json(&self, ledger: &Path) -> Value {
        let scripts = self.scripts.iter().map(|script| script.json(ledger));
        let tasks: Vec<Value> = self
            .before
            .iter()
            .cloned()
            .chain(scripts)
            .chain(self.behind.iter().cloned())
            .collect();
        json!({
            "job_id": self.name,
            "tasks": tasks,
            "downstream_jobs": self.downstream.into_iter().collect::<Vec<_>>(),
        })
    }
}

/// The jobs that builds are asked for all the time, and those that they trigger.
pub(crate) fn common() -> Vec<Job> {
    let row = ["first", "second", "third", "fourth", "fifth"].map(|task| {
        // One of them prints more than one append carries.
        let lines = if task == "third" { 10_000 } else { 20 };
        Script::new(task)
            .lines(lines)
            .ending("echo \"$DISTCI_TASK $DISTCI_ATTEMPT\" >> chain; cp chain \"$DISTCI_SUMMARY\"")
    });
    let side = |task| {
        Script::new(task)
            .after(&["top"])
            .ending("echo \"$DISTCI_TASK $DISTCI_ATTEMPT\" > $DISTCI_TASK")
    };
    let diamond = vec![
        Script::new("top").ending("echo \"$DISTCI_TASK $DISTCI_ATTEMPT\" > top"),
        side("left"),
        side("right"),
        Script::new("join")
            .after(&["left", "right"])
            .ending("(echo \"$DISTCI_BUILD_ID\"; cat top left right) > result"),
    ];
    let publish = json!({
        "name": "publish", "type": "publish-artifacts", "params": { "artifacts": ["result"] },
    });
    let copy = json!({ "name": "copy", "type": "copy-artifacts", "params": { "job": DIAMOND } });
    let after = Script::new("show").ending("cp result \"$DISTCI_SUMMARY\"");
    vec![
        Job::new(SINGLE, vec![Script::new("only")]),
        Job::new(ROW, row.to_vec()),
        Job {
            behind: vec![publish],
            downstream: Some(AFTER),
            ..Job::new(DIAMOND, diamond)
        },
        Job {
            before: vec![copy],
            ..Job::new(AFTER, vec![after])
        },
        Job {
            succeeds: false,
            ..Job::new(
                REFUSING,
                vec![Script::new("only").ending("echo end >> $ledger; exit 3")],
            )
        },
    ]
}
