//! A frontend that hands out what a test wants done and remembers what it is told.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use distci_model::config::{Action, JobConfig};
use distci_model::errand::{ErrandOrder, ErrandResult};
use distci_model::id::{Attempt, BuildKey, JobId, RequestId, TaskName, TicketId, TicketKey};
use distci_model::isolation::Isolation;
use distci_model::order::{LayerInput, TaskOrder};
use distci_model::outcome::{LayerRef, TaskResult};
use distci_model::test_report::TestReport;
use distci_model::wire::{
    ArtifactManifest, ArtifactView, BeatReply, BeatRequest, CONSOLE_LENGTH_HEADER, Claim,
    ClaimRequest, Held, Standing, Uploaded, Work,
};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What came of a task.
#[derive(Debug, Clone)]
pub(crate) enum Report {
    Complete(Box<TaskResult>),
    Released,
}

#[derive(Default)]
pub(crate) struct Stored {
    claims: VecDeque<Claim>,
    next: u32,
    standings: HashMap<TicketKey, Standing>,
    pub(crate) consoles: HashMap<TicketKey, Vec<u8>>,
    pub(crate) reports: HashMap<TicketKey, Report>,
    pub(crate) errands: HashMap<TicketKey, ErrandResult>,
    pub(crate) layers: HashMap<String, Bytes>,
    blobs: HashMap<(TicketKey, usize), Bytes>,
    pub(crate) artifacts: BTreeMap<String, (ArtifactView, Bytes)>,
    pub(crate) summaries: HashMap<TicketKey, Bytes>,
    pub(crate) tests: HashMap<TicketKey, TestReport>,
    pub(crate) commits: Vec<serde_json::Value>,
    pub(crate) beats: usize,
    /// What each claim request brought, until the claim is over.
    made: HashMap<RequestId, Claim>,
    /// Claims that the latest beat did not mention, and those that two in a row did not.
    unmentioned: HashSet<TicketKey>,
    pub(crate) orphans: Vec<TicketKey>,
    /// Makes the next claims and does not answer; the latest of them.
    pub(crate) mute: bool,
    pub(crate) muted: Option<TicketKey>,
    /// Asks every worker that asks for a claim to leave.
    pub(crate) draining: bool,
    /// Takes no bytes.
    pub(crate) down: bool,
    /// Somebody else's by now.
    pub(crate) over: HashSet<TicketKey>,
}

#[derive(Default)]
struct Shared {
    stored: Mutex<Stored>,
    news: Notify,
}

/// Runs until it is dropped.
pub(crate) struct Frontend {
    shared: Arc<Shared>,
    pub(crate) address: String,
    _server: JoinSet<()>,
}

pub(crate) fn build_key() -> BuildKey {
    "b".repeat(16).parse().unwrap()
}

fn order(action: Action) -> TaskOrder {
    TaskOrder {
        build: "job#1".parse().unwrap(),
        task: "task".parse().unwrap(),
        action,
        env: BTreeMap::from([("CI".to_owned(), "true".to_owned())]),
        timeout: 60,
        upstream: None,
        layers: Vec::new(),
        isolation: Isolation::default(),
        cache: Vec::new(),
        job: None,
    }
}

