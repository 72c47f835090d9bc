//! The table of figures, for people and for programs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    figure: String,
    measured: String,
    target: String,
    raw: String,
}

/// All figures that were measured.
pub(crate) struct Report {
    wanted: Vec<String>,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(wanted: Vec<String>) -> Self {
        Self {
            wanted,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Whether a figure of this name was asked for; all are, if none was named.
    pub(crate) fn wants(&self, figure: &str) -> bool {
        self.wanted.is_empty()
            || self
                .wanted
                .iter()
                .any(|word| figure.contains(word.as_str()))
    }

    /// Adds a figure: what was measured, what is aimed at, what the machine itself allows.
    pub(crate) fn add(&mut self, figure: &str, measured: String, target: &str, raw: String) {
        eprintln!("{figure}: {measured}");
        let (figure, target) = (figure.to_owned(), target.to_owned());
        self.rows.push(Row {
            figure,
            measured,
            target,
            raw,
        });
    }

    /// Adds what is to be known of the machine while it was measured.
    pub(crate) fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    /// The table as Markdown, with the notes below it.
    pub(crate) fn table(&self) -> String {
        let head = "| figure | measured | target | raw limit, same run |\n|---|---|---|---|\n";
        let row = |row: &Row| {
            let Row {
                figure,
                measured,
                target,
                raw,
            } = row;
            format!("| {figure} | {measured} | {target} | {raw} |\n")
        };
        let notes = self.notes.iter().map(|note| format!("\n{note}\n"));
        let lines = self.rows.iter().map(row).chain(notes);
        lines.fold(head.to_owned(), |table, line| [table, line].concat())
    }

    /// Writes the figures as JSON beside the build's other products.
    pub(crate) fn write(&self) -> anyhow::Result<PathBuf> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")),
            PathBuf::from,
        );
        let file = target.join("bench.json");
        std::fs::create_dir_all(&target)?;
        let text = serde_json::to_vec_pretty(&self.rows)?;
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

/// Durations, gathered.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> anyhow::Result<Self> {
        // From a microsecond to a minute.
        Ok(Self(Histogram::new_with_bounds(1, 60_000_000, 3)?))
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0
            .saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// A percentile in milliseconds.
    pub(crate) fn at(&self, percentile: f64) -> f64 {
        let micros = Duration::from_micros(self.0.value_at_percentile(percentile));
        micros.as_secs_f64() * 1000.0
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "p50 {:.2} ms, p99 {:.2} ms",
            self.at(50.0),
            self.at(99.0)
        )
    }
}
