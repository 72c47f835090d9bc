//! Large bytes go between workers and the blob store of a real Ceph, past the frontend, and through
//! it where they cannot.

mod relay;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_client::Client;
use distci_components::shared;
use distci_frontend::{Frontend, Settings};
use distci_model::Timestamp;
use distci_model::id::{BuildRef, JobId, RequestId};
use distci_model::outcome::Outcome;
use distci_model::wire::{BuildPhase, TriggerRequest};
use distci_store::Store;
use distci_store::blobs::{Blobs, S3Settings};
use distci_store::coordination::simulator::{Faults, Simulator};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use self::relay::{Relay, Rule};
use crate::rig::{Process, distci};

/// What the first task makes: noise, which no layer makes smaller.
const NOISE: u64 = 6 << 20;
/// More than everything but layers and artifacts comes to.
const TALK: u64 = 1 << 20;
/// A build that hands on a layer and publishes what is in it.
const JOB: &str = r#"{ "job_id": "noise", "tasks": [
    { "name": "make", "type": "execute-shell",
      "params": { "script": "head -c 6291456 /dev/urandom > noise" } },
    { "name": "keep", "type": "publish-artifacts", "params": { "artifacts": ["noise"] } }
] }"#;

/// A frontend over a bucket, and a worker; what they say to each other goes through relays.
struct Scene {
    /// Between the worker and the frontend.
    talk: Relay,
    /// Between everybody and the gateway.
    gateway: Relay,
    client: Client,
    settings: S3Settings,
    stop: CancellationToken,
    _frontend: Frontend,
    _worker: Process,
    _simulator: Simulator,
    _folder: TempDir,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock of a frontend, as the binary has it"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

impl Scene {
    /// Signed addresses are on, and lead through a relay with this rule.
    async fn start(rule: Rule) -> Result<Self> {
        let access = tokio::task::spawn_blocking(shared::ceph).await??;
        let endpoint = access.endpoints.first().context("no gateway")?;
        let target: SocketAddr = endpoint.trim_start_matches("http://").parse()?;
        let gateway = Relay::start(target, rule).await?;
        let folder = tempfile::tempdir()?;
        let unique = folder.path().file_name().context("no name")?;
        let unique: String = unique.to_string_lossy().replace('.', "");
        let settings = S3Settings {
            endpoints: vec![gateway.url()],
            bucket: access.bucket,
            region: access.region,
            access_key: access.access_key,
            secret_key: access.secret_key,
            prefix: Some(format!("direct/{unique}")),
            signed_urls: true,
        };
        let clock = Arc::new(now);
        let simulator = Simulator::new(1, Faults::none(), clock.clone());
        let blobs = Blobs::s3(&settings)?;
        blobs.check().await?;
        let stop = CancellationToken::new();
        let frontend = Settings {
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            token: "t".to_owned(),
            clock,
            hooks: distci_frontend::HookSecrets::default(),
            public_url: None,
            dead_worker: None,
        };
        let store = Store::new(Arc::new(simulator.session()), blobs);
        let frontend = Frontend::start(frontend, store, stop.clone()).await?;
        let talk = Relay::start(frontend.addresses()[0], Rule::All).await?;
        let url = format!("http://{}", frontend.addresses()[0]);
        let worker = Process::start(
            distci()
                .args(["worker", "--url", &talk.url(), "--dir"])
                .arg(folder.path())
                .env("DISTCI_TOKEN", "t"),
        )?;
        Ok(Self {
            talk,
            gateway,
            client: Client::new(vec![url], Some("t".parse()?))?,
            settings,
            stop,
            _frontend: frontend,
            _worker: worker,
            _simulator: simulator,
            _folder: folder,
        })
    }

    /// Runs a build to its end.
    async fn build(&self) -> Result<BuildRef> {
        let job: JobId = "noise".parse()?;
        self.client.set_job(&job, JOB.to_owned(), None).await?;
        let (wish, request) = (TriggerRequest::default(), RequestId::from_random([7; 16]));
        let build = self.client.trigger(&job, &wish, &request).await?;
        let build = build.build().context("skipped")?;
        let mut seen = None;
        loop {
            let wait = Duration::from_secs(5);
            let watched = self.client.watch_build(&build, seen.as_deref(), wait);
            let watched = watched.await?;
            let view = watched.view;
            if view.phase == BuildPhase::Finished {
                ensure!(view.outcome == Some(Outcome::Success), "{view:?}");
                return Ok(build);
            }
            seen = Some(watched.etag);
        }
    }

    /// Reads the artifact as people do, through the frontend, and compares it with its digest.
    async fn read_back(&self, build: &BuildRef) -> Result<()> {
        let listed = self.client.artifacts(build).await?;
        let digest = &listed.first().context("no artifact")?.artifact.digest;
        let download = self.client.artifact(build, "noise").await?;
        let bytes = download.stream.try_collect::<Vec<_>>().await?.concat();
        ensure!(bytes.len() as u64 == NOISE);
        ensure!(blake3::hash(&bytes).to_hex().as_str() == digest);
        Ok(())
    }

    async fn end(self) -> Result<()> {
        self.stop.cancel();
        let blobs = Blobs::s3(&self.settings)?;
        for top in ["b", "cfg", "h"] {
            blobs
                .delete_prefix(&distci_store::blobs::BlobKey::parse(top)?)
                .await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_and_artifacts_pass_by_the_frontend() -> Result<()> {
    let scene = Scene::start(Rule::All).await?;
    let build = scene.build().await?;
    // A layer out, the same in, an artifact out.
    ensure!(scene.talk.bytes() < TALK, "{} bytes", scene.talk.bytes());
    ensure!(scene.gateway.bytes() > 3 * NOISE);
    let heads = scene.gateway.signed_heads();
    ensure!(heads.iter().any(|head| head.starts_with("PUT ")));
    ensure!(heads.iter().any(|head| head.starts_with("GET ")));
    ensure!(
        !heads
            .iter()
            .any(|head| head.to_lowercase().contains("\r\nauthorization:")),
        "our token has left the house"
    );
    scene.read_back(&build).await?;
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_store_is_out_of_reach_the_frontend_carries_them() -> Result<()> {
    let scene = Scene::start(Rule::RefuseSigned).await?;
    let build = scene.build().await?;
    ensure!(
        scene.talk.bytes() > 3 * NOISE,
        "{} bytes",
        scene.talk.bytes()
    );
    scene.read_back(&build).await?;
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_transfer_that_breaks_off_goes_on_through_the_frontend() -> Result<()> {
    let scene = Scene::start(Rule::CutSignedReads(NOISE / 2)).await?;
    let build = scene.build().await?;
    ensure!(scene.talk.bytes() > NOISE, "{} bytes", scene.talk.bytes());
    scene.read_back(&build).await?;
    scene.end().await
}
