//! Calls of workers: claims, beats, and everything that a claim entitles to.
//!
//! Everything that is written under a claim carries its ticket and attempt, so the frontend can
//! refuse what a lost worker still sends.

use std::path::Path as FilePath;
use std::time::Duration;

use bytes::Bytes;
use distci_model::errand::ErrandResult;
use distci_model::id::BuildKey;
use distci_model::outcome::{LayerRef, TaskResult};
use distci_model::pool::{DemandReply, DemandRequest};
use distci_model::test_report::TestReport;

use distci_model::wire::{
    ArtifactManifest, BeatReply, BeatRequest, CONSOLE_LENGTH_HEADER, CacheFound, Claim,
    ClaimRequest, CommitReply, CommitRequest, Held, MAX_WAIT, Uploaded,
};
use reqwest::StatusCode;

use crate::answer::Answer;
use crate::call::Call;
use crate::path::Path;
use crate::{Client, ClientError, Download};

/// Who has told nobody for so many seconds whom it hears may as well not hear us.
const MOST_UNHEARD: u64 = 10;

impl Client {
    /// A ticket, if there is one before the request's wait is over.
    ///
    /// # Errors
    /// [`ClientError::Draining`] if the request says how old the worker is, and it is asked to leave.
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claim>, ClientError> {
        let mut call = Call::post(Path::api(&["claims"])).json(request)?;
        call.held = seconds(request.wait);
        let answer = self.answer(&call).await?;
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        answer.json().map(Some)
    }

    /// Keeps claims alive, and tells what became of those in the request that was heard. Every try
    /// asks for the request anew, for what it says must be true at the moment when it is sent.
    pub async fn beat(
        &self,
        compose: impl Fn() -> BeatRequest,
    ) -> Result<(BeatRequest, BeatReply), ClientError> {
        self.ask(async |at| {
            let request = compose();
            let mut call = Call::post(Path::api(&["beats"])).json(&request)?;
            call.held = seconds(request.wait);
            let reply: BeatReply = self.exchange_all(&call, at).await?.json()?;
            if reply.unheard > MOST_UNHEARD {
                self.avoid(at);
            }
            Ok((request, reply))
        })
        .await
    }

    /// What is wanted, for a pool; before the request's wait is over, if it is not what is known.
    pub async fn demand(&self, request: &DemandRequest) -> Result<DemandReply, ClientError> {
        let mut call = Call::post(Path::api(&["demand"])).json(request)?;
        call.held = seconds(request.wait);
        self.answer(&call).await?.json()
    }

    /// Adds to the console of a claim, at `offset`. Gives the console's new length.
    ///
    /// # Errors
    /// [`ClientError::ConsoleAt`] if the console has another length than `offset`, and not because
    /// an earlier try of this call was heard.
    pub async fn append(&self, held: &Held, offset: u64, bytes: Bytes) -> Result<u64, ClientError> {
        let end = offset.saturating_add(bytes.len() as u64);
        let call = Call::post(ticket_path(held, &["console"]).with("offset", offset))
            .bytes("application/octet-stream", bytes);
        match self.answer(&call).await {
            Ok(answer) => answer.header(CONSOLE_LENGTH_HEADER),
            Err(ClientError::ConsoleAt { length }) if length == end => Ok(length),
            Err(error) => Err(error),
        }
    }

    /// Ends a claim with its result. A result that was used already is as good as accepted.
    pub async fn complete(&self, held: &Held, result: &TaskResult) -> Result<(), ClientError> {
        let call = Call::post(ticket_path(held, &["complete"])).json(result)?;
        unless_over(self.answer(&call).await).map(drop)
    }

    /// Ends a try at an errand. Whoever has taken it since does it again.
    pub async fn complete_errand(
        &self,
        held: &Held,
        result: &ErrandResult,
    ) -> Result<(), ClientError> {
        let call = Call::post(ticket_path(held, &["errand"])).json(result)?;
        unless_over(self.answer(&call).await).map(drop)
    }

    /// Gives a claim back, for another worker; or finds that it is over.
    pub async fn release(&self, held: &Held) -> Result<(), ClientError> {
        let call = Call::post(ticket_path(held, &["release"]));
        unless_over(self.answer(&call).await).map(drop)
    }

