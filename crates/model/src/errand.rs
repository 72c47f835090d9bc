//! The errand: work that DistCI does for itself and that belongs to no build.
//!
//! Owns the records of a poll (look at a repository) and of a report (tell a forge how a commit
//! stands), and the law of what follows when a try at one is over: [`after`]. An errand is never
//! given up for being lost or refused a few times, and a report tells the final state last.

mod check;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::capability::{Capabilities, Host, Kind};
use crate::config::Span;
use crate::id::{Attempt, BuildNumber, JobId, JobKey};
use crate::outcome::{Outcome, Verdict};
use crate::ticket::{Duty, Priority, Stamp, Ticket, TicketState};

pub use check::{Check, CheckEnd, Conclusion, MAX_SUMMARY, summarize};

/// Most refs that one poll follows.
pub const MAX_HEADS: usize = 256;
/// Longest name of a ref that a poll follows.
pub const MAX_REF: usize = 255;
/// Most builds that follow from one look; the next one, which comes at once, finds the others.
pub const MAX_FOUND: usize = 8;
/// Longest description that forges take, in characters.
pub const MAX_DESCRIPTION: usize = 140;
/// Longest that anything is said about a try that came to nothing, in characters.
pub const MAX_DETAIL: usize = 300;

/// How long a report is tried before it is given up.
pub const PATIENCE: Duration = Duration::from_hours(7 * 24);
/// The first wait of a report after a try that came to nothing, and the longest.
const REPORT_WAITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));
/// The same after an answer that will hardly change by itself.
const HOPELESS_WAITS: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// The longest that a forge may ask us to stay away.
const LONGEST_ASKED: Duration = Duration::from_hours(1);
/// The longest first wait of a poll that came to nothing; and of any, unless its interval is longer.
const POLL_WAITS: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(1));
/// Most that an interval is stretched by failures.
const MOST_STRETCH: u32 = 8;

/// The anchor of an errand's ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// The ticket.
    pub ticket: Ticket,
    /// The latest attempt that was completed, by which a repeated completion is known.
    #[serde(default)]
    pub completed: Attempt,
    /// How many tries in a row came to nothing.
    #[serde(default)]
    pub failures: u32,
    /// What was wrong with the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setback: Option<Setback>,
    /// What is to be done.
    pub what: What,
}

/// What an errand is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "errand", rename_all = "kebab-case")]
pub enum What {
    /// Look at a repository.
    Poll(Poll),
    /// Tell a forge.
    Report(Report),
}

/// A repository that is looked at again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// For which job.
    pub job: JobId,
    /// For which of its triggers, by its mark.
    pub trigger: String,
    /// How often, as the trigger last said.
    pub every: Span,
    /// What it held at the last look: commits by the names of their refs. `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<BTreeMap<String, String>>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<Timestamp>,
}

/// How a commit stands, for its forge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of which job.
    pub job: JobId,
    /// Of which build; none if there is none on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildNumber>,
    /// Host and path of the repository.
    pub repository: String,
    /// The commit.
    pub sha: String,
    /// What the forge lists it as.
    pub context: String,
    /// What the forge is to hear.
    pub wanted: CommitState,
    /// The same in words.
    pub description: String,
    /// Since when that is so.
    pub since: Timestamp,
    /// What it has heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<CommitState>,
    /// The same for a forge that has checks; none in what an older program wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

/// How a commit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CommitState {
    /// Its build is not over.
    Pending,
    /// All is well with it.
    Success,
    /// The code, or its configuration, said no.
    Failure,
    /// Nobody can say: the build was cancelled, or we could not do our part.
    Error,
}

impl CommitState {
    /// What a forge is told of a build that ended like this.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome.verdict() {
            Verdict::Success => Self::Success,
            Verdict::Failure if outcome.is_cancelled() => Self::Error,
            Verdict::Failure => Self::Failure,
            Verdict::Fault => Self::Error,
        }
    }

    /// Whether nothing comes after it.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending => false,
            Self::Success | Self::Failure | Self::Error => true,
        }
    }
}

impl fmt::Display for CommitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
        })
    }
}

/// A try that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Setback {
    /// What was wrong.
    pub detail: String,
    /// When.
    pub at: Timestamp,
}

