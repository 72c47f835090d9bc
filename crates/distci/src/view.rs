//! Builds, times and sizes in words.

use distci_model::Timestamp;
use distci_model::build::{Cause, Downstream, Finished};
use distci_model::isolation::Usage;
use distci_model::outcome::{Failure, Fault, Outcome, Verdict};
use distci_model::wire::{ArtifactView, BuildPhase, BuildView, LockBlock, TaskState, TaskView};
use owo_colors::Style;

use crate::out::{Out, Paint};
use crate::table::{Cell, Table};

/// Most artifacts that a summary names.
const NAMED_ARTIFACTS: usize = 10;

/// Prints a table, or says that there is nothing to print.
pub(crate) fn print(table: &Table, empty: &str, out: &mut Out) -> std::io::Result<()> {
    let lines = table.lines(out.data_paint());
    if lines.len() == 1 {
        return out.say(empty);
    }
    lines.iter().try_for_each(|line| out.line(line))
}

/// Where a build stands, in a word or a few.
pub(crate) fn state(phase: BuildPhase, outcome: Option<&Outcome>) -> Cell {
    match (phase, outcome) {
        (_, Some(end)) => Cell::styled(outcome_in_words(end), style(end)),
        (BuildPhase::Queued, None) => Cell::styled("queued", Style::new().dimmed()),
        (BuildPhase::Running, None) => Cell::styled("running", Style::new().cyan()),
        (BuildPhase::Finished, None) => "finished".into(),
    }
}

/// How a task or a build ended. The verdict says already what the reason would repeat.
pub(crate) fn outcome_in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failure {
            reason: Failure::Tasks { failed: tasks },
        }
        | Outcome::Fault {
            reason: Fault::Tasks { faulted: tasks },
        } => format!("{}: {}", outcome.verdict(), tasks.join(", ")),
        Outcome::Success | Outcome::Failure { .. } | Outcome::Fault { .. } => outcome.to_string(),
    }
}

/// The colour of an outcome.
fn style(outcome: &Outcome) -> Style {
    if outcome.is_cancelled() {
        return Style::new().yellow();
    }
    match outcome.verdict() {
        Verdict::Success => Style::new().green(),
        Verdict::Failure => Style::new().red(),
        Verdict::Fault => Style::new().magenta(),
    }
}

/// Why a build exists.
pub(crate) fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Manual => "manual".to_owned(),
        Cause::Upstream { build } => build.to_string(),
        Cause::Event { told } => told.kind.to_string(),
        Cause::Rerun { of, .. } => format!("again {of}"),
    }
}

/// The lock that holds a ticket up, and who has it.
pub(crate) fn block(blocked: Option<&LockBlock>) -> String {
    let Some(LockBlock { lock, held_by }) = blocked else {
        return String::new();
    };
    let holders: Vec<_> = held_by.iter().map(ToString::to_string).collect();
    match holders.as_slice() {
        [] => format!("by lock {lock}"),
        holders => format!("by lock {lock} ({})", holders.join(", ")),
    }
}

/// A build with a line for each task, and what it triggered.
pub(crate) fn build(build: &BuildView, now: Timestamp, paint: Paint) -> Vec<String> {
    let end = build.finished.unwrap_or(now);
    let mut first = Table::bare();
    first.row([
        Cell::styled(build.build.to_string(), Style::new().bold()),
        state(build.phase, build.outcome.as_ref()),
        span(build.created, end).into(),
        cause(&build.cause).into(),
        Cell::styled(cancellation(build), Style::new().yellow()),
    ]);
    let mut lines = first.lines(paint);
    let mut tasks = Table::bare();
    for one in &build.tasks {
        tasks.row(task(one, now));
    }
    lines.extend(tasks.lines(paint));
    lines.extend(build.downstream.iter().map(|one| downstream(one, paint)));
    lines
}

/// That a build is being cancelled, and by what.
fn cancellation(build: &BuildView) -> String {
    let doing = (build.cancelled && build.outcome.is_none()).then_some("cancelling");
    let parts = doing.into_iter().chain(build.cancelled_by.as_deref());
    parts.collect::<Vec<_>>().join(": ")
}

