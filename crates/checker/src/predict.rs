//! What the law alone says about a build: how it must end when its tasks end as foretold.
//!
//! Owns the walk of a build through `decide`, without a store, a worker or time. Never looks at what a
//! cluster has made of the same build.

use std::collections::BTreeMap;

use distci_model::Timestamp;
use distci_model::build::{Build, Cause, Checkpoint, ConfigRef, Downstream, Event, Finished};
use distci_model::capability::Capabilities;
use distci_model::config::JobConfig;
use distci_model::decide::{Next, Posting, decide};
use distci_model::id::{Attempt, BuildNumber, BuildRef, JobKey, RequestId};
use distci_model::outcome::{Outcome, TaskResult};
use distci_model::ticket::{Duty, Priority, Stamp, Ticket, TicketState};

/// What the law alone says about a build whose tasks end as `result` says: the last checkpoint, and
/// how the build ends.
pub fn predict(config: &JobConfig, result: impl Fn(&str) -> TaskResult) -> (Checkpoint, Outcome) {
    let (config, at) = (&config.flat(), Timestamp::UNIX_EPOCH);
    let (mut build, mut events) = (first_build(config, at), Vec::new());
    loop {
        let decided = decide(config, &build, &events);
        build.checkpoint = decided.checkpoint;
        for place in decided.trigger {
            let job = config.downstream_jobs[place].job.clone();
            let why = "to be seen".to_owned();
            let refused = Downstream::Refused { job, why };
            build.checkpoint.downstream.push(refused);
        }
        if let Next::Archive { outcome } = decided.next {
            return (build.checkpoint, outcome);
        }
        let ended = |posting: Posting| {
            Event::Finished(Box::new(Finished {
                queued: None,
                past: Vec::new(),
                ticket: posting.ticket,
                run: 1,
                build: None,
                attempt: Attempt::new(1),
                result: result(config.tasks[posting.task].name.as_str()),
                worker: None,
                started: None,
                finished: at,
            }))
        };
        events = decided.post.into_iter().map(ended).collect();
    }
}

fn first_build(config: &JobConfig, at: Timestamp) -> Build {
    let requires = Capabilities::control();
    Build {
        ticket: Ticket {
            queued: None,
            past: Vec::new(),
            duty: Duty::Control,
            job: JobKey::derive(&config.job_id, 0),
            number: BuildNumber::FIRST,
            class: requires.class(),
            priority: Priority::CONTROL,
            stamp: Stamp::at(at),
            attempt: Attempt::default(),
            losses: 0,
            locks: Vec::new(),
            slots: Vec::new(),
            state: TicketState::Queued,
        },
        id: BuildRef {
            job: config.job_id.clone(),
            number: BuildNumber::FIRST,
        },
        config: ConfigRef {
            file: None,
            revision: 1,
            hash: String::new(),
        },
        parameters: BTreeMap::new(),
        cause: Cause::Manual,
        request: RequestId::derive("first"),
        depth: 0,
        created: at,
        checkpoint: Checkpoint::start(config.tasks.len(), at),
    }
}
