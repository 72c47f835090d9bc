//! Calls about builds and their consoles.

use std::time::Duration;

use bytes::Bytes;
use distci_model::console::{GrepView, LinesView};
use distci_model::id::{Attempt, BuildRef, JobId, RequestId, TaskName};
use distci_model::journal::Entry;
use distci_model::wire::{
    AnswerRequest, BuildSummary, BuildView, CONSOLE_ATTEMPT_HEADER, CONSOLE_COMPLETE_HEADER,
    CONSOLE_LENGTH_HEADER, Page, REQUEST_ID_HEADER, ReportView, RerunRequest, TriggerRequest,
    Triggered,
};
use reqwest::StatusCode;

use distci_model::why::Reason;

use crate::call::Call;
use crate::path::Path;
use crate::{Client, ClientError};

/// A build as it was at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The build.
    pub view: BuildView,
    /// The name of that moment: what to have seen when asking for news.
    pub etag: String,
}

/// Where to read a console from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsoleFrom {
    /// Whose console; the latest attempt's if none is given.
    pub attempt: Option<Attempt>,
    /// The first byte to read.
    pub offset: u64,
}

/// A piece of a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleChunk {
    /// The bytes from the offset that was asked for.
    pub bytes: Bytes,
    /// How long the console is now.
    pub length: u64,
    /// Whether nothing will be added to it.
    pub complete: bool,
    /// Whose console it is.
    pub attempt: Attempt,
}

impl Client {
    /// Asks for a build of a job. The same `request` gives the same build.
    pub async fn trigger(
        &self,
        job: &JobId,
        wish: &TriggerRequest,
        request: &RequestId,
    ) -> Result<Triggered, ClientError> {
        let call = Call::post(Path::api(&["jobs", job.as_str(), "builds"]))
            .header(REQUEST_ID_HEADER, request.as_str())
            .json(wish)?;
        self.answer(&call).await?.json()
    }

    /// A page of a job's builds, the latest first, from `cursor` on.
    pub async fn builds(
        &self,
        job: &JobId,
        cursor: Option<&str>,
    ) -> Result<Page<BuildSummary>, ClientError> {
        let path = Path::api(&["jobs", job.as_str(), "builds"]).with_some("cursor", cursor);
        self.answer(&Call::get(path)).await?.json()
    }

    /// A build of a job: by its number, `latest` or `latest-success`.
    pub async fn build(&self, job: &JobId, selector: &str) -> Result<BuildView, ClientError> {
        let path = Path::api(&["jobs", job.as_str(), "builds", selector]);
        self.answer(&Call::get(path)).await?.json()
    }

    /// A build as soon as it is not as `seen` any more, or after `wait`.
    pub async fn watch_build(
        &self,
        build: &BuildRef,
        seen: Option<&str>,
        wait: Duration,
    ) -> Result<Watched, ClientError> {
        let path = build_path(build, &[]).with_some("seen", seen);
        let answer = self.answer(&Call::get(path).held(wait)).await?;
        Ok(Watched {
            view: answer.json()?,
            etag: answer.etag()?,
        })
    }

    /// What the forge has not heard yet of a build; `None` if it has heard all that it is to hear.
    pub async fn report(&self, build: &BuildRef) -> Result<Option<ReportView>, ClientError> {
        let answer = self
            .answer(&Call::get(build_path(build, &["report"])))
            .await?;
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        answer.json().map(Some)
    }

    /// Asks a build to stop. It ends when its tasks have.
    pub async fn cancel(&self, build: &BuildRef) -> Result<(), ClientError> {
        let call = Call::post(build_path(build, &["cancel"]));
        self.answer(&call).await.map(drop)
    }

    /// Why a build waits, or why it ended as it did.
    pub async fn why(&self, build: &BuildRef) -> Result<Vec<Reason>, ClientError> {
        let call = Call::get(build_path(build, &["why"]));
        self.answer(&call).await?.json()
    }

    /// All that happened in a build so far.
    pub async fn journal(&self, build: &BuildRef) -> Result<Vec<Entry>, ClientError> {
        let call = Call::get(build_path(build, &["journal"]));
        self.answer(&call).await?.json()
    }

    /// Asks one task of a build to stop.
    pub async fn stop_task(&self, build: &BuildRef, task: &TaskName) -> Result<(), ClientError> {
        let path = build_path(build, &["tasks", task.as_str(), "cancel"]);
        self.answer(&Call::post(path)).await.map(drop)
    }

    /// Answers a task that asks whether to go on.
    pub async fn answer_task(
        &self,
        build: &BuildRef,
        task: &TaskName,
        answer: &AnswerRequest,
    ) -> Result<(), ClientError> {
        let path = build_path(build, &["tasks", task.as_str(), "answer"]);
        self.answer(&Call::post(path).json(answer)?).await.map(drop)
    }

    /// Asks for a build with the same parameters, whole or in part. The same `request` gives the same
    /// build.
    pub async fn rerun(
        &self,
        build: &BuildRef,
        wish: &RerunRequest,
        request: &RequestId,
    ) -> Result<Triggered, ClientError> {
        let call = Call::post(build_path(build, &["rerun"]))
            .header(REQUEST_ID_HEADER, request.as_str())
            .json(wish)?;
        self.answer(&call).await?.json()
    }

    /// Lines in the consoles of many builds, as far as one request goes; `query` says what is looked
    /// for, in the words of the API.
    pub async fn grep(&self, query: &[(&str, String)]) -> Result<Page<GrepView>, ClientError> {
        let path = query
            .iter()
            .fold(Path::api(&["search"]), |path, (name, value)| {
                path.with(name, value)
            });
        self.answer(&Call::get(path)).await?.json()
    }

    /// Lines of the console of a task from `line` on, counted from 1.
    pub async fn console_lines(
        &self,
        build: &BuildRef,
        task: &TaskName,
        line: u64,
        count: usize,
    ) -> Result<LinesView, ClientError> {
        let path = build_path(build, &["console", "lines"])
            .with("task", task)
            .with("line", line)
            .with("count", count);
        self.answer(&Call::get(path)).await?.json()
    }

    /// The console of a task from some place on, as soon as there is anything, or after `wait`.
    pub async fn console(
        &self,
        build: &BuildRef,
        task: &TaskName,
        from: ConsoleFrom,
        wait: Duration,
    ) -> Result<ConsoleChunk, ClientError> {
        let path = build_path(build, &["console"])
            .with("task", task)
            .with_some("attempt", from.attempt)
            .with("offset", from.offset);
        let answer = self.answer(&Call::get(path).held(wait)).await?;
        Ok(ConsoleChunk {
            length: answer.header(CONSOLE_LENGTH_HEADER)?,
            complete: answer.header(CONSOLE_COMPLETE_HEADER)?,
            attempt: Attempt::new(answer.header(CONSOLE_ATTEMPT_HEADER)?),
            bytes: answer.body,
        })
    }
}

/// The path of a build, and of `rest` below it.
pub(crate) fn build_path(build: &BuildRef, rest: &[&str]) -> Path {
    let number = build.number.to_string();
    let mut segments = vec!["jobs", build.job.as_str(), "builds", &number];
    segments.extend_from_slice(rest);
    Path::api(&segments)
}
