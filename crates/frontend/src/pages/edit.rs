//! Writing a job's configuration: the form, and what is said about it.

use axum::Json;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use distci_model::config::{ConfigProblem, JobConfig};
use distci_model::id::JobId;
use distci_pages::{Edit, Place};
use distci_store::{Expected, StoreError};
use serde::Deserialize;

use super::form::Form;
use super::{Seat, page, see};
use crate::error::ApiError;

/// What a new job begins as.
const SAMPLE: &str = r#"{
  "job_id": "my-job",
  "tasks": [
    {
      "name": "hello",
      "type": "execute-shell",
      "params": { "script": "echo hello" }
    }
  ]
}
"#;

/// The editor of a job that is to be.
pub(super) async fn begin(seat: Seat) -> Result<Response, ApiError> {
    let edit = Edit {
        frame: seat.frame(Place::Jobs),
        job: None,
        revision: 0,
        restored: None,
        text: SAMPLE.to_owned(),
        problems: Vec::new(),
        refused: None,
    };
    page(StatusCode::OK, &edit)
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// The revision whose text it begins with; left out, the present one.
    revision: Option<u32>,
}

/// The editor of a job, with its present text or an earlier one to be restored.
pub(super) async fn show(
    seat: Seat,
    Path(job): Path<JobId>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    let store = &seat.app.store;
    let view = store.job(&job).await?;
    let restored = wanted.revision.filter(|wanted| *wanted != view.revision);
    let text = match restored {
        Some(earlier) => store.revision(&job, earlier).await?.configuration,
        None => view.configuration,
    };
    let edit = Edit {
        frame: seat.frame(Place::Jobs),
        job: Some(job),
        revision: view.revision,
        restored,
        text: serde_json::to_string_pretty(&text).unwrap_or_default(),
        problems: Vec::new(),
        refused: None,
    };
    page(StatusCode::OK, &edit)
}

/// What is wrong with a text: nothing, if nothing.
pub(super) async fn check(form: Form) -> Json<Vec<ConfigProblem>> {
    let text = form.get("text").unwrap_or_default();
    Json(JobConfig::parse(text).err().unwrap_or_default())
}

/// Makes a job.
pub(super) async fn create(form: Form) -> Result<Response, ApiError> {
    save(&form, None).await
}

/// Gives a job another configuration.
pub(super) async fn change(Path(job): Path<JobId>, form: Form) -> Result<Response, ApiError> {
    save(&form, Some(job)).await
}

/// Stores what was written, unless something is wrong with it or somebody was faster: then it is all
/// there again, with what is in the way.
async fn save(form: &Form, job: Option<JobId>) -> Result<Response, ApiError> {
    let text = form.get("text").unwrap_or_default();
    let revision: u32 = form
        .get("revision")
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    let again = |problems: Vec<ConfigProblem>, refused: Option<String>| {
        let edit = Edit {
            frame: form.seat.frame(Place::Jobs),
            job: job.clone(),
            revision,
            restored: None,
            text: text.to_owned(),
            problems,
            refused,
        };
        page(StatusCode::UNPROCESSABLE_ENTITY, &edit)
    };
    let config = match JobConfig::parse(text) {
        Ok(config) => config,
        Err(problems) => return again(problems, None),
    };
    if let Some(job) = job.as_ref().filter(|job| **job != config.job_id) {
        let other = &config.job_id;
        let why = format!("`job_id` is {other}, and this is {job}: a job keeps its name");
        return again(Vec::new(), Some(why));
    }
    let expected = match revision {
        0 => Expected::Absent,
        revision => Expected::Revision(revision),
    };
    let app = &form.seat.app;
    match app
        .store
        .set_job(&config, expected, app.cluster_now())
        .await
    {
        Ok((view, _)) => Ok(see(&format!("/jobs/{}", view.job))),
        Err(StoreError::Stale { .. }) if revision == 0 => {
            let job = &config.job_id;
            again(Vec::new(), Some(format!("there is a job {job} already")))
        }
        Err(StoreError::Stale { .. }) => {
            let why = "somebody has changed the job meanwhile: look at it in another tab, and take over what is new";
            again(Vec::new(), Some(why.to_owned()))
        }
        Err(error) => {
            let error = ApiError::from(error);
            match error.refusal().map(str::to_owned) {
                Some(refused) => again(Vec::new(), Some(refused)),
                None => Err(error),
            }
        }
    }
}
