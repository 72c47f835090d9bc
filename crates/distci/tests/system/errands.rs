//! Repositories that are looked at, and a forge that hears of it: each commit is built once, and the
//! last word is never lost.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use distci_client::Client;
use distci_components::{Dialect, FakeForge, Mood};
use distci_model::wire::{BuildSummary, Page, PollView, ReportView};
use serde_json::json;
use tokio::runtime::Builder;

use crate::rig::{Process, Server, eventually, run};

const TOKEN: &str = "ghp_thistokenisnevershown";
const CONTEXT: &str = "distci/job";
const PATIENCE: Duration = Duration::from_mins(2);

/// A server with a worker, and a forge that hosts the repository that they look at.
struct Scene {
    forge: FakeForge,
    server: Server,
    folder: tempfile::TempDir,
}

impl Scene {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let forge = FakeForge::start(Dialect::Github, TOKEN, 0)?;
        let data = folder.path().join("data");
        let config = folder.path().join("frontend.toml");
        std::fs::create_dir(&data)?;
        std::fs::write(&config, "public-url = 'https://ci.example.org'\n")?;
        let config = config.to_str().context("odd path")?.to_owned();
        let server = Server::start(&data, &["frontend", "--config", &config])?;
        let scene = Self {
            forge,
            server,
            folder,
        };
        scene.write_forges()?;
        let init = "git init -q --bare -b main repository";
        scene.shell(init)?;
        Ok(scene)
    }

    fn write_forges(&self) -> Result<()> {
        let token = self.folder.path().join("token");
        std::fs::write(&token, format!("{TOKEN}\n"))?;
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600))?;
        let text = format!(
            "['{}']\nkind = 'github'\napi = '{}'\ntoken-file = 'token'\n",
            self.forge.host(),
            self.forge.api()
        );
        Ok(std::fs::write(self.forges(), text)?)
    }

    fn forges(&self) -> PathBuf {
        self.folder.path().join("forges.toml")
    }

    fn worker(&self, name: &str) -> Result<Process> {
        let forges = self.forges();
        let forges = forges.to_str().context("odd path")?;
        let dir = self.folder.path().join(name);
        self.server.worker_with(&dir, &["--forges", forges])
    }

    fn shell(&self, script: &str) -> Result<String> {
        let mut command = Command::new("sh");
        let (code, stdout, stderr) = run(command
            .args(["-ec", script])
            .current_dir(self.folder.path()))?;
        ensure!(code == 0, "{script}: {stderr}");
        Ok(stdout.trim().to_owned())
    }

    /// A new commit on `main`. Gives its id.
    fn commit(&self) -> Result<String> {
        self.shell(
            "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a \
             GIT_COMMITTER_EMAIL=a@b GIT_DIR=repository\n\
             parent=$(git rev-parse -q --verify main || true)\n\
             tree=$(git mktree < /dev/null)\n\
             new=$(git commit-tree -m change ${parent:+-p $parent} $tree)\n\
             git update-ref refs/heads/main $new; git update-server-info; echo $new",
        )
    }

    fn watch(&self) -> Result<()> {
        let repository = self.folder.path().join("repository");
        let address = self.forge.host_repository("Acme/App", &repository);
        self.server.set_job(&json!({
            "job_id": "job",
            "status": {},
            "triggers": [{ "poll": "10s", "repository": address }],
            "tasks": [{ "name": "a", "type": "execute-shell", "params": { "script": "true" } }],
        }))?;
        eventually("the first look", || {
            let looked = self.poll()?.looked;
            Ok(looked.map(drop))
        })
    }

    fn poll(&self) -> Result<PollView> {
        let polls = self.server.ask(&["polls", "job", "--json"])?;
        let polls: Vec<PollView> = serde_json::from_str(&polls)?;
        polls.into_iter().next().context("the job polls nothing")
    }

    fn builds(&self) -> Result<Vec<BuildSummary>> {
        let builds = self.server.ask(&["builds", "job", "--json"])?;
        let page: Page<BuildSummary> = serde_json::from_str(&builds)?;
        Ok(page.items)
    }

    /// Waits for the build of a commit, which ends well.
    fn built(&self, count: usize, sha: &str) -> Result<()> {
        eventually("the end of the build", || {
            let builds = self.builds()?;
            ensure!(builds.len() <= count, "too many builds: {builds:?}");
            let latest = builds.first().filter(|_| builds.len() == count);
            let over = latest.filter(|build| build.outcome.is_some());
            if let Some(build) = over {
                let told = build.cause.told().context("no event")?;
                ensure!(told.fact("sha") == Some(sha), "{build:?}");
            }
            Ok(over.map(drop))
        })
    }

    /// What the forge has heard of a commit.
    fn heard(&self, sha: &str) -> Vec<String> {
        let told = self.forge.told().into_iter();
        told.filter(|status| status.sha == sha && status.context == CONTEXT)
            .map(|status| status.state)
            .collect()
    }

    /// Waits until the forge has heard the end of a commit's build.
    fn told(&self, sha: &str) -> Result<Vec<String>> {
        self.forge.wait(PATIENCE, |_| {
            self.heard(sha)
                .last()
                .is_some_and(|state| state == "success")
        })?;
        Ok(self.heard(sha))
    }
}

