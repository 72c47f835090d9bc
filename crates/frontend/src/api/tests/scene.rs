//! A router over a store in memory with its mirror running, and a client that speaks to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use distci_model::Timestamp;
use distci_model::capability::{Capabilities, Capability, Kind};
use distci_model::decide::decide;
use distci_model::id::RequestId;
use distci_model::wire::{Claim, CommitReply, CommitRequest, Problem, Work};
use distci_store::Store;
use distci_store::blobs::Blobs;
use distci_store::coordination::Clock;
use distci_store::coordination::simulator::{Faults, Session, Simulator};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::app::App;
use crate::hooks::HookSecrets;
use crate::{api, mirror, pulse, schedules, timers, vitals};

/// The token of all tests.
pub(super) const TOKEN: &str = "correct-horse-battery-staple";

/// A router and what it needs to live.
pub(super) struct Scene {
    pub(super) router: Router,
    pub(super) app: App,
    pub(super) stop: CancellationToken,
    _tasks: JoinSet<()>,
}

/// An answer with its whole body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let text = || String::from_utf8_lossy(&self.body).into_owned();
        serde_json::from_slice(&self.body).with_context(text)
    }

    /// The problem, after checking that it is one of this status.
    pub(super) fn problem(&self, status: u16) -> Result<Problem> {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: Problem = self.json()?;
        assert_eq!(problem.status, status);
        let request = problem.request.as_deref().unwrap_or("");
        assert!(!request.is_empty(), "a problem without a request id");
        assert_eq!(self.header("x-request-id"), request);
        Ok(problem)
    }
}

pub(super) fn clock() -> Clock {
    let millis = AtomicI64::new(1_700_000_000_000);
    Arc::new(move || {
        let now = millis.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_millisecond(now).unwrap_or_default()
    })
}

impl Scene {
    /// A frontend that has a store for itself and gives nobody up.
    pub(super) fn new() -> Self {
        Self::hooked(HookSecrets::default())
    }

    /// The same that takes webhooks.
    pub(super) fn hooked(secrets: HookSecrets) -> Self {
        let simulator = Simulator::new(1, Faults::none(), clock());
        let store = Store::new(Arc::new(simulator.session()), Blobs::memory());
        Self::over(store, secrets)
    }

    /// The same over this store.
    pub(super) fn over(store: Store, secrets: HookSecrets) -> Self {
        let (clock, stop) = (clock(), CancellationToken::new());
        let app = App::new(store, clock, stop.clone()).with_hooks(secrets);
        let mut tasks = JoinSet::new();
        tasks.spawn(mirror::follow(app.clone(), stop.clone()));
        Self::of(app, stop, tasks)
    }

    /// The same that people reach at this address.
    pub(super) fn public(url: &str) -> Self {
        let scene = Self::new();
        let mut app = scene.app.clone();
        app.public_url = Some(url.into());
        Self {
            router: api::router(app.clone(), TOKEN),
            app,
            ..scene
        }
    }

    /// A whole frontend over a session of its own with a store that it shares.
    pub(super) fn beside(session: Session, blobs: Blobs) -> Self {
        let (clock, stop) = (clock(), CancellationToken::new());
        let app = App::new(Store::new(Arc::new(session), blobs), clock, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(mirror::follow(app.clone(), stop.clone()));
        tasks.spawn(mirror::expire(app.clone(), stop.clone()));
        tasks.spawn(timers::run(app.clone(), stop.clone()));
        tasks.spawn(schedules::run(app.clone(), stop.clone()));
        tasks.spawn(vitals::follow(app.clone(), stop.clone()));
        tasks.spawn(pulse::beat(app.clone(), "here".into(), stop.clone()));
        let board = app.board.clone();
        tasks.spawn(async move { board.ripen().await });
        Self::of(app, stop, tasks)
    }

    /// A frontend whose session with the store has ended.
    pub(super) fn cut_off(session: Session) -> Self {
        session.expire();
        Self::beside(session, Blobs::memory())
    }

    fn of(app: App, stop: CancellationToken, tasks: JoinSet<()>) -> Self {
        Self {
            router: api::router(app.clone(), TOKEN),
            app,
            stop,
            _tasks: tasks,
        }
    }

    /// Sends a request as it is.
    pub(super) async fn raw(&self, request: Request<Body>) -> Result<Answer> {
        let response = self.router.clone().oneshot(request).await?;
        let (parts, body) = response.into_parts();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    /// Sends a request with the token and these headers.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Result<Answer> {
        self.raw(request(method, path, headers, body)?).await
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, &[], body.to_string()).await
    }

