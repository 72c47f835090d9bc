//! What GitHub insists on with check runs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Answer, FakeApp, FakeForge, State, refused};

/// Most check runs of one answer, and as many as there are unless told.
const MAX_PAGE: usize = 100;
const PAGE: usize = 30;
/// Longest summary.
const MAX_SUMMARY: usize = 65_535;
/// What a check run may be concluded with; `stale` is GitHub's own.
const CONCLUSIONS: [&str; 7] = [
    "action_required",
    "cancelled",
    "failure",
    "neutral",
    "skipped",
    "success",
    "timed_out",
];

/// A check run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckRun {
    /// Its number.
    pub id: u64,
    /// The app that made it.
    pub app: u64,
    /// `acme/app`.
    pub repository: String,
    /// The commit.
    pub head_sha: String,
    /// What it is listed as.
    pub name: String,
    /// What the app calls it.
    pub external_id: String,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    /// How it ended, if it has.
    pub conclusion: Option<String>,
    /// When it began.
    pub started_at: Option<String>,
    /// When it ended.
    pub completed_at: Option<String>,
    /// Where it leads to.
    pub details_url: Option<String>,
    /// The title of what it says.
    pub title: String,
    /// What it says, in Markdown.
    pub summary: String,
    /// How often it was changed.
    pub changes: usize,
}

impl FakeForge {
    /// The check runs, in the order in which they were made.
    pub fn check_runs(&self) -> Vec<CheckRun> {
        self.shared.state().runs.clone()
    }

    /// Adds a check run as somebody else makes it.
    pub fn add_check_run(&self, run: CheckRun) {
        let mut state = self.shared.state();
        let id = state.next_id();
        state.runs.push(CheckRun { id, ..run });
    }
}

impl State {
    fn next_id(&self) -> u64 {
        1 + self.runs.len() as u64
    }

    /// What somebody who may set checks of a repository is answered.
    pub(super) fn answer_check(
        &mut self,
        app: &FakeApp,
        repository: &str,
        (method, rest, query): (&str, &[&str], &str),
        body: &Value,
    ) -> Answer {
        match (method, rest) {
            ("GET", ["commits", sha, "check-runs"]) => self.list(app, (repository, sha), query),
            ("POST", ["check-runs"]) => self.create((app.id, repository), body),
            ("PATCH", ["check-runs", id]) => self.change((app.id, repository), id, body),
            // A token that may write checks may do nothing else.
            _ => Ok(refused(403, "Resource not accessible by integration")),
        }
        .unwrap_or_else(|message| refused(422, &message))
    }

    fn list(
        &self,
        app: &FakeApp,
        (repository, sha): (&str, &str),
        query: &str,
    ) -> Result<Answer, String> {
        let asked = |key: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(name, _)| name == key).map(|(_, value)| value)
        };
        let number = |key: &str, otherwise: usize| {
            let given = asked(key).and_then(|value| value.parse().ok());
            given.unwrap_or(otherwise)
        };
        let name = asked("check_name");
        let wanted = |run: &&CheckRun| {
            let here = run.repository == repository && run.head_sha == sha;
            here && name.as_ref().is_none_or(|name| *name == run.name)
        };
        let newest = self.runs.iter().rev().filter(wanted);
        let all: Vec<&CheckRun> = match asked("filter").as_deref() {
            Some("all") => newest.collect(),
            None | Some("latest") => {
                // Of those of one name by one app, the newest.
                let mut latest: Vec<&CheckRun> = Vec::new();
                for run in newest {
                    let same = |kept: &&CheckRun| (kept.app, &kept.name) == (run.app, &run.name);
                    if !latest.iter().any(same) {
                        latest.push(run);
                    }
                }
                latest
            }
            Some(other) => return Err(format!("filter {other} is not included in the list")),
        };
        let page = number("per_page", PAGE).min(MAX_PAGE);
        let before = (number("page", 1).max(1) - 1) * page;
        let shown = all.iter().skip(before).take(page);
        let shown: Vec<Value> = shown.map(|run| run.shown(app)).collect();
        let listed = json!({ "total_count": all.len(), "check_runs": shown });
        Ok((200, listed, Vec::new()))
    }

    fn create(&mut self, (app, repository): (u64, &str), body: &Value) -> Result<Answer, String> {
        let needed = |key: &str| {
            let given = body[key].as_str().filter(|text| !text.is_empty());
            given.ok_or_else(|| format!("Invalid request.\n\n\"{key}\" wasn't supplied."))
        };
        let (name, sha) = (needed("name")?, needed("head_sha")?);
        if sha.len() != 40 || !sha.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("No commit found for SHA: {sha}"));
        }
        let mut run = CheckRun {
            id: self.next_id(),
            app,
            repository: repository.to_owned(),
            head_sha: sha.to_owned(),
            name: name.to_owned(),
            status: "queued".to_owned(),
            ..CheckRun::default()
        };
        run.take(body)?;
        let id = run.id;
        self.runs.push(run);
        Ok((201, json!({ "id": id }), Vec::new()))
    }

    fn change(
        &mut self,
        (app, repository): (u64, &str),
        id: &str,
        body: &Value,
    ) -> Result<Answer, String> {
        let here = |run: &&mut CheckRun| run.id.to_string() == id && run.repository == repository;
        let Some(run) = self.runs.iter_mut().find(here) else {
            return Ok(refused(404, "Not Found"));
        };
        if run.app != app {
            let message = format!(
                "Invalid app_id `{app}` - check run can only be modified by the GitHub App that \
                 created it."
            );
            return Ok(refused(403, &message));
        }
        let mut changed = run.clone();
        changed.take(body)?;
        changed.changes += 1;
        *run = changed;
        Ok((200, json!({ "id": run.id }), Vec::new()))
    }
}

