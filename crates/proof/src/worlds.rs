//! The models that are explored: which jobs, who is there, how much may go wrong.
//!
//! Owns their sizes. A space of many kinds of trouble at once is too large for any machine, so there
//! are several worlds, each with the trouble that its laws are about.

use distci_model::config::JobConfig;
use distci_model::id::{BuildNumber, BuildRef, JobId};
use distci_model::schedule::marked;

use crate::act::Act;
use crate::setup::{Role, Setup};
use crate::state::Budget;

/// A model with a name.
#[derive(Debug, Clone)]
pub struct World {
    /// What it is called.
    pub name: &'static str,
    /// What it begins with.
    pub setup: Setup,
}

/// How much of a world is explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// What a test has time for.
    Small,
    /// What a person has patience for.
    Large,
    /// What a night is long enough for.
    Deep,
}

/// Nothing goes wrong.
const CALM: Budget = Budget {
    unknown: 0,
    twice: 0,
    crashes: 0,
    expiries: 0,
    releases: 0,
    failures: 0,
    faults: 0,
    lags: 0,
};

#[expect(
    clippy::expect_used,
    reason = "a model needs jobs that can be read; there is none without"
)]
fn job(text: &str) -> JobConfig {
    JobConfig::parse(text).expect("a job")
}

#[expect(clippy::expect_used, reason = "names of jobs are written here")]
fn id(name: &str) -> JobId {
    name.parse().expect("the name of a job")
}

/// A job of shell tasks, each as `name`, `needs` and what else is written of it.
fn shell(name: &str, tasks: &[(&str, &[&str], &str)], rest: &str) -> JobConfig {
    let task = |(name, needs, more): &(&str, &[&str], &str)| {
        format!(
            r#"{{"name": "{name}", "type": "execute-shell", "params": {{"script": "true"}}, "needs": {needs:?} {more}}}"#
        )
    };
    let tasks: Vec<_> = tasks.iter().map(task).collect();
    job(&format!(
        r#"{{"job_id": "{name}", "tasks": [{}] {rest}}}"#,
        tasks.join(",")
    ))
}

fn post(job: &str, request: u8) -> Role {
    let job = id(job);
    Role::User(Act::Post { job, request })
}

fn cancel(job: &str) -> Role {
    let build = BuildRef {
        job: id(job),
        number: BuildNumber::FIRST,
    };
    Role::User(Act::Cancel { build })
}

fn fire(job: &JobConfig, due: i64) -> Role {
    let mark = marked(&job.triggers).into_iter().map(|it| it.mark).next();
    Role::User(Act::Fire {
        job: job.job_id.clone(),
        mark: mark.unwrap_or_default(),
        due,
    })
}

fn setup(jobs: Vec<JobConfig>, roles: Vec<Role>, budget: Budget) -> Setup {
    Setup {
        jobs,
        roles,
        budget,
        lag: 2,
        defect: None,
    }
}

