//! A frontend on a real socket: what only a connection can show.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_frontend::{Frontend, HookSecrets, Settings};
use distci_model::Timestamp;
use distci_model::capability::Capabilities;
use distci_model::config::JobConfig;
use distci_model::id::{RequestId, WorkerId};
use distci_store::blobs::Blobs;
use distci_store::coordination::Clock;
use distci_store::coordination::simulator::{Faults, Simulator};
use distci_store::{Claiming, Expected, Store};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes; only a hang takes as long.
const HANG: Duration = Duration::from_secs(20);

struct Scene {
    store: Store,
    clock: Clock,
    stop: CancellationToken,
    _simulator: Simulator,
}

impl Scene {
    fn new() -> Self {
        let clock: Clock = Arc::new(|| Timestamp::UNIX_EPOCH);
        let simulator = Simulator::new(1, Faults::none(), clock.clone());
        Self {
            store: Store::new(Arc::new(simulator.session()), Blobs::memory()),
            clock,
            stop: CancellationToken::new(),
            _simulator: simulator,
        }
    }

    async fn start(&self, dead_worker: Option<WorkerId>) -> Result<Frontend> {
        let settings = Settings {
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            token: "t".into(),
            clock: self.clock.clone(),
            hooks: HookSecrets::default(),
            public_url: None,
            dead_worker,
        };
        let frontend = Frontend::start(settings, self.store.clone(), self.stop.clone());
        Ok(frontend.await?)
    }

    async fn post_build(&self) -> Result<()> {
        let config = json!({ "job_id": "j", "tasks": [
            { "type": "execute-shell", "params": { "script": "true" } }
        ]});
        let config = JobConfig::parse(&config.to_string());
        let config = config.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        self.store
            .set_job(&config, Expected::Any, (self.clock)())
            .await?;
        let (id, request) = (&config.job_id, RequestId::derive("r"));
        let none = std::collections::BTreeMap::new();
        self.store
            .post_build(id, &request, &none, Timestamp::UNIX_EPOCH)
            .await?;
        Ok(())
    }
}

/// Sends one request; the answer is still to come.
async fn send(frontend: &Frontend, method: &str, path: &str, body: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(frontend.addresses()[0]).await?;
    let head = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

async fn answer(mut stream: TcpStream) -> Result<String> {
    let mut text = String::new();
    timeout(HANG, stream.read_to_string(&mut text)).await??;
    Ok(text)
}

fn claim(worker: &str, wait: u64) -> String {
    let (capabilities, request) = (Capabilities::control(), RequestId::derive(worker));
    json!({ "worker": worker, "capabilities": capabilities, "request": request, "wait": wait })
        .to_string()
}

/// Waits until exactly these workers wait for a claim.
async fn waiting(frontend: &Frontend, wanted: &[&str]) -> Result<()> {
    let looks = async {
        loop {
            let text = answer(send(frontend, "GET", "/workers", "").await?).await?;
            let (_, body) = text.split_once("\r\n\r\n").context("no body")?;
            let workers: Vec<Value> = serde_json::from_str(body)?;
            let names: Vec<_> = workers.iter().map(|view| view["worker"].clone()).collect();
            if names == wanted {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, looks).await?
}

#[tokio::test]
async fn a_broken_connection_leaves_the_line() -> Result<()> {
    let scene = Scene::new();
    let frontend = scene.start(None).await?;
    let first = send(&frontend, "POST", "/claims", &claim("gone", 30)).await?;
    waiting(&frontend, &["gone"]).await?;
    let second = send(&frontend, "POST", "/claims", &claim("next", 30)).await?;
    waiting(&frontend, &["gone", "next"]).await?;
    drop(first);
    waiting(&frontend, &["next"]).await?;
    scene.post_build().await?;
    let text = answer(second).await?;
    ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_stop_answers_held_requests_and_ends() -> Result<()> {
    let scene = Scene::new();
    let frontend = scene.start(None).await?;
    let held = send(&frontend, "POST", "/claims", &claim("w", 30)).await?;
    waiting(&frontend, &["w"]).await?;
    scene.stop.cancel();
    let text = answer(held).await?;
    ensure!(text.starts_with("HTTP/1.1 204"), "{text}");
    let address = frontend.addresses()[0];
    timeout(HANG, frontend.join()).await??;
    ensure!(
        TcpStream::connect(address).await.is_err(),
        "it still listens"
    );
    Ok(())
}

#[tokio::test]
async fn what_a_dead_worker_held_is_queued_again_at_the_start() -> Result<()> {
    let scene = Scene::new();
    scene.post_build().await?;
    let (dead, request) = (
        "dead 0123abcd".parse::<WorkerId>()?,
        RequestId::in_session(&"0123abcd".parse()?, [0; 12]),
    );
    let queue = scene.store.list_queue().await?;
    let Some(distci_model::ticket::IndexName::Queue(entry)) = queue.first() else {
        anyhow::bail!("nothing is queued");
    };
    let at = Timestamp::UNIX_EPOCH;
    let claimed = scene
        .store
        .claim(&entry.key, &dead.name, &request, at)
        .await?;
    ensure!(matches!(claimed, Claiming::Claimed(_)));
    let frontend = scene.start(Some(dead)).await?;
    let text = answer(send(&frontend, "POST", "/claims", &claim("alive", 30)).await?).await?;
    ensure!(text.contains("\"attempt\":2"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_address_in_use_is_named() -> Result<()> {
    let scene = Scene::new();
    let frontend = scene.start(None).await?;
    let settings = Settings {
        listen: vec![frontend.addresses()[0]],
        token: "t".into(),
        clock: scene.clock.clone(),
        hooks: HookSecrets::default(),
        public_url: None,
        dead_worker: None,
    };
    let second = Frontend::start(settings, scene.store.clone(), scene.stop.clone()).await;
    let error = second.err().context("two listen on one address")?;
    ensure!(
        error
            .to_string()
            .contains(&frontend.addresses()[0].to_string()),
        "{error}"
    );
    Ok(())
}