/// Name, state, time, attempt, what else there is to know of a task, and what it took.
fn task(task: &TaskView, now: Timestamp) -> [Cell; 6] {
    let name: Cell = format!("  {}", task.name).into();
    let blank = || Cell::from("");
    let dimmed = |text: String| Cell::styled(text, Style::new().dimmed());
    let waiting = |name, why| [name, dimmed(why), blank(), blank(), blank(), blank()];
    match &task.state {
        TaskState::Waiting => waiting(name, "waiting".to_owned()),
        TaskState::Queued { attempt, requires } => {
            let lost = match attempt.get() {
                0 => String::new(),
                before => format!("after attempt {before}"),
            };
            let wanted = format!("for {requires}");
            [
                name,
                dimmed("queued".to_owned()),
                blank(),
                lost.into(),
                wanted.into(),
                blank(),
            ]
        }
        TaskState::Running {
            attempt,
            worker,
            started,
        } => {
            let running = Cell::styled("running", Style::new().cyan());
            let (took, worker) = (span(*started, now), format!("on {worker}"));
            [
                name,
                running,
                took.into(),
                ordinal(attempt.get()).into(),
                worker.into(),
                blank(),
            ]
        }
        TaskState::Backoff { run, until, last } => [
            name,
            Cell::styled(last.result.outcome.to_string(), style(&last.result.outcome)),
            blank(),
            format!("run {run}").into(),
            format!("again in {}", span(now, *until)).into(),
            blank(),
        ],
        TaskState::Asking { message, since, .. } => [
            name,
            Cell::styled("asks for approval", Style::new().yellow()),
            span(*since, now).into(),
            blank(),
            message.clone().into(),
            blank(),
        ],
        TaskState::Skipped { why } => waiting(name, format!("skipped: {why}")),
        TaskState::Finished { run } => finished(name, run),
    }
}

fn finished(name: Cell, run: &Finished) -> [Cell; 6] {
    let outcome = &run.result.outcome;
    let took = run.started.map(|started| span(started, run.finished));
    let artifacts = match run.result.artifacts {
        0 => String::new(),
        1 => format!("1 artifact, {}", size(run.result.artifact_bytes)),
        many => format!("{many} artifacts, {}", size(run.result.artifact_bytes)),
    };
    let tests = run.result.tests.map(|counts| format!("tests: {counts}"));
    let made: Vec<String> = tests.into_iter().chain([artifacts]).collect();
    let made = made.join("; ");
    [
        name,
        Cell::styled(outcome.to_string(), style(outcome)),
        took.unwrap_or_default().into(),
        ordinal(run.attempt.get()).into(),
        made.trim_end_matches("; ").into(),
        Cell::styled(
            run.result.usage.map(usage).unwrap_or_default(),
            Style::new().dimmed(),
        ),
    ]
}

/// What an attempt took of its machine; of the disk only what is worth a word.
fn usage(usage: Usage) -> String {
    const WORTH_A_WORD: u64 = 1_000_000;
    let Usage {
        cpu_ms,
        memory_peak,
        read,
        written,
    } = usage;
    let (seconds, tenths) = (cpu_ms / 1000, cpu_ms % 1000 / 100);
    let mut text = format!("cpu {seconds}.{tenths} s, memory {}", size(memory_peak));
    for (bytes, what) in [(read, "read"), (written, "written")] {
        if bytes >= WORTH_A_WORD {
            text = format!("{text}, {} {what}", size(bytes));
        }
    }
    text
}

/// The first attempt is what everybody expects.
fn ordinal(attempt: u32) -> String {
    if attempt > 1 {
        format!("attempt {attempt}")
    } else {
        String::new()
    }
}

fn downstream(downstream: &Downstream, paint: Paint) -> String {
    match downstream {
        Downstream::Triggered { build } => format!("  triggered {build}"),
        Downstream::Refused { job, why } => {
            let refused = paint.paint("could not trigger", Style::new().red());
            format!("  {refused} {job}: {}", plain(why))
        }
    }
}

