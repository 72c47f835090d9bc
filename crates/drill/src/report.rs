//! What a drill has shown, for people and for programs.

use std::fmt;
use std::time::Duration;

use distci_checker::{Law, Verdict};
use distci_model::Timestamp;
use serde::Serialize;

use crate::nemesis::{Done, Recovery};

/// What a drill has shown.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When it began.
    pub began: Timestamp,
    /// How long it hurt the cluster, in seconds.
    pub seconds: u64,
    /// What drew the order of faults and builds.
    pub seed: u64,
    /// The frontends that were asked.
    pub frontends: usize,
    /// What was done, in order.
    pub faults: Vec<Done>,
    /// How much was asked for and came of it.
    pub work: Tally,
    /// Which promises were kept.
    pub verdict: Verdict,
}

/// How much was done.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Builds, those triggered by others too.
    pub builds: usize,
    /// Attempts that said that they began.
    pub attempts: usize,
    /// Those that were lost to a fault, so that another followed.
    pub lost: usize,
    /// Bytes of the consoles that count.
    pub console_bytes: u64,
    /// How long clients waited for the acknowledgement of a build: the median.
    pub wait_p50_ms: u64,
    /// Of a hundred of them, the slowest but one.
    pub wait_p99_ms: u64,
    /// The slowest.
    pub wait_most_ms: u64,
}

impl Tally {
    /// Notes how long clients waited.
    pub(crate) fn waits(&mut self, mut waits: Vec<Duration>) {
        waits.sort_unstable();
        let of = |percent: usize| {
            let place = waits.len() * percent / 100;
            let wait = waits.get(place.min(waits.len().saturating_sub(1)));
            wait.map_or(0, |wait| {
                u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
            })
        };
        (self.wait_p50_ms, self.wait_p99_ms, self.wait_most_ms) = (of(50), of(99), of(100));
    }
}

impl Report {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean()
    }

    /// Recoveries that took longer than the file of faults aims at.
    pub fn late(&self) -> impl Iterator<Item = &Done> {
        self.faults.iter().filter(|done| done.is_late())
    }
}

impl fmt::Display for Report {
    /// As Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_clean() {
            "every promise was kept"
        } else {
            "PROMISES WERE BROKEN"
        };
        writeln!(f, "# Drill: {verdict}\n")?;
        let Self {
            seed,
            frontends,
            work,
            ..
        } = self;
        writeln!(
            f,
            "{:.0}, {} s over {frontends} frontends, seed {seed}: {} faults, {} builds, {} attempts of \
             which {} were lost and begun anew, {} bytes of console. A build was acknowledged after {} \
             (median), {} (99 of 100), {} (the slowest).\n",
            self.began,
            self.seconds,
            self.faults.len(),
            work.builds,
            work.attempts,
            work.lost,
            work.console_bytes,
            seconds_of(work.wait_p50_ms),
            seconds_of(work.wait_p99_ms),
            seconds_of(work.wait_most_ms),
        )?;
        self.write_faults(f)?;
        writeln!(f, "| promise | cases | |\n|---|---|---|")?;
        for law in Law::ALL {
            let cases = self.verdict.cases.get(&law).copied().unwrap_or(0);
            let breaches = self.verdict.breaches.iter();
            let broken = breaches.filter(|breach| breach.law == law).count();
            let mark = match (broken, cases) {
                (1.., _) => format!("**broken {broken} times**"),
                (0, 0) => "not put to the test".to_owned(),
                (0, _) => "kept".to_owned(),
            };
            writeln!(f, "| {} | {cases} | {mark} |", law.promise())?;
        }
        for breach in &self.verdict.breaches {
            write!(f, "\n- {breach}")?;
        }
        if !self.is_clean() {
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Report {
    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.faults.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "| at | fault | lasted | served again | a build is done | healed: served | a build is done | aim |\n\
             |---|---|---|---|---|---|---|---|"
        )?;
        for done in &self.faults {
            let after = done.after.unwrap_or(Recovery {
                served_ms: None,
                built_ms: None,
            });
            let healed = |took: Option<u64>| match done.after {
                Some(_) => seconds(took),
                None => "–".to_owned(),
            };
            writeln!(
                f,
                "| {} | {} | {} s | {} | {} | {} | {} | {} |",
                done.from.strftime("%H:%M:%S"),
                done.name,
                done.healed.duration_since(done.from).as_secs(),
                seconds(done.hurt.served_ms),
                seconds(done.hurt.built_ms),
                healed(after.served_ms),
                healed(after.built_ms),
                aim(done),
            )?;
        }
        writeln!(f)
    }
}

/// What the file of faults aims at, and whether that was met.
fn aim(done: &Done) -> String {
    let aims = [("served", done.served_within), ("built", done.built_within)];
    let aims = aims.iter().filter_map(|(what, aim)| Some((what, (*aim)?)));
    let words: Vec<String> = aims
        .map(|(what, aim)| format!("{what} ≤ {aim} s"))
        .collect();
    match (words.is_empty(), done.is_late()) {
        (true, _) => "–".to_owned(),
        (false, true) => format!("**late**: {}", words.join(", ")),
        (false, false) => words.join(", "),
    }
}

/// Milliseconds as people read them.
pub(crate) fn seconds(ms: Option<u64>) -> String {
    ms.map_or_else(|| "never".to_owned(), seconds_of)
}

fn seconds_of(ms: u64) -> String {
    format!("{:.2} s", Duration::from_millis(ms).as_secs_f64())
}
