//! Searching the consoles of many builds.
//!
//! Owns the order in which consoles are searched, the newest build of each job first, and how much of
//! it one request does: whoever wants more comes back with the cursor.

use axum::Json;
use axum::extract::{Query, State};
use distci_model::Timestamp;
use distci_model::console::GrepView;
use distci_model::id::{BuildNumber, BuildRef, JobId, TaskName};
use distci_model::wire::{BuildSummary, Page, Problem};
use distci_store::{Search, StoreError};
use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use tokio::time::{Duration, Instant};
use utoipa::IntoParams;

use super::console_lines::{hit, pattern};
use crate::app::App;
use crate::error::ApiError;

/// Most lines of one answer.
const MOST: usize = 200;
/// How long one request may search before it answers with what it has.
const PATIENCE: Duration = Duration::from_secs(3);
/// Builds that are listed at once.
const BUILDS: usize = 50;

#[derive(Deserialize, IntoParams)]
pub(crate) struct Wanted {
    /// The text to look for.
    pub(crate) q: String,
    /// Whether it is a regular expression.
    #[serde(default)]
    pub(crate) regex: bool,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    pub(crate) ignore_case: bool,
    /// The jobs, as a pattern such as `web-*`; all, if left out.
    pub(crate) job: Option<String>,
    /// The task; all, if left out.
    pub(crate) task: Option<TaskName>,
    /// The moment (RFC 3339) that builds must have been made after.
    pub(crate) since: Option<Timestamp>,
    /// Whether only builds that did not succeed are searched.
    #[serde(default)]
    pub(crate) failed: bool,
    /// Where an earlier answer ended.
    pub(crate) cursor: Option<String>,
}

/// What was found, and how far the search has come.
#[derive(Debug, Default)]
pub(crate) struct Searched {
    /// The builds in which something was found, in the order of the lines.
    pub(crate) builds: Vec<(BuildRef, BuildSummary)>,
    /// The lines.
    pub(crate) lines: Vec<GrepView>,
    /// Where to go on, if it is not done.
    pub(crate) next: Option<String>,
    /// The build that comes next then.
    pub(crate) reached: Option<BuildRef>,
}

/// A place in the order of all consoles.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    job: JobId,
    build: BuildNumber,
    task: usize,
    line: u64,
}

/// Lines in the consoles of many builds: the last attempt of each task, newest builds first, one job
/// after the other. An answer may have few lines, or none, and still a cursor to go on with.
#[utoipa::path(get, path = "/search", tag = "builds", params(Wanted),
    responses((status = 200, body = Page<GrepView>), (status = 400, body = Problem)))]