    pub(super) async fn put_job(&self, config: &Value) -> Result<Answer> {
        let path = format!("/jobs/{}", config["job_id"].as_str().unwrap_or_default());
        self.send(Method::PUT, &path, &[], config.to_string()).await
    }

    /// A job of this name with one task, and its first build.
    pub(super) async fn build(&self, job: &str) -> Result<()> {
        self.put_job(&one_task(job, &[])).await?;
        self.trigger(job).await
    }

    pub(super) async fn trigger(&self, job: &str) -> Result<()> {
        let answer = self
            .post(&format!("/jobs/{job}/builds"), &json!({}))
            .await?;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        Ok(())
    }

    /// Decides until nothing is to be decided.
    pub(super) async fn control(&self) -> Result<()> {
        loop {
            let answer = self
                .post("/claims", &claim_request("c", &control(), 1))
                .await?;
            if answer.status == StatusCode::NO_CONTENT {
                return Ok(());
            }
            let claim: Claim = answer.json()?;
            let Work::Control { order } = claim.work else {
                anyhow::bail!("a task for a control worker");
            };
            let mut order = order;
            loop {
                let request = CommitRequest {
                    mailbox: order.mailbox,
                    decision: decide(&order.config, &order.build, &order.events),
                };
                let path = format!("/tickets/{}/{}/commit", claim.ticket, claim.attempt);
                let answer = self.post(&path, &serde_json::to_value(&request)?).await?;
                match answer.json()? {
                    CommitReply::Again { order: next } => order = next,
                    CommitReply::Over => break,
                }
            }
        }
    }

    /// Controls, and claims the next task for any shell worker.
    pub(super) async fn task(&self) -> Result<Claim> {
        self.control().await?;
        let answer = self
            .post("/claims", &claim_request("w", &shell(&[]), 30))
            .await?;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json()
    }

    /// Does something with a claimed ticket.
    pub(super) async fn act(&self, claim: &Claim, act: &str, body: &Value) -> Result<Answer> {
        let path = format!("/tickets/{}/{}/{act}", claim.ticket, claim.attempt);
        self.post(&path, body).await
    }

    pub(super) async fn append(&self, claim: &Claim, at: u64, bytes: &[u8]) -> Result<Answer> {
        let path = format!(
            "/tickets/{}/{}/console?offset={at}",
            claim.ticket, claim.attempt
        );
        self.send(Method::POST, &path, &[], bytes.to_vec()).await
    }

    /// Completes a task with success, and lets control take notice.
    pub(super) async fn finish(&self, claim: &Claim) -> Result<()> {
        let answer = self
            .act(claim, "complete", &json!({ "verdict": "success" }))
            .await?;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
        self.control().await
    }
}

pub(super) fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Result<Request<Body>> {
    let builder = Request::builder()
        .method(method)
        .uri(format!("/api/v1{path}"));
    let builder = builder.header("authorization", format!("Bearer {TOKEN}"));
    let with = |builder: http::request::Builder, (name, value): &(&str, &str)| {
        builder.header(*name, *value)
    };
    Ok(headers.iter().fold(builder, with).body(body.into())?)
}

/// A job of one shell task that only workers with these labels may do.
pub(super) fn one_task(job: &str, labels: &[&str]) -> Value {
    let params = json!({ "script": "true", "nodelabels": labels });
    json!({ "job_id": job, "tasks": [{ "name": "a", "type": "execute-shell", "params": params }] })
}

pub(super) fn control() -> Capabilities {
    Capabilities::control()
}

pub(super) fn shell(labels: &[&str]) -> Capabilities {
    let labels = labels.iter().filter_map(|label| label.parse().ok());
    let labels = labels.map(Capability::Label);
    labels
        .chain([Capability::Kind(Kind::ExecuteShell)])
        .collect()
}

/// A claim request with an id of its own.
pub(super) fn claim_request(worker: &str, offers: &Capabilities, wait: u64) -> Value {
    static NUMBER: AtomicI64 = AtomicI64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    claim_again(&format!("{worker} {number}"), worker, offers, wait)
}

/// A claim request with this id.
pub(super) fn claim_again(id: &str, worker: &str, offers: &Capabilities, wait: u64) -> Value {
    let request = RequestId::derive(id);
    json!({ "worker": worker, "capabilities": offers, "request": request, "wait": wait })
}