impl CheckRun {
    /// Takes over what a body says, or says what is wrong with it.
    fn take(&mut self, body: &Value) -> Result<(), String> {
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        for (field, key) in [
            (&mut self.name, "name"),
            (&mut self.external_id, "external_id"),
        ] {
            if let Some(value) = text(key) {
                *field = value;
            }
        }
        if let Some(url) = text("details_url") {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err("details_url must use http or https scheme".to_owned());
            }
            self.details_url = Some(url);
        }
        self.take_output(&body["output"])?;
        for (field, key) in [
            (&mut self.started_at, "started_at"),
            (&mut self.completed_at, "completed_at"),
        ] {
            if let Some(value) = text(key) {
                *field = Some(time(key, value)?);
            }
        }
        self.take_status(body["status"].as_str(), body["conclusion"].as_str())
    }

    fn take_output(&mut self, output: &Value) -> Result<(), String> {
        if output.is_null() {
            return Ok(());
        }
        let needed = |key: &str| {
            let given = output[key].as_str().filter(|text| !text.is_empty());
            let missing = || format!("For 'properties/output', \"{key}\" wasn't supplied.");
            given.map(str::to_owned).ok_or_else(missing)
        };
        (self.title, self.summary) = (needed("title")?, needed("summary")?);
        if self.summary.chars().count() > MAX_SUMMARY {
            return Err("Only 65535 characters are allowed; 65536 were supplied.".to_owned());
        }
        Ok(())
    }

    fn take_status(
        &mut self,
        status: Option<&str>,
        conclusion: Option<&str>,
    ) -> Result<(), String> {
        if let Some(conclusion) = conclusion {
            if !CONCLUSIONS.contains(&conclusion) {
                return Err(format!("{conclusion} is not a member of conclusions"));
            }
            "completed".clone_into(&mut self.status);
            self.conclusion = Some(conclusion.to_owned());
            return Ok(());
        }
        match status {
            None => Ok(()),
            Some("completed") => Err("conclusion is required if status is completed".to_owned()),
            Some(begun @ ("queued" | "in_progress")) => {
                // It opens again what had ended.
                begun.clone_into(&mut self.status);
                (self.conclusion, self.completed_at) = (None, None);
                Ok(())
            }
            Some(other) => Err(format!("{other} is not a member of statuses")),
        }
    }

    fn shown(&self, app: &FakeApp) -> Value {
        let ours = self.app == app.id;
        let client_id = ours.then_some(&app.client_id);
        json!({
            "id": self.id,
            "head_sha": self.head_sha,
            "name": self.name,
            "external_id": self.external_id,
            "status": self.status,
            "conclusion": self.conclusion,
            "details_url": self.details_url,
            "app": { "id": self.app, "client_id": client_id },
        })
    }
}

/// A time in the one form that GitHub has in its manual.
fn time(key: &str, value: String) -> Result<String, String> {
    let parsed: Option<Timestamp> = value.parse().ok();
    let as_told = parsed.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let fits = as_told.is_some_and(|told| told == value);
    let wrong = || format!("For 'properties/{key}', {value} is not a valid date-time.");
    if fits { Ok(value) } else { Err(wrong()) }
}