impl Frontend {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            shared,
            address,
            _server: server,
        }
    }

    pub(crate) fn stored(&self) -> MutexGuard<'_, Stored> {
        self.shared.stored.lock().unwrap()
    }

    /// Posts a task that begins with `layers`.
    pub(crate) fn post(&self, action: Action, timeout: u64, layers: Vec<LayerInput>) -> TicketKey {
        self.post_order(TaskOrder {
            timeout,
            layers,
            ..order(action)
        })
    }

    /// Posts the task of a job that reads its file.
    pub(crate) fn post_reading(&self, job: &JobConfig) -> TicketKey {
        self.post_order(TaskOrder {
            job: Some(Box::new(job.clone())),
            ..order(job.flat().tasks[0].action.clone())
        })
    }

    fn post_order(&self, order: TaskOrder) -> TicketKey {
        self.post_work(Work::Task {
            order: Box::new(order),
        })
    }

    /// Has an errand done.
    pub(crate) async fn errand(&self, order: ErrandOrder) -> ErrandResult {
        let order = Box::new(order);
        let ticket = self.post_work(Work::Errand { order });
        self.until(|stored| stored.errands.get(&ticket).cloned())
            .await
    }

    pub(crate) fn post_work(&self, work: Work) -> TicketKey {
        let mut stored = self.stored();
        stored.next += 1;
        let task: TaskName = "task".parse().unwrap();
        let id = TicketId::derive(&build_key(), &task, stored.next);
        let ticket = TicketKey {
            build: build_key(),
            ticket: id,
        };
        let attempt = Attempt::new(1);
        stored.claims.push_back(Claim {
            ticket: ticket.clone(),
            attempt,
            lease: 30,
            work,
        });
        drop(stored);
        self.shared.news.notify_waiters();
        ticket
    }

    /// Asks every worker to leave.
    pub(crate) fn drain(&self) {
        self.stored().draining = true;
        self.shared.news.notify_waiters();
    }

    pub(crate) fn tell(&self, ticket: &TicketKey, standing: Standing) {
        self.stored().standings.insert(ticket.clone(), standing);
        self.shared.news.notify_waiters();
    }

    /// Waits until `look` finds something.
    pub(crate) async fn until<T>(&self, look: impl Fn(&Stored) -> Option<T>) -> T {
        let wait = async {
            loop {
                let news = self.shared.news.notified();
                if let Some(found) = look(&self.stored()) {
                    return found;
                }
                news.await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), wait)
            .await
            .expect("it never came")
    }

    pub(crate) async fn report(&self, ticket: &TicketKey) -> Report {
        self.until(|stored| stored.reports.get(ticket).cloned())
            .await
    }

    pub(crate) async fn result(&self, ticket: &TicketKey) -> TaskResult {
        match self.report(ticket).await {
            Report::Complete(result) => *result,
            Report::Released => panic!("it was released"),
        }
    }

    pub(crate) fn console(&self, ticket: &TicketKey) -> String {
        let stored = self.stored();
        let bytes = stored.consoles.get(ticket).cloned().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The layer of a result as the input of the next task.
pub(crate) fn input(task: &str, layer: &LayerRef, on: &[&str]) -> LayerInput {
    LayerInput {
        task: task.parse().unwrap(),
        layer: layer.clone(),
        on: on.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

type Reply = Response<Body>;

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Reply {
    let (head, body) = request.into_parts();
    let path = head.uri.path().strip_prefix("/api/v1/").unwrap().to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let reply = match (head.method, segments.as_slice()) {
        (Method::POST, ["claims"]) => claim(&shared, &body).await,
        (Method::POST, ["beats"]) => beat(&shared, &body).await,
        (Method::POST, ["tickets", ticket, _, "console"]) => append(
            &shared,
            &ticket.parse().unwrap(),
            head.uri.query().unwrap(),
            &body,
        ),
        (method, ["tickets", ticket, attempt, rest @ ..]) => {
            let ticket: TicketKey = ticket.parse().unwrap();
            act(&shared, method, (ticket, attempt), rest, body)
        }
        (Method::GET, rest) => read(&shared, rest),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    shared.news.notify_waiters();
    reply
}

async fn claim(shared: &Shared, body: &[u8]) -> Reply {
    let request: ClaimRequest = serde_json::from_slice(body).unwrap();
    let take = async {
        loop {
            let news = shared.news.notified();
            {
                let mut stored = shared.stored.lock().unwrap();
                if let Some(claim) = stored.claim(&request) {
                    return Some(claim);
                }
                if stored.draining && request.age_ms.is_some() {
                    return None;
                }
            }
            news.await;
        }
    };
    let claim = tokio::time::timeout(Duration::from_secs(request.wait), take).await;
    let Ok(claim) = claim else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let Some(claim) = claim else {
        return refusal(StatusCode::GONE, "draining");
    };
    let mute = {
        let mut stored = shared.stored.lock().unwrap();
        stored.muted = stored.mute.then(|| claim.ticket.clone());
        stored.mute
    };
    if mute {
        shared.news.notify_waiters();
        std::future::pending::<()>().await;
    }
    axum::Json(claim).into_response()
}

impl Stored {
    /// The claim that the request made, or one that it makes now.
    fn claim(&mut self, request: &ClaimRequest) -> Option<Claim> {
        if let Some(claim) = self.made.get(&request.request) {
            return Some(claim.clone());
        }
        if request.capabilities.is_empty() || self.draining {
            return None;
        }
        let claim = self.claims.pop_front()?;
        self.made.insert(request.request.clone(), claim.clone());
        Some(claim)
    }

    fn end(&mut self, ticket: &TicketKey) {
        self.made.retain(|_, claim| claim.ticket != *ticket);
    }

    /// Looks for claims of which the worker does not know.
    fn look_for_orphans(&mut self, beat: &BeatRequest) {
        let is_known = |(request, claim): &(&RequestId, &Claim)| {
            beat.pending.contains(request)
                || beat.held.iter().any(|held| held.ticket == claim.ticket)
                || self.standings.get(&claim.ticket) == Some(&Standing::Lost)
                || self.over.contains(&claim.ticket)
        };
        let unknown = self.made.iter().filter(|made| !is_known(made));
        let unknown: HashSet<TicketKey> = unknown.map(|(_, claim)| claim.ticket.clone()).collect();
        let again = unknown.intersection(&self.unmentioned).cloned();
        self.orphans.extend(again);
        self.unmentioned = unknown;
    }
}

/// What a frontend says that cannot do what was asked.
fn refusal(status: StatusCode, code: &str) -> Reply {
    let problem = json!({
        "type": format!("urn:distci:{code}"), "title": code, "status": status.as_u16(),
        "detail": code,
    });
    (status, axum::Json(problem)).into_response()
}

async fn beat(shared: &Shared, body: &[u8]) -> Reply {
    let request: BeatRequest = serde_json::from_slice(body).unwrap();
    {
        let mut stored = shared.stored.lock().unwrap();
        stored.beats += 1;
        stored.look_for_orphans(&request);
    }
    let look = |held: &Held| {
        let stored = shared.stored.lock().unwrap();
        stored
            .standings
            .get(&held.ticket)
            .copied()
            .unwrap_or_default()
    };
    let news = async {
        loop {
            let news = shared.news.notified();
            let standings: Vec<Standing> = request.held.iter().map(look).collect();
            if request
                .held
                .iter()
                .zip(&standings)
                .any(|(held, now)| held.standing != *now)
            {
                return;
            }
            news.await;
        }
    };
    tokio::time::timeout(Duration::from_secs(request.wait), news)
        .await
        .ok();
    let standings = request.held.iter().map(look).collect();
    axum::Json(BeatReply {
        standings,
        unheard: 0,
    })
    .into_response()
}

fn append(shared: &Shared, ticket: &TicketKey, query: &str, body: &[u8]) -> Reply {
    let offset: usize = query.strip_prefix("offset=").unwrap().parse().unwrap();
    let mut stored = shared.stored.lock().unwrap();
    if stored.over.contains(ticket) {
        return refusal(StatusCode::CONFLICT, "attempt-over");
    }
    if stored.down {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "store-down");
    }
    let console = stored.consoles.entry(ticket.clone()).or_default();
    if console.len() != offset {
        let length = console.len().to_string();
        return ([(CONSOLE_LENGTH_HEADER, length)], StatusCode::CONFLICT).into_response();
    }
    console.extend_from_slice(body);
    let length = console.len().to_string();
    ([(CONSOLE_LENGTH_HEADER, length)], StatusCode::OK).into_response()
}

fn act(
    shared: &Shared,
    method: Method,
    (ticket, attempt): (TicketKey, &str),
    rest: &[&str],
    body: Bytes,
) -> Reply {
    let mut stored = shared.stored.lock().unwrap();
    if stored.down && method == Method::PUT {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "store-down");
    }
    let bytes = body.len() as u64;
    let uploaded = axum::Json(Uploaded { bytes }).into_response();
    match (method, rest) {
        (Method::POST, ["complete"]) => {
            let result = serde_json::from_slice(&body).unwrap();
            stored.end(&ticket);
            stored
                .reports
                .insert(ticket, Report::Complete(Box::new(result)));
        }
        (Method::POST, ["errand"]) => {
            let result = serde_json::from_slice(&body).unwrap();
            stored.end(&ticket);
            stored.errands.insert(ticket, result);
        }
        (Method::POST, ["release"]) => {
            stored.end(&ticket);
            stored.reports.insert(ticket, Report::Released);
        }
        (Method::POST, ["commit"]) => {
            stored.end(&ticket);
            stored.commits.push(serde_json::from_slice(&body).unwrap());
            return axum::Json(json!({"committed": "over"})).into_response();
        }
        (Method::PUT, ["layer"]) => {
            stored.layers.insert(format!("{ticket}/{attempt}"), body);
            return uploaded;
        }
        (Method::PUT, ["artifacts", index]) => {
            stored.blobs.insert((ticket, index.parse().unwrap()), body);
            return uploaded;
        }
        (Method::PUT, ["artifacts"]) => {
            let manifest: ArtifactManifest = serde_json::from_slice(&body).unwrap();
            for (index, artifact) in manifest.artifacts.into_iter().enumerate() {
                let content = stored.blobs[&(ticket.clone(), index)].clone();
                let view = ArtifactView {
                    task: "task".parse().unwrap(),
                    artifact,
                };
                stored
                    .artifacts
                    .insert(view.artifact.path.clone(), (view, content));
            }
        }
        (Method::PUT, ["summary"]) => {
            stored.summaries.insert(ticket, body);
        }
        (Method::PUT, ["tests"]) => {
            let report = serde_json::from_slice(&body);
            stored.tests.insert(ticket, report.unwrap());
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    }
    StatusCode::NO_CONTENT.into_response()
}

fn read(shared: &Shared, path: &[&str]) -> Reply {
    let stored = shared.stored.lock().unwrap();
    match path {
        ["layers", ticket, attempt] => stored.layers[&format!("{ticket}/{attempt}")]
            .clone()
            .into_response(),
        ["jobs", job, "builds", "latest-success" | "1"] if *job == "up" => {
            let job: JobId = job.parse().unwrap();
            axum::Json(json!({
                "build": {"job": job, "number": 1}, "phase": "finished",
                "cause": {"event": "manual"}, "parameters": {}, "revision": 1,
                "created": "2026-01-01T00:00:00Z", "cancelled": false, "tasks": [],
                "downstream": [],
            }))
            .into_response()
        }
        ["jobs", "up", "builds", "1", "artifacts"] => {
            let views: Vec<&ArtifactView> =
                stored.artifacts.values().map(|(view, _)| view).collect();
            axum::Json(views).into_response()
        }
        ["jobs", "up", "builds", "1", "artifacts", path @ ..] => {
            stored.artifacts[&path.join("/")].1.clone().into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
