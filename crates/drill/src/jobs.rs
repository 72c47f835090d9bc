//! What a cluster is asked to build during a drill.
//!
//! Owns the job files. Each script tells on its console what it does ([`crate::words`]), so that what
//! the cluster shows in the end can be held against what was done.

use std::collections::BTreeMap;

use anyhow::Result;
use distci_model::capability::Label;
use distci_model::id::JobId;
use distci_model::outcome::Verdict;
use serde_json::{Value, json};

use crate::words::script;

/// How many tasks of any build hold the shared lock at once.
const SLOTS: u32 = 2;

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Theme {
    /// One task.
    Single,
    /// Five tasks in a row that hand a workspace on.
    Row,
    /// Two tasks between two, an artifact, and a build downstream.
    Diamond,
    /// What the diamond triggers; nobody else asks for it.
    After,
    /// A script that says no.
    Refusing,
    /// Six cells, of which two at a time hold a lock that all builds share.
    Cells,
    /// A task of twenty seconds: there is always one to be hurt.
    Long,
    /// The same, and it is cancelled.
    Cancelled,
}

impl Theme {
    /// All of them, what others trigger first.
    pub(crate) const ALL: [Self; 8] = [
        Self::After,
        Self::Single,
        Self::Row,
        Self::Diamond,
        Self::Refusing,
        Self::Cells,
        Self::Long,
        Self::Cancelled,
    ];

    /// Those that builds are asked for, as often as they stand here.
    pub(crate) const ASKED: [Self; 12] = [
        Self::Single,
        Self::Single,
        Self::Single,
        Self::Row,
        Self::Row,
        Self::Diamond,
        Self::Diamond,
        Self::Refusing,
        Self::Cells,
        Self::Long,
        Self::Long,
        Self::Cancelled,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Row => "row",
            Self::Diamond => "diamond",
            Self::After => "after",
            Self::Refusing => "refusing",
            Self::Cells => "cells",
            Self::Long => "long",
            Self::Cancelled => "cancelled",
        }
    }

    /// How its builds must end; none if that is a matter of who is faster.
    pub(crate) fn must(self) -> Option<Verdict> {
        match self {
            Self::Refusing => Some(Verdict::Failure),
            Self::Cancelled => None,
            _ => Some(Verdict::Success),
        }
    }
}

/// The jobs of one drill.
#[derive(Debug)]
pub(crate) struct Jobs {
    names: BTreeMap<Theme, JobId>,
    prefix: String,
    label: Option<Label>,
}

impl Jobs {
    /// Jobs whose names begin with `prefix`, for the workers that carry a label, or for all.
    pub(crate) fn new(prefix: &str, label: Option<Label>) -> Result<Self> {
        let name = |theme: Theme| Ok((theme, format!("{prefix}-{}", theme.name()).parse()?));
        Ok(Self {
            names: Theme::ALL.into_iter().map(name).collect::<Result<_>>()?,
            prefix: prefix.to_owned(),
            label,
        })
    }

    /// The name of a job.
    pub(crate) fn name(&self, theme: Theme) -> &JobId {
        &self.names[&theme]
    }

    /// All names, what others trigger first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &JobId> {
        Theme::ALL.iter().map(|theme| self.name(*theme))
    }

    /// The text of a job's file.
    pub(crate) fn file(&self, theme: Theme) -> String {
        let tasks = match theme {
            Theme::Single => vec![self.task("only", json!({}), "say_many 9")],
            Theme::Row => self.row(),
            Theme::Diamond => self.diamond(),
            Theme::After => vec![
                json!({ "name": "copy", "type": "copy-artifacts",
                    "params": { "job": self.name(Theme::Diamond) } }),
                self.task("show", json!({}), "say copied $(cat join.made)"),
            ],
            Theme::Refusing => vec![self.task("only", json!({}), "verdict=failure")],
            Theme::Cells => vec![self.cells()],
            Theme::Long | Theme::Cancelled => {
                let wait = "for second in $(seq 20); do say second $second; sleep 1; done";
                vec![self.task("long", json!({}), wait)]
            }
        };
        let downstream = match theme {
            Theme::Diamond => vec![self.name(Theme::After)],
            _ => Vec::new(),
        };
        let file = json!({
            "job_id": self.name(theme),
            "description": "Made by distci drill, and removed by it",
            "tasks": tasks,
            "downstream_jobs": downstream,
        });
        file.to_string()
    }

    /// Each has what all before it have left.
    fn row(&self) -> Vec<Value> {
        let names = ["first", "second", "third", "fourth", "fifth"];
        let task = |(place, name): (usize, &&str)| {
            // One of them prints more than one append carries.
            let much = if place == 2 { "say_many 20000" } else { "" };
            self.task(
                name,
                json!({}),
                &format!("look {}\n{much}", names[..place].join(" ")),
            )
        };
        names.iter().enumerate().map(task).collect()
    }

    fn diamond(&self) -> Vec<Value> {
        let top = json!({ "needs": ["top"] });
        let both = json!({ "needs": ["left", "right"] });
        vec![
            self.task("top", json!({}), ""),
            self.task("left", top.clone(), "look top"),
            self.task("right", top, "look top; sleep 1"),
            self.task("join", both, "look top left right"),
            json!({ "name": "publish", "type": "publish-artifacts",
                "params": { "artifacts": ["join.made"] } }),
        ]
    }

    fn cells(&self) -> Value {
        let lock = format!("{}-lock", self.prefix);
        let more = json!({
            "matrix": { "side": ["left", "right"], "floor": ["1", "2", "3"] },
            "locks": [{ "name": lock, "slots": SLOTS }],
        });
        self.task("cell", more, &format!("say lock {lock} {SLOTS}\nsleep 0.5"))
    }

    fn task(&self, name: &str, mut more: Value, deeds: &str) -> Value {
        let mut params = json!({ "script": script(deeds) });
        if let Some(label) = &self.label {
            params["nodelabels"] = json!([label]);
        }
        more["name"] = json!(name);
        more["type"] = json!("execute-shell");
        more["params"] = params;
        more
    }
}

#[cfg(test)]
mod tests {
    use distci_model::config::JobConfig;

    use super::*;

    #[test]
    fn every_file_is_a_job() {
        let jobs = Jobs::new("drill-1", Some("quiet".parse().unwrap())).unwrap();
        for theme in Theme::ALL {
            let file = jobs.file(theme);
            let job = JobConfig::parse(&file).unwrap_or_else(|error| panic!("{file}: {error:?}"));
            assert_eq!(job.job_id, *jobs.name(theme));
        }
    }

    #[test]
    fn what_is_triggered_is_not_asked_for() {
        assert!(!Theme::ASKED.contains(&Theme::After));
    }
}