/// The first artifacts of a build, a line for each.
pub(crate) fn artifacts(artifacts: &[ArtifactView], paint: Paint) -> Vec<String> {
    let mut table = Table::bare();
    for view in artifacts.iter().take(NAMED_ARTIFACTS) {
        let path = &view.artifact.path;
        table.row([
            format!("  artifact {path}").into(),
            size(view.artifact.bytes).into(),
        ]);
    }
    let mut lines = table.lines(paint);
    if let Some(more) = artifacts.len().checked_sub(NAMED_ARTIFACTS)
        && more > 0
    {
        lines.push(format!("  and {more} more"));
    }
    lines
}

/// A text from a build on one line, without what commands a terminal: control characters, and
/// those that turn the direction of the text around them.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// How long ago something was.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(then, now))
}

/// The time between two moments, in its two largest units.
pub(crate) fn span(start: Timestamp, end: Timestamp) -> String {
    let millis = end.duration_since(start).as_millis().max(0);
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}.{} s", millis % 1000 / 100),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A number of bytes, in its largest unit.
pub(crate) fn size(bytes: u64) -> String {
    let mut unit = 1;
    for name in ["B", "kB", "MB", "GB"] {
        if bytes < unit * 1000 {
            let tenths = bytes % unit * 10 / unit;
            let whole = bytes / unit;
            return if unit == 1 {
                format!("{whole} B")
            } else {
                format!("{whole}.{tenths} {name}")
            };
        }
        unit *= 1000;
    }
    format!("{} TB", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn times_and_sizes_are_short() {
        assert_eq!(span(at(0), at(3_250)), "3.2 s");
        assert_eq!(span(at(5), at(0)), "0.0 s");
        assert_eq!(span(at(0), at(245_000)), "4 min 05 s");
        assert_eq!(span(at(0), at(7_380_000)), "2 h 03 min");
        assert_eq!(span(at(0), at(90_000_000)), "1 d 01 h");
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1_349), "1.3 kB");
        assert_eq!(size(1_000_000), "1.0 MB");
        assert_eq!(size(64_000_000_000_000), "64 TB");
    }

    #[test]
    fn a_build_is_told_task_by_task() {
        let text = r#"{"build":{"job":"j","number":2},"phase":"finished",
            "outcome":{"verdict":"failure","reason":{"code":"tasks","failed":["b"]}},
            "cause":{"event":"manual"},"parameters":{},"revision":1,
            "created":"2026-01-01T00:00:00Z","finished":"2026-01-01T00:00:09Z","cancelled":false,
            "tasks":[{"name":"a","kind":"git-checkout","needs":[],"state":"finished",
                "run":{"ticket":"aaaaaaaaaaaaaaab","attempt":2,"worker":"w",
                    "result":{"verdict":"success","artifacts":2,"artifact_bytes":2500,
                        "tests":{"passed":3,"failed":0,"errored":0,"skipped":1}},
                    "started":"2026-01-01T00:00:01Z","finished":"2026-01-01T00:00:03Z"}},
              {"name":"c","kind":"execute-shell","needs":["b"],"state":"skipped",
                "why":{"code":"failed","task":"b"}}],
            "downstream":[]}"#;
        let view: BuildView = serde_json::from_str(text).unwrap();
        let lines = build(&view, at(0), Paint::OFF);
        assert_eq!(
            lines,
            [
                "j#2  failure: b  9.0 s  manual",
                "  a  success                     2.0 s  attempt 2  \
                    tests: 3 passed, 1 skipped; 2 artifacts, 2.5 kB",
                "  c  skipped: b did not succeed",
            ]
        );
    }

    #[test]
    fn names_from_builds_stay_on_their_line() {
        assert_eq!(plain("a\nb\x1b[2J ä"), "a\\nb\\u{1b}[2J ä");
        assert_eq!(plain("\u{202e}a\u{2069}ש"), "\\u{202e}a\\u{2069}ש");
    }
}