pub(crate) async fn grep(
    State(app): State<App>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<GrepView>>, ApiError> {
    let searched = search(&app, &wanted).await?;
    Ok(Json(Page {
        items: searched.lines,
        next: searched.next,
    }))
}

/// The same, with the builds.
pub(crate) async fn search(app: &App, wanted: &Wanted) -> Result<Searched, ApiError> {
    let jobs = wanted.job.as_deref().map(jobs).transpose()?;
    let start = wanted.cursor.as_deref().map(place).transpose()?;
    let mut walk = Walk {
        search: pattern(&wanted.q, wanted.regex, wanted.ignore_case)?,
        app,
        wanted,
        deadline: Instant::now() + PATIENCE,
        searched: Searched::default(),
    };
    for job in crate::jobs::names(app).await? {
        let fits = jobs.as_ref().is_none_or(|jobs| jobs.is_match(job.as_str()));
        let done = start.as_ref().is_some_and(|start| job < start.job);
        if !fits || done {
            continue;
        }
        let from = start.as_ref().filter(|start| start.job == job);
        match walk.job(&job, from).await {
            Ok(Some(place)) => {
                return Ok(Searched {
                    next: Some(cursor(&place)),
                    reached: Some(place.reached()),
                    ..walk.searched
                });
            }
            // Done, or removed since it was listed.
            Ok(None) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(walk.searched)
}

struct Walk<'a> {
    search: Search,
    app: &'a App,
    wanted: &'a Wanted,
    deadline: Instant,
    searched: Searched,
}

impl Walk<'_> {
    /// Searches the builds of a job. Gives where it stopped, if it is not done.
    async fn job(
        &mut self,
        job: &JobId,
        from: Option<&Place>,
    ) -> Result<Option<Place>, StoreError> {
        let mut before = from.and_then(|from| BuildNumber::new(from.build.get() + 1));
        loop {
            let page = self.app.store.list_builds(job, before, BUILDS).await?;
            for build in page.items {
                let from = from.filter(|from| from.build == build.number);
                if self.wanted.since.is_some_and(|since| build.created < since) {
                    return Ok(None);
                }
                if self.is_wanted(&build)
                    && let Some(place) = self.build(job, build, from).await?
                {
                    return Ok(Some(place));
                }
            }
            before = page
                .next
                .and_then(|next| BuildNumber::new(next.parse().ok()?));
            if before.is_none() {
                return Ok(None);
            }
        }
    }

    fn is_wanted(&self, build: &BuildSummary) -> bool {
        !self.wanted.failed
            || build
                .outcome
                .as_ref()
                .is_some_and(|outcome| !outcome.is_success())
    }

    async fn build(
        &mut self,
        job: &JobId,
        summary: BuildSummary,
        from: Option<&Place>,
    ) -> Result<Option<Place>, StoreError> {
        let number = summary.number;
        let build = BuildRef {
            job: job.clone(),
            number,
        };
        let view = self.app.store.build(&build).await?;
        let first = from.map_or(0, |from| from.task);
        for (at, task) in view.tasks.iter().enumerate().skip(first) {
            let other = self
                .wanted
                .task
                .as_ref()
                .is_some_and(|wanted| *wanted != task.name);
            if other || task.state.attempt().get() == 0 {
                continue;
            }
            let line = from
                .filter(|from| from.task == at)
                .map_or(0, |from| from.line);
            let home = match self.app.store.console(&build, &task.name, None).await {
                Ok(home) => home,
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let room = MOST - self.searched.lines.len();
            let store = &self.app.store;
            let found = store
                .search_console(&home, &self.search, line, room)
                .await?;
            let lines = found.matches.iter().map(|found| GrepView {
                build: build.clone(),
                task: task.name.clone(),
                attempt: home.attempt,
                hit: hit(found),
            });
            self.searched.take(&summary, lines.collect());
            let late = Instant::now() >= self.deadline;
            let (task, line) = match found.next {
                Some(line) => (at, line),
                None if late => (at + 1, 0),
                None => continue,
            };
            return Ok(Some(Place {
                job: job.clone(),
                build: number,
                task,
                line,
            }));
        }
        Ok(None)
    }
}

impl Searched {
    /// Takes in lines of one build.
    fn take(&mut self, summary: &BuildSummary, lines: Vec<GrepView>) {
        let Some(first) = lines.first() else { return };
        let known = self
            .builds
            .last()
            .is_some_and(|(last, _)| *last == first.build);
        if !known {
            self.builds.push((first.build.clone(), summary.clone()));
        }
        self.lines.extend(lines);
    }
}

impl Place {
    fn reached(&self) -> BuildRef {
        BuildRef {
            job: self.job.clone(),
            number: self.build,
        }
    }
}

fn jobs(pattern: &str) -> Result<GlobMatcher, ApiError> {
    let glob = Glob::new(pattern);
    let glob = glob.map_err(|error| ApiError::malformed(format!("`job`: {error}")))?;
    Ok(glob.compile_matcher())
}

fn cursor(place: &Place) -> String {
    let Place {
        job,
        build,
        task,
        line,
    } = place;
    format!("{build}.{task}.{line}.{job}")
}

fn place(cursor: &str) -> Result<Place, ApiError> {
    let read = || {
        let mut parts = cursor.splitn(4, '.');
        Some(Place {
            build: BuildNumber::new(parts.next()?.parse().ok()?)?,
            task: parts.next()?.parse().ok()?,
            line: parts.next()?.parse().ok()?,
            job: parts.next()?.parse().ok()?,
        })
    };
    read().ok_or_else(|| ApiError::malformed("the cursor is none of this search"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        let somewhere = Place {
            job: "a.b-c".parse().unwrap(),
            build: BuildNumber::new(7).unwrap(),
            task: 3,
            line: 99,
        };
        assert!(place(&cursor(&somewhere)).is_ok_and(|back| back == somewhere));
        for wrong in ["", "1.2.3", "0.1.1.j", "x.1.1.j", "1.1.1."] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