    /// Commits what was decided about a build.
    pub async fn commit(
        &self,
        held: &Held,
        request: &CommitRequest,
    ) -> Result<CommitReply, ClientError> {
        let call = Call::post(ticket_path(held, &["commit"])).json(request)?;
        match unless_over(self.answer(&call).await)? {
            Some(answer) => answer.json(),
            None => Ok(CommitReply::Over),
        }
    }

    /// Stores the file as the layer of a claim. Gives its stored size.
    pub async fn put_layer(&self, held: &Held, file: &FilePath) -> Result<u64, ClientError> {
        self.upload(ticket_path(held, &["layer"]), file).await
    }

    /// The content of a layer of a build.
    pub async fn get_layer(
        &self,
        build: &BuildKey,
        layer: &LayerRef,
    ) -> Result<Download, ClientError> {
        let ticket = format!("{build}.{}", layer.ticket);
        let path = Path::api(&["layers", &ticket, &layer.attempt.to_string()])
            .with_some("build", layer.build);
        Download::start_direct(self.clone(), Call::get(path)).await
    }

    /// Stores the file as the content of artifact `index` of a claim. Gives its stored size.
    pub async fn put_artifact(
        &self,
        held: &Held,
        index: usize,
        file: &FilePath,
    ) -> Result<u64, ClientError> {
        let path = ticket_path(held, &["artifacts", &index.to_string()]);
        self.upload(path, file).await
    }

    /// Says what the artifacts of a claim are.
    pub async fn put_manifest(
        &self,
        held: &Held,
        manifest: &ArtifactManifest,
    ) -> Result<(), ClientError> {
        let call = Call::put(ticket_path(held, &["artifacts"])).json(manifest)?;
        self.answer(&call).await.map(drop)
    }

    /// Stores the summary that a task wrote.
    pub async fn put_summary(&self, held: &Held, summary: Bytes) -> Result<(), ClientError> {
        let call = Call::put(ticket_path(held, &["summary"])).bytes("text/markdown", summary);
        self.answer(&call).await.map(drop)
    }

    /// Stores what the tests of a task came to.
    pub async fn put_tests(&self, held: &Held, report: &TestReport) -> Result<(), ClientError> {
        let call = Call::put(ticket_path(held, &["tests"])).json(report)?;
        self.answer(&call).await.map(drop)
    }

    /// The newest state of a cache that the build of a claim may read.
    pub async fn find_cache(
        &self,
        held: &Held,
        name: &str,
    ) -> Result<Option<CacheFound>, ClientError> {
        let call = Call::get(ticket_path(held, &["caches", name]));
        let answer = self.answer(&call).await?;
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        answer.json().map(Some)
    }

    /// Its content.
    pub async fn get_cache(
        &self,
        held: &Held,
        name: &str,
        found: &CacheFound,
    ) -> Result<Download, ClientError> {
        let path = ticket_path(held, &["caches", name, &found.scope, &found.id]);
        Download::start_direct(self.clone(), Call::get(path)).await
    }

    /// Stores the file as what a cache holds after the attempt of a claim.
    pub async fn put_cache(
        &self,
        held: &Held,
        name: &str,
        file: &FilePath,
    ) -> Result<u64, ClientError> {
        self.upload(ticket_path(held, &["caches", name]), file)
            .await
    }

    async fn upload(&self, path: Path, file: &FilePath) -> Result<u64, ClientError> {
        if let Some(bytes) = self.upload_direct(&path, file).await? {
            return Ok(bytes);
        }
        let call = Call::put(path).file(file).await?;
        let uploaded: Uploaded = self.answer(&call).await?.json()?;
        Ok(uploaded.bytes)
    }
}

/// `None` if what was to be changed had served its time and is gone.
fn unless_over(answer: Result<Answer, ClientError>) -> Result<Option<Answer>, ClientError> {
    match answer {
        Err(ClientError::NotFound(problem)) if problem.status == StatusCode::GONE.as_u16() => {
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

fn seconds(wait: u64) -> Duration {
    Duration::from_secs(wait.min(MAX_WAIT))
}

fn ticket_path(held: &Held, rest: &[&str]) -> Path {
    let (ticket, attempt) = (held.ticket.to_string(), held.attempt.to_string());
    let mut segments = vec!["tickets", &ticket, &attempt];
    segments.extend_from_slice(rest);
    Path::api(&segments)
}