const ONE: &[(&str, &[&str], &str)] = &[("t", &[], "")];
const ROW: &[(&str, &[&str], &str)] = &[("t", &[], ""), ("u", &["t"], "")];
const BESIDE: &[(&str, &[&str], &str)] = &[("t", &[], ""), ("u", &[], "")];
const LOCKED: &[(&str, &[&str], &str)] = &[("t", &[], r#", "locks": ["l"]"#)];

/// All worlds of a size.
pub fn all(size: Size) -> Vec<World> {
    let more = u8::from(size >= Size::Large);
    let most = u8::from(size >= Size::Deep);
    let world = |name, setup| World { name, setup };
    vec![
        world("one task", one_task(more, most)),
        world("tasks in a row", tasks_in_a_row(more, most)),
        world("tasks beside each other", tasks_beside(more, most)),
        world("a task that fails", failing(more, most)),
        world("a build that is cancelled", cancelled(more, most)),
        world("frontends that lag", lagging(more, most)),
        world("a lock", locked(more, most)),
        world("one build at a time", one_at_a_time(more, most)),
        world("the newest build only", newest_only(more, most)),
        world("builds downstream", downstream(more, most)),
        world("requests", requests(more, most)),
        world("schedules", schedules(more, most)),
    ]
}

fn one_task(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    setup(
        vec![shell("a", ONE, "")],
        vec![Control, Control, Task, Task, post("a", 0)],
        Budget {
            unknown: 1,
            expiries: 1 + most,
            crashes: more,
            twice: 1,
            ..CALM
        },
    )
}

fn tasks_in_a_row(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    setup(
        vec![shell("a", ROW, "")],
        vec![Control, Task, post("a", 0)],
        Budget {
            unknown: 1 + more,
            expiries: 1 + more,
            twice: 1,
            crashes: 1 + most,
            ..CALM
        },
    )
}

fn tasks_beside(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    setup(
        vec![shell("a", BESIDE, "")],
        vec![Control, Task, Task, post("a", 0)],
        Budget {
            unknown: 1,
            expiries: more + most,
            ..CALM
        },
    )
}

fn failing(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    let tasks: &[(&str, &[&str], &str)] = &[
        ("t", &[], r#", "retry": {"max": 1, "backoff": "1s"}"#),
        ("u", &["t"], r#", "when": "on_failure""#),
    ];
    setup(
        vec![shell("a", tasks, "")],
        vec![Control, Task, post("a", 0)],
        Budget {
            failures: 2,
            faults: 1,
            releases: more,
            unknown: 1,
            expiries: most,
            ..CALM
        },
    )
}

fn cancelled(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    setup(
        vec![shell("a", ROW, "")],
        vec![Control, Task, post("a", 0), cancel("a")],
        Budget {
            unknown: 1,
            expiries: more,
            crashes: most,
            ..CALM
        },
    )
}

fn lagging(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    setup(
        vec![shell("a", ONE, "")],
        vec![Control, Task, Task, post("a", 0), cancel("a")],
        Budget {
            lags: 1 + more,
            expiries: 1 + most,
            ..CALM
        },
    )
}

fn locked(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    setup(
        vec![shell("a", LOCKED, "")],
        vec![Control, Task, Task, post("a", 0), post("a", 1)],
        Budget {
            unknown: more,
            expiries: 1,
            releases: most,
            ..CALM
        },
    )
}

fn one_at_a_time(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    let rest = r#", "concurrency": {"limit": 1}"#;
    setup(
        vec![shell("a", ONE, rest)],
        vec![Control, Task, post("a", 0), post("a", 1), cancel("a")],
        Budget {
            unknown: more,
            expiries: 1,
            crashes: most,
            ..CALM
        },
    )
}

fn newest_only(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    let rest = r#", "concurrency": {"limit": 1, "when_full": "cancel_older"}"#;
    setup(
        vec![shell("a", ONE, rest)],
        vec![Control, Task, post("a", 0), post("a", 1)],
        Budget {
            unknown: 1,
            expiries: more,
            crashes: most,
            ..CALM
        },
    )
}

fn downstream(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    let rest = r#", "downstream_jobs": ["down"]"#;
    setup(
        vec![shell("down", ONE, ""), shell("up", ONE, rest)],
        vec![Control, Task, post("up", 0), post("down", 1)],
        Budget {
            unknown: 1,
            expiries: more,
            failures: 1,
            twice: most,
            ..CALM
        },
    )
}

fn requests(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    setup(
        vec![shell("a", ONE, "")],
        vec![Control, Task, post("a", 0), post("a", 0), post("a", 1)],
        Budget {
            unknown: 1,
            twice: 1,
            lags: more,
            expiries: most,
            ..CALM
        },
    )
}

fn schedules(more: u8, most: u8) -> Setup {
    use Role::{Control, Task};
    let rest = r#", "triggers": [{"cron": "* * * * *", "timezone": "UTC", "catch_up": "all"}]"#;
    let job = shell("a", ONE, rest);
    let roles = vec![
        Control,
        Task,
        fire(&job, 60),
        fire(&job, 60),
        fire(&job, 120),
    ];
    setup(
        vec![job],
        roles,
        Budget {
            unknown: 1,
            twice: more,
            lags: most,
            expiries: most,
            ..CALM
        },
    )
}