#[test]
fn each_commit_is_built_once_and_its_forge_hears_of_it() -> Result<()> {
    let scene = Scene::start()?;
    let old = scene.commit()?;
    let _worker = scene.worker("worker")?;
    scene.watch()?;
    let heads = scene.poll()?.heads;
    ensure!(heads.get("refs/heads/main") == Some(&old), "{heads:?}");

    // A forge that is down holds up no build, and hears of it later.
    scene.forge.set_mood(Mood::Status(503, None));
    let first = scene.commit()?;
    scene.built(1, &first)?;
    ensure!(scene.forge.asked() > 0 && scene.heard(&first).is_empty());
    let report = eventually("a report that waits", || scene.report(1))?;
    let setback = report.setback.context("nothing is shown")?;
    ensure!(setback.detail.contains("503"), "{setback:?}");
    scene.forge.set_mood(Mood::Fine);
    scene.told(&first)?;

    let second = scene.commit()?;
    scene.built(2, &second)?;
    let heard = scene.told(&second)?;
    ensure!(heard == ["pending", "success"], "{heard:?}");
    let status = scene.forge.told().pop().context("nothing was told")?;
    let page = Some("https://ci.example.org/jobs/job/builds/2");
    ensure!(status.url.as_deref() == page, "{status:?}");
    ensure!(status.repository == "acme/app", "{status:?}");
    ensure!(scene.heard(&old).is_empty());

    // Two more looks find nothing.
    for _ in 0..2 {
        let before = scene.poll()?.looked;
        eventually("another look", || {
            Ok((scene.poll()?.looked > before).then_some(()))
        })?;
    }
    ensure!(scene.builds()?.len() == 2, "{:?}", scene.builds()?);
    eventually("the end of all reports", || {
        Ok(scene.report(2)?.is_none().then_some(()))
    })?;
    scene.check()
}

#[test]
fn a_worker_that_is_killed_while_it_tells_a_forge_is_followed_by_another() -> Result<()> {
    let scene = Scene::start()?;
    scene.commit()?;
    let worker = scene.worker("first")?;
    scene.watch()?;
    scene.forge.set_mood(Mood::Hanging);
    let sha = scene.commit()?;
    scene.forge.wait(PATIENCE, |forge| forge.asked() > 0)?;
    worker.kill()?;
    scene.forge.set_mood(Mood::Fine);
    let _second = scene.worker("second")?;
    scene.built(1, &sha)?;
    let heard = scene.told(&sha)?;
    // If the end came first, the beginning needs no word.
    ensure!(heard.ends_with(&["success".to_owned()]), "{heard:?}");
    let ends = heard.iter().filter(|state| *state == "success").count();
    ensure!(ends == 1, "{heard:?}");
    eventually("the end of the report", || {
        Ok(scene.report(1)?.is_none().then_some(()))
    })?;
    scene.check()
}

impl Scene {
    /// What the forge has not heard yet of a build.
    fn report(&self, number: u32) -> Result<Option<ReportView>> {
        let data = self.folder.path().join("data");
        let url = std::fs::read_to_string(data.join("url"))?;
        let token = std::fs::read_to_string(data.join("token"))?;
        let client = Client::new(vec![url.trim().to_owned()], Some(token.trim().parse()?))?;
        let build = format!("job#{number}").parse()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(client.report(&build))?)
    }

    /// The store keeps its laws.
    fn check(mut self) -> Result<()> {
        self.server.kill()?;
        self.server.ask(&["fsck"]).map(drop)
    }
}
