//! Consoles by line, and searched.

use axum::Json;
use axum::extract::{Path, Query, State};
use distci_model::console::{FoundView, HitView, LineView, LinesView};
use distci_model::id::{Attempt, BuildRef, JobId, TaskName};
use distci_model::wire::Problem;
use distci_store::{ConsoleHome, FoundLines, Lines, LinesFrom, Match, Search};
use serde::Deserialize;
use utoipa::IntoParams;

use super::builds::find;
use crate::app::App;
use crate::error::ApiError;

/// Most lines of one answer.
const MOST: usize = 2000;
/// Lines of an answer, if nothing is said.
const USUAL: usize = 200;
/// Longest pattern.
const MAX_PATTERN: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, IntoParams)]
pub(crate) struct Wanted {
    /// The task.
    task: TaskName,
    /// The attempt; the latest, if left out.
    attempt: Option<u32>,
    /// The first line, from 1; without it and `offset`, the last lines are given.
    line: Option<u64>,
    /// A byte: its line is the first.
    offset: Option<u64>,
    /// How many, at most 2000; 200 if left out.
    count: Option<usize>,
}

impl Wanted {
    /// The same with at most so many lines before it, and how many these are.
    pub(crate) fn with_before(self, most: u64) -> (Self, usize) {
        let before = self.line.map_or(0, |line| line.saturating_sub(1).min(most));
        let known = usize::try_from(before).unwrap_or_default();
        let wanted = Self {
            line: self.line.map(|line| line - before),
            count: Some(self.count.unwrap_or(USUAL).saturating_add(known)),
            ..self
        };
        (wanted, known)
    }
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct Searched {
    /// The task.
    task: TaskName,
    /// The attempt; the latest, if left out.
    attempt: Option<u32>,
    /// The text to look for.
    q: String,
    /// Whether it is a regular expression.
    #[serde(default)]
    regex: bool,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    ignore_case: bool,
    /// The line to begin at, from 1.
    line: Option<u64>,
    /// How many lines, at most 2000; 200 if left out.
    count: Option<usize>,
}

/// Lines of the console of a task.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/console/lines", tag = "builds",
    params(Wanted), responses((status = 200, body = LinesView), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn lines(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<LinesView>, ApiError> {
    let build = find(&app, job, &selector).await?;
    let (home, lines) = read(&app, &build, &wanted).await?;
    let view = |line: distci_store::Line| LineView {
        line: line.number + 1,
        offset: line.offset,
        text: text(&line.bytes),
        cut: line.cut,
    };
    Ok(Json(LinesView {
        attempt: home.attempt,
        total: lines.total,
        length: lines.length,
        complete: home.complete,
        lines: lines.lines.into_iter().map(view).collect(),
    }))
}

/// The lines that are wanted, as bytes, and whose they are.
pub(crate) async fn read(
    app: &App,
    build: &BuildRef,
    wanted: &Wanted,
) -> Result<(ConsoleHome, Lines), ApiError> {
    let attempt = wanted.attempt.map(Attempt::new);
    let home = app.store.console(build, &wanted.task, attempt).await?;
    let from = match (wanted.line, wanted.offset) {
        (Some(0), _) => return Err(ApiError::malformed("lines are counted from 1")),
        (Some(line), _) => LinesFrom::Line(line - 1),
        (None, Some(offset)) => LinesFrom::Offset(offset),
        (None, None) => LinesFrom::End,
    };
    let count = wanted.count.unwrap_or(USUAL).min(MOST);
    let lines = app.store.console_lines(&home, from, count).await?;
    Ok((home, lines))
}

/// The lines of the console of a task in which something is found.
#[utoipa::path(get, path = "/jobs/{job}/builds/{build}/console/search", tag = "builds",
    params(Searched), responses((status = 200, body = FoundView), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn search(
    State(app): State<App>,
    Path((job, selector)): Path<(JobId, String)>,
    Query(searched): Query<Searched>,
) -> Result<Json<FoundView>, ApiError> {
    let build = find(&app, job, &selector).await?;
    let search = pattern(&searched.q, searched.regex, searched.ignore_case)?;
    let attempt = searched.attempt.map(Attempt::new);
    let home = app.store.console(&build, &searched.task, attempt).await?;
    let from = searched.line.unwrap_or(1).saturating_sub(1);
    let count = searched.count.unwrap_or(USUAL).min(MOST);
    let FoundLines { matches, next } = app
        .store
        .search_console(&home, &search, from, count)
        .await?;
    Ok(Json(FoundView {
        attempt: home.attempt,
        lines: matches.iter().map(hit).collect(),
        next: next.map(|line| line + 1),
    }))
}

/// What is searched for.
pub(crate) fn pattern(q: &str, is_regex: bool, ignore_case: bool) -> Result<Search, ApiError> {
    if q.is_empty() || q.len() > MAX_PATTERN {
        let detail = format!("`q` must have 1 to {MAX_PATTERN} bytes");
        return Err(ApiError::malformed(detail));
    }
    Search::new(q, !is_regex, ignore_case)
        .map_err(|error| ApiError::malformed(format!("`q`: {error}")))
}

/// A line that was found, as it is told.
pub(crate) fn hit(found: &Match) -> HitView {
    let part = |range: std::ops::Range<usize>| text(found.bytes.get(range).unwrap_or_default());
    HitView {
        line: found.line + 1,
        offset: found.offset,
        before: part(0..found.found.start),
        found: part(found.found.clone()),
        after: part(found.found.end..found.bytes.len()),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