/// What the holder of an errand is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "errand", rename_all = "kebab-case")]
pub enum ErrandOrder {
    /// Look where the refs of a repository are.
    Poll {
        /// Its address or path.
        repository: String,
        /// Patterns of refs, of which one must fit; none: the default branch.
        refs: Vec<String>,
    },
    /// Tell a forge how a commit stands.
    Report {
        /// Host and path of the repository.
        repository: String,
        /// The commit.
        sha: String,
        /// What the forge lists it as.
        context: String,
        /// How it stands.
        state: CommitState,
        /// The same in words.
        description: String,
        /// The build's page, if the frontend knows where people see it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// The same for a forge that has checks; none of an older frontend.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        check: Option<Check>,
    },
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "came-to", rename_all = "kebab-case")]
pub enum ErrandResult {
    /// The repository was looked at.
    Looked {
        /// The commits that the refs are at, by their full names; at most [`MAX_HEADS`].
        heads: BTreeMap<String, String>,
    },
    /// The forge took it.
    Told {
        /// What.
        state: CommitState,
    },
    /// Nothing.
    Nothing {
        /// What was wrong; at most [`MAX_DETAIL`] characters of it are kept.
        detail: String,
        /// Seconds that the other side asks to be left alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// Whether only people can mend it.
        #[serde(default)]
        hopeless: bool,
    },
}

/// A commit that a look has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The full name of its ref.
    pub reference: String,
    /// The commit.
    pub sha: String,
    /// Where the ref was before; none if it is new.
    pub before: Option<String>,
}

/// What becomes of an errand's ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterErrand {
    /// It rests; without a time, until somebody wakes it.
    Park {
        /// Until then.
        until: Option<Timestamp>,
    },
    /// It is to be done again at once.
    Queue,
    /// It is done for good.
    Remove,
}

impl Errand {
    /// A new errand on behalf of a job.
    pub fn new(key: &JobKey, what: What, at: Timestamp) -> Self {
        let ticket = Ticket {
            queued: None,
            past: Vec::new(),
            duty: Duty::Errand,
            job: key.clone(),
            number: what.build().unwrap_or(BuildNumber::FIRST),
            class: what.requires().class(),
            priority: Priority::NORMAL,
            stamp: Stamp::at(at),
            attempt: Attempt::default(),
            losses: 0,
            locks: Vec::new(),
            slots: Vec::new(),
            state: TicketState::Queued,
        };
        Self {
            ticket,
            completed: Attempt::default(),
            failures: 0,
            setback: None,
            what,
        }
    }

    /// Whether it is given up though nobody has even tried it: the end of a build that no worker has
    /// taken to its forge all that time. What is held or parked comes round by itself, and what is
    /// not final is woken by its end.
    pub fn is_forsaken(&self, at: Timestamp) -> bool {
        match (&self.what, &self.ticket.state) {
            (What::Report(report), TicketState::Queued) => {
                report.wanted.is_final() && report.is_old(at)
            }
            (What::Report(_) | What::Poll(_), _) => false,
        }
    }
}

/// What an errand is for, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrandName {
    /// Looking at a repository.
    Poll,
    /// Telling a forge.
    Report,
}

impl fmt::Display for ErrandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Poll => "poll",
            Self::Report => "report",
        })
    }
}

impl What {
    /// In one word.
    pub fn name(&self) -> ErrandName {
        match self {
            Self::Poll(_) => ErrandName::Poll,
            Self::Report(_) => ErrandName::Report,
        }
    }

    /// For which build, if for one.
    pub fn build(&self) -> Option<BuildNumber> {
        match self {
            Self::Poll(_) => None,
            Self::Report(report) => report.build,
        }
    }

    /// For which job.
    pub fn job(&self) -> &JobId {
        match self {
            Self::Poll(poll) => &poll.job,
            Self::Report(report) => &report.job,
        }
    }

    /// What a worker must offer to do it.
    pub fn requires(&self) -> Capabilities {
        match self {
            Self::Poll(_) => Capabilities::task(Kind::GitCheckout, &[]),
            Self::Report(report) => Capabilities::report(&report.host()),
        }
    }
}

impl Poll {
    /// The commits of `heads` that nobody has taken notice of. At the first look that is none: what
    /// was there before the job is not news.
    pub fn found(&self, heads: &BTreeMap<String, String>) -> Vec<Found> {
        let Some(known) = &self.heads else {
            return Vec::new();
        };
        let found = |(reference, sha): (&String, &String)| {
            let before = known.get(reference);
            (before != Some(sha)).then(|| Found {
                reference: reference.clone(),
                sha: sha.clone(),
                before: before.cloned(),
            })
        };
        heads.iter().filter_map(found).collect()
    }

    /// Takes notice of a commit.
    pub fn note(&mut self, found: &Found) {
        let heads = self.heads.get_or_insert_default();
        heads.insert(found.reference.clone(), found.sha.clone());
    }
}

impl Report {
    /// Whether a forge can be told of such a repository, commit or not.
    pub fn is_of_forge(repository: &str) -> bool {
        let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
        !path.is_empty() && host.parse::<Host>().is_ok()
    }

    /// Where the forge is.
    pub fn host(&self) -> Host {
        Host::of_repository(&self.repository)
    }

    /// Whether it has been tried for as long as it is worth.
    fn is_old(&self, at: Timestamp) -> bool {
        let tried = Duration::try_from(at.duration_since(self.since));
        tried.is_ok_and(|tried| tried >= PATIENCE)
    }

