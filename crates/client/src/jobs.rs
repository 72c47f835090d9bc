//! Calls about jobs, and what a person asks of the whole system.

use bytes::Bytes;
use distci_model::config::JobConfig;
use distci_model::drain::DrainOrder;
use distci_model::id::{JobId, NamePattern};
use distci_model::revision::RevisionView;
use distci_model::vitals::ClusterView;
use distci_model::wire::{
    DrainRequest, FrontendView, JobSummary, JobView, LockView, Page, Pass, PollView, QueueView,
    ScheduleView, Version, WorkerView,
};
use reqwest::header::{IF_MATCH, IF_NONE_MATCH};

use crate::call::Call;
use crate::path::Path;
use crate::{Client, ClientError};

impl Client {
    /// A page of the jobs, from `cursor` on.
    pub async fn jobs(&self, cursor: Option<&str>) -> Result<Page<JobSummary>, ClientError> {
        let path = Path::api(&["jobs"]).with_some("cursor", cursor);
        self.answer(&Call::get(path)).await?.json()
    }

    /// A job with its configuration.
    pub async fn job(&self, job: &JobId) -> Result<JobView, ClientError> {
        self.answer(&Call::get(job_path(job))).await?.json()
    }

    /// A page of the revisions of a job, the present one first, from `cursor` on.
    pub async fn revisions(
        &self,
        job: &JobId,
        cursor: Option<&str>,
    ) -> Result<Page<RevisionView>, ClientError> {
        let path = Path::api(&["jobs", job.as_str(), "revisions"]).with_some("cursor", cursor);
        self.answer(&Call::get(path)).await?.json()
    }

    /// A job as it was at a revision.
    pub async fn revision(&self, job: &JobId, revision: u32) -> Result<JobView, ClientError> {
        let number = revision.to_string();
        let path = Path::api(&["jobs", job.as_str(), "revisions", &number]);
        self.answer(&Call::get(path)).await?.json()
    }

    /// Gives a job the configuration in `text`; creates the job if there is none. With `expect`,
    /// only if the job still has that revision, 0 being that of a job that does not exist.
    pub async fn set_job(
        &self,
        job: &JobId,
        text: String,
        expect: Option<u32>,
    ) -> Result<JobView, ClientError> {
        let text = Bytes::from(text);
        let call = Call::put(job_path(job)).bytes("application/json", text.clone());
        let call = match expect {
            None => call,
            Some(0) => call.header(IF_NONE_MATCH.as_str(), "*"),
            Some(revision) => call.header(IF_MATCH.as_str(), format!("\"{revision}\"")),
        };
        match (self.answer(&call).await, expect) {
            (Err(ClientError::Conflict(problem)), Some(expect)) => {
                // An earlier try may have been heard, and only its answer lost.
                let done = self.is_set(job, &text, expect).await;
                done.ok_or(ClientError::Conflict(problem))
            }
            (answer, _) => answer?.json(),
        }
    }

    /// The job, if it has the configuration in `text` as the change that follows `expect`.
    async fn is_set(&self, job: &JobId, text: &[u8], expect: u32) -> Option<JobView> {
        let wanted = JobConfig::parse(std::str::from_utf8(text).ok()?).ok()?;
        let view = self.job(job).await.ok()?;
        let ours = view.revision == expect.saturating_add(1) && view.configuration == wanted;
        ours.then_some(view)
    }

    /// The schedules of a job, each with `count` moments to come.
    pub async fn schedules(
        &self,
        job: &JobId,
        count: usize,
    ) -> Result<Vec<ScheduleView>, ClientError> {
        let path = Path::api(&["jobs", job.as_str(), "schedules"]).with("count", count);
        self.answer(&Call::get(path)).await?.json()
    }

    /// Removes a job with its builds.
    pub async fn remove_job(&self, job: &JobId) -> Result<(), ClientError> {
        self.answer(&Call::delete(job_path(job))).await.map(drop)
    }

    /// The repositories that are looked at for a job.
    pub async fn polls(&self, job: &JobId) -> Result<Vec<PollView>, ClientError> {
        let path = Path::api(&["jobs", job.as_str(), "polls"]);
        self.answer(&Call::get(path)).await?.json()
    }

    /// A page of the tickets that wait for a worker, from `cursor` on.
    pub async fn queue(&self, cursor: Option<&str>) -> Result<Page<QueueView>, ClientError> {
        let path = Path::api(&["queue"]).with_some("cursor", cursor);
        self.answer(&Call::get(path)).await?.json()
    }

    /// A page of the locks that are held or waited for, from `cursor` on.
    pub async fn locks(&self, cursor: Option<&str>) -> Result<Page<LockView>, ClientError> {
        let path = Path::api(&["locks"]).with_some("cursor", cursor);
        self.answer(&Call::get(path)).await?.json()
    }

    /// The frontends that share the store, as one of them sees them.
    pub async fn frontends_seen(&self) -> Result<Vec<FrontendView>, ClientError> {
        self.answer(&Call::get(Path::api(&["frontends"])))
            .await?
            .json()
    }

    /// How the cluster fares, as one of its frontends sees it.
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        self.answer(&Call::get(Path::api(&["cluster"])))
            .await?
            .json()
    }

    /// The orders to leave that stand, newest first.
    pub async fn drains(&self) -> Result<Vec<DrainOrder>, ClientError> {
        self.answer(&Call::get(Path::api(&["workers", "drain"])))
            .await?
            .json()
    }

    /// What signs a reader in at the pages for a minute.
    pub async fn pass(&self) -> Result<Pass, ClientError> {
        let answer = self.answer(&Call::post(Path::api(&["passes"]))).await?;
        answer.json()
    }

    /// The workers that one frontend sees.
    pub async fn workers(&self) -> Result<Vec<WorkerView>, ClientError> {
        self.answer(&Call::get(Path::api(&["workers"])))
            .await?
            .json()
    }

    /// Asks the workers that are there now, and whose names fit, to finish what they hold and leave.
    /// Repeated, it is for those who came meanwhile as well.
    pub async fn drain(&self, pattern: &NamePattern) -> Result<DrainOrder, ClientError> {
        let pattern = pattern.clone();
        let call = Call::post(Path::api(&["workers", "drain"])).json(&DrainRequest { pattern })?;
        self.answer(&call).await?.json()
    }

    /// The frontend's measurements, as text that Prometheus reads.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let answer = self.answer(&Call::get(Path::api(&["metrics"]))).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// What the frontend is.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.answer(&Call::get(Path::root(&["version"])))
            .await?
            .json()
    }
}

fn job_path(job: &JobId) -> Path {
    Path::api(&["jobs", job.as_str()])
}