    /// From now on the forge is to hear this. What was final stays.
    pub fn want(
        &mut self,
        state: CommitState,
        description: &str,
        check: Option<Check>,
        at: Timestamp,
    ) {
        if !self.wanted.is_final() {
            self.wanted = state;
            self.check = check;
            self.description = shorten(description, MAX_DESCRIPTION);
            self.since = at;
        }
    }
}

/// What follows from a try that is over: the errand as it is then, and what becomes of its ticket.
/// The commits that a look has found are taken notice of by the caller, each in the commit of its
/// build; those that it left make the errand come back at once.
pub fn after(errand: &Errand, result: &ErrandResult, at: Timestamp) -> (Errand, AfterErrand) {
    let mut errand = errand.clone();
    let next = match (&mut errand.what, result) {
        (What::Poll(poll), ErrandResult::Looked { heads }) => {
            let (job, spread) = (&errand.ticket.job, errand.ticket.attempt);
            let next = looked(poll, heads, at, (job, spread));
            errand.failures = 0;
            // What was wrong with a commit that this very look has found, stays to be seen.
            errand.setback = errand.setback.filter(|setback| setback.at == at);
            next
        }
        (What::Report(report), ErrandResult::Told { state }) => {
            report.told = Some(*state);
            (errand.failures, errand.setback) = (0, None);
            match report.wanted {
                wanted if wanted != *state => AfterErrand::Queue,
                wanted if wanted.is_final() => AfterErrand::Remove,
                _ => AfterErrand::Park { until: None },
            }
        }
        (_, ErrandResult::Nothing { detail, .. }) => fail(&mut errand, detail, result, at),
        // The answer to another question: as good as none.
        (What::Poll(_), ErrandResult::Told { .. })
        | (What::Report(_), ErrandResult::Looked { .. }) => fail(
            &mut errand,
            "the worker answered another question",
            result,
            at,
        ),
    };
    (errand, next)
}

fn looked(
    poll: &mut Poll,
    heads: &BTreeMap<String, String>,
    at: Timestamp,
    (job, attempt): (&JobKey, Attempt),
) -> AfterErrand {
    let more = !poll.found(heads).is_empty();
    poll.looked = Some(at);
    match &mut poll.heads {
        // A ref that went and comes again is new.
        Some(known) => known.retain(|reference, _| heads.contains_key(reference)),
        None => poll.heads = Some(heads.clone()),
    }
    if more {
        return AfterErrand::Queue;
    }
    let every = Duration::from(poll.every);
    let mark = format!("{job} {} {attempt}", poll.trigger);
    park(at, every.saturating_add(spread(&mark, every / 10)))
}

/// Many polls that were made together shall not stay together.
fn spread(mark: &str, most: Duration) -> Duration {
    let hash = blake3::derive_key("distci poll spread v1", mark.as_bytes());
    let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(u64::from(hash[0]) * (millis / 256))
}

fn fail(errand: &mut Errand, detail: &str, result: &ErrandResult, at: Timestamp) -> AfterErrand {
    errand.failures = errand.failures.saturating_add(1);
    errand.setback = Some(Setback {
        detail: shorten(detail, MAX_DETAIL),
        at,
    });
    let (asked, hopeless) = match result {
        ErrandResult::Nothing {
            after, hopeless, ..
        } => (after.map(Duration::from_secs), *hopeless),
        ErrandResult::Looked { .. } | ErrandResult::Told { .. } => (None, false),
    };
    let (first, longest) = match &errand.what {
        What::Poll(poll) => {
            let every = Duration::from(poll.every);
            let longest = every.max(POLL_WAITS.1);
            (every.min(POLL_WAITS.0), longest.min(every * MOST_STRETCH))
        }
        What::Report(report) => {
            if report.is_old(at) {
                // The end of the build will wake what is not final.
                return if report.wanted.is_final() {
                    AfterErrand::Remove
                } else {
                    AfterErrand::Park { until: None }
                };
            }
            if hopeless {
                HOPELESS_WAITS
            } else {
                REPORT_WAITS
            }
        }
    };
    let wait = back_off(first, longest, errand.failures);
    park(at, wait.max(asked.unwrap_or_default().min(LONGEST_ASKED)))
}

/// The wait after so many in a row: twice as long each time.
pub(crate) fn back_off(first: Duration, longest: Duration, times: u32) -> Duration {
    let factor = 1u32 << times.saturating_sub(1).min(16);
    first.saturating_mul(factor).min(longest)
}

fn park(at: Timestamp, wait: Duration) -> AfterErrand {
    let until = at.saturating_add(wait).unwrap_or(Timestamp::MAX);
    AfterErrand::Park { until: Some(until) }
}

/// As much of a text as fits, in one line.
pub fn shorten(text: &str, most: usize) -> String {
    let line = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().map(line).take(most).collect();
    if text.chars().count() > most {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
