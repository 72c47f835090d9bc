//! A whole worker against a frontend that is not one: what it does, and what it says.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests a panic is the report"
)]

#[path = "worker/checkout.rs"]
mod checkout;
#[path = "worker/cluster.rs"]
mod cluster;
#[path = "worker/door.rs"]
mod door;
#[path = "worker/errands.rs"]
mod errands;
#[path = "worker/frontend.rs"]
mod frontend;
#[path = "worker/job_file.rs"]
mod job_file;
#[path = "worker/leaving.rs"]
mod leaving;
#[path = "worker/reports.rs"]
mod reports;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;

use distci_client::Client;
use distci_isolation::Groups;
use distci_isolation::machine;
use distci_model::capability::Kind;
use distci_model::config::Action;
use distci_model::id::TicketKey;
use distci_model::outcome::{Failure, Fault, Outcome, TaskResult};
use distci_model::wire::{Standing, Work};
use distci_worker::Settings;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use frontend::{Frontend, input};

const PROGRAM: &str = env!("CARGO_BIN_EXE_distci-worker-test");

/// A worker at work, and its frontend.
struct Scene {
    frontend: Frontend,
    folder: TempDir,
    stop: CancellationToken,
    worker: JoinSet<Result<(), distci_worker::Error>>,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let frontend = Frontend::start().await;
        let addresses = vec![frontend.address.clone()];
        Self::before(frontend, addresses, change)
    }

    /// A worker that knows the frontend by these addresses.
    fn before(
        frontend: Frontend,
        addresses: Vec<String>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            id: "w1 0123abcd".parse().unwrap(),
            kinds: Kind::OF_TASKS.to_vec(),
            labels: vec!["linux".parse().unwrap()],
            slots: 1,
            once: false,
            idle: None,
            directory: folder.path().join("worker"),
            machine: machine::Settings {
                supervisor: vec![PROGRAM.into(), "supervise".into()],
                agent: ("/nonexistent".into(), String::new()),
                scratch: "/nonexistent".into(),
                groups: Groups::find(),
                images: "/nonexistent".into(),
                drivers: Vec::new(),
                default_image: None,
            },
            git_credentials: None,
            forges: BTreeMap::new(),
        };
        change(&mut settings);
        let client = Client::new(addresses, None).unwrap();
        let (stop, mut worker) = (CancellationToken::new(), JoinSet::new());
        worker.spawn(distci_worker::run(settings, client, stop.clone()));
        Self {
            frontend,
            folder,
            stop,
            worker,
        }
    }

    fn shell(&self, script: &str) -> TicketKey {
        self.frontend.post(shell(script), 60, vec![])
    }

    async fn done(&self, action: Action) -> TaskResult {
        let ticket = self.frontend.post(action, 60, vec![]);
        self.frontend.result(&ticket).await
    }

    /// Waits until the script has said so.
    async fn said(&self, ticket: &TicketKey, text: &str) {
        let has = |console: &Vec<u8>| String::from_utf8_lossy(console).contains(text);
        self.frontend
            .until(|stored| {
                stored
                    .consoles
                    .get(ticket)
                    .filter(|console| has(console))
                    .map(drop)
            })
            .await;
    }

    /// The mirror of the one repository that was checked out.
    fn mirror(&self) -> PathBuf {
        let mirrors = std::fs::read_dir(self.folder.path().join("worker/git")).unwrap();
        let mut paths = mirrors.map(|entry| entry.unwrap().path());
        paths.find(|path| path.is_dir()).unwrap()
    }

    /// Waits until the worker has left, with nothing to complain of.
    async fn left(&mut self) {
        self.worker.join_next().await.unwrap().unwrap().unwrap();
    }

    /// Stops the worker, after which nothing may be left of any attempt.
    async fn close(mut self) {
        self.stop.cancel();
        self.left().await;
        let attempts = std::fs::read_dir(self.folder.path().join("worker/attempts")).unwrap();
        let names = attempts.map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name != "door").collect();
        assert!(left.is_empty(), "{left:?}");
        let orphans = &self.frontend.stored().orphans;
        assert!(orphans.is_empty(), "nobody knew of {orphans:?}");
    }
}

fn shell(script: &str) -> Action {
    action(json!({"type": "execute-shell", "params": {"script": script}}))
}

fn action(value: serde_json::Value) -> Action {
    serde_json::from_value(value).unwrap()
}

fn failure(result: &TaskResult) -> &Failure {
    match &result.outcome {
        Outcome::Failure { reason } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_script_sees_what_was_promised_and_nothing_else() {
    let scene = Scene::new().await;
    let ticket = scene.shell(
        "env | grep -v -e ^PWD= -e ^OLDPWD= -e ^_= -e ^SHLVL= | cut -d= -f1 | sort | tr '\\n' ' '\n\
        test \"$PWD\" = \"$WORKSPACE\"; echo; echo out; echo err >&2; printf '\\377'",
    );
    assert_eq!(
        scene.frontend.result(&ticket).await.outcome,
        Outcome::Success
    );
    let console = scene.frontend.console(&ticket);
    let expected = "BUILD_URL CI DISTCI_API_URL DISTCI_ATTEMPT DISTCI_ATTEMPT_KEY DISTCI_ENV \
        DISTCI_LABELS DISTCI_OUTPUT DISTCI_SUMMARY HOME LOGNAME PATH SHELL TMPDIR USER WORKSPACE ";
    assert_eq!(console, format!("{expected}\nout\nerr\n\u{fffd}"));
    scene.close().await;
}

#[tokio::test]
async fn a_script_tells_by_files() {
    let scene = Scene::new().await;
    let ticket = scene.shell(
        "echo A=1 >> $DISTCI_ENV; echo DISTCI_SHA=no >> $DISTCI_ENV\n\
         printf 'B<<E\\nx\\ny\\nE\\n' >> $DISTCI_OUTPUT; echo '# Hi' > $DISTCI_SUMMARY; exit 9",
    );
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(failure(&result), &Failure::Exit { exit: 9 });
    assert_eq!(
        result.exports.into_iter().collect::<Vec<_>>(),
        [("A".into(), "1".into())]
    );
    assert_eq!(result.outputs["B"], "x\ny");
    assert_eq!(scene.frontend.stored().summaries[&ticket], "# Hi\n");
    let console = scene.frontend.console(&ticket);
    assert!(console.contains("DISTCI_SHA"), "{console}");
    assert!(
        console.ends_with("[distci] failure: exit code 9\n"),
        "{console}"
    );
    assert_eq!(result.console_bytes, console.len() as u64);
    scene.close().await;
}

#[tokio::test]
async fn every_end_of_a_script_is_told_apart() {
    let scene = Scene::new().await;
    let signal = scene.done(shell("kill -9 $$")).await;
    assert_eq!(failure(&signal), &Failure::Signal { signal: 9 });
    let late = scene.frontend.post(shell("sleep 1000"), 1, vec![]);
    let late = scene.frontend.result(&late).await;
    assert_eq!(failure(&late), &Failure::TimedOut { seconds: 1 });
    let missing = json!({"script": "", "shell": "no-such-shell"});
    let missing = scene
        .done(action(json!({"type": "execute-shell", "params": missing})))
        .await;
    assert!(matches!(failure(&missing), Failure::NotStarted { .. }));
    let nowhere = json!({"script": "", "working_directory": "no/where"});
    let nowhere = scene
        .done(action(json!({"type": "execute-shell", "params": nowhere})))
        .await;
    assert!(matches!(failure(&nowhere), Failure::NotStarted { .. }));
    scene.close().await;
}

#[tokio::test]
async fn a_script_that_kills_its_supervisor_is_our_fault_and_leaves_nothing() {
    let scene = Scene::new().await;
    let result = scene
        .done(shell("sleep 1000 & kill -9 $PPID; sleep 1000"))
        .await;
    let Outcome::Fault {
        reason: Fault::Worker { detail },
    } = &result.outcome
    else {
        panic!("{}", result.outcome);
    };
    assert!(detail.contains("supervisor"), "{detail}");
    scene.close().await;
}

#[tokio::test]
async fn a_cancelled_task_ends_as_cancelled() {
    let scene = Scene::new().await;
    let ticket = scene.shell("trap 'echo cleaning; exit 0' TERM; echo ready; sleep 1000 & wait");
    scene.said(&ticket, "ready").await;
    scene.frontend.tell(&ticket, Standing::Cancel);
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(failure(&result), &Failure::Cancelled);
    let console = scene.frontend.console(&ticket);
    assert!(console.contains("cleaning"), "{console}");
    assert_eq!(result.console_bytes, console.len() as u64);
    scene.close().await;
}

#[tokio::test]
async fn a_lost_task_is_dropped_without_a_word() {
    let scene = Scene::new().await;
    let ticket = scene.shell("echo ready; sleep 1000");
    scene.said(&ticket, "ready").await;
    scene.frontend.tell(&ticket, Standing::Lost);
    // The slot is free again, so the attempt is over.
    let next = scene.shell("true");
    scene.frontend.result(&next).await;
    assert!(!scene.frontend.stored().reports.contains_key(&ticket));
    scene.close().await;
}

#[tokio::test]
async fn nothing_outlives_a_worker_that_is_killed() {
    let (frontend, folder) = (Frontend::start().await, tempfile::tempdir().unwrap());
    let (directory, pipe) = (folder.path().join("worker"), folder.path().join("pipe"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let start = || {
        let mut worker = Command::new(PROGRAM);
        worker
            .args(["work", &frontend.address])
            .arg(&directory)
            .spawn()
            .unwrap()
    };
    let mut worker = start();
    let script = format!(
        "exec 3>{}; trap '' TERM HUP; setsid sleep 1000 & echo ready >&3; sleep 1000",
        pipe.display()
    );
    frontend.post(shell(&script), 60, vec![]);
    let ready = tokio::task::spawn_blocking(move || {
        let mut pipe = BufReader::new(File::open(pipe).unwrap());
        let mut line = String::new();
        pipe.read_line(&mut line).unwrap();
        (pipe, line)
    });
    let (mut pipe, line) = ready.await.unwrap();
    assert_eq!(line, "ready\n");
    worker.kill().unwrap();
    worker.wait().unwrap();
    // The pipe ends when nobody is left who could write to it.
    let rest = tokio::task::spawn_blocking(move || pipe.read_line(&mut String::new()).unwrap());
    assert_eq!(rest.await.unwrap(), 0);

    let mut next = start();
    let ticket = frontend.post(shell("ls -d ../../*.*"), 60, vec![]);
    frontend.result(&ticket).await;
    assert_eq!(
        frontend.console(&ticket).lines().count(),
        1,
        "a room was not swept"
    );
    next.kill().unwrap();
    next.wait().unwrap();
}

#[tokio::test]
async fn a_script_that_stops_its_supervisor_holds_nothing_up() {
    let scene = Scene::new().await;
    let pipe = scene.folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let hidden = "env -i setsid sleep 1000 &";
    let script = format!(
        "exec 3>{}; {hidden} kill -STOP $PPID; echo ready; sleep 1000",
        pipe.display()
    );
    let ticket = scene.shell(&script);
    let rest = tokio::task::spawn_blocking(move || std::fs::read(pipe).unwrap());
    scene.said(&ticket, "ready").await;
    scene.frontend.tell(&ticket, Standing::Lost);
    let next = scene.shell("true");
    scene.frontend.result(&next).await;
    // The pipe ends when nobody is left who could write to it.
    assert_eq!(rest.await.unwrap(), b"");
    scene.close().await;
}

#[tokio::test]
async fn what_the_worker_ignores_a_script_hears() {
    let (frontend, folder) = (Frontend::start().await, tempfile::tempdir().unwrap());
    let mut worker = Command::new("sh")
        .args(["-c", "trap '' HUP QUIT USR1; exec \"$@\"", "sh", PROGRAM])
        .args(["work", &frontend.address])
        .arg(folder.path())
        .spawn()
        .unwrap();
    for signal in ["HUP", "QUIT", "USR1"] {
        let ticket = frontend.post(shell(&format!("kill -{signal} $$")), 60, vec![]);
        let result = frontend.result(&ticket).await;
        assert!(
            matches!(failure(&result), Failure::Signal { .. }),
            "{signal}"
        );
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
}

#[tokio::test]
async fn the_workspace_is_handed_on_even_by_a_task_that_failed() {
    let scene = Scene::new().await;
    let first = scene
        .done(shell(
            "mkdir -p a/empty; echo one > a/f; mkfifo pipe; exit 1",
        ))
        .await;
    let first = first.layer.expect("a layer");
    let second = "test -d a/empty; test ! -e pipe; echo two >> a/f; rmdir a/empty";
    let inputs = vec![input("first", &first, &[])];
    let second = scene.frontend.post(shell(second), 60, inputs.clone());
    let second = scene.frontend.result(&second).await;
    assert_eq!(second.outcome, Outcome::Success);
    let second = second.layer.expect("a layer");
    let third = "test ! -e a/empty; test \"$(cat a/f | tr '\\n' ' ')\" = 'one two '";
    let both = [inputs, vec![input("second", &second, &["first"])]].concat();
    let third = scene.frontend.post(shell(third), 60, both);
    let third = scene.frontend.result(&third).await;
    assert_eq!((third.outcome, third.layer), (Outcome::Success, None));
    scene.close().await;
}

#[tokio::test]
async fn artifacts_are_published_and_copied() {
    let scene = Scene::new().await;
    let made = scene
        .done(shell(
            "mkdir -p d/e; echo 1 > d/a.txt; echo 2 > 'd/e/b c.json'",
        ))
        .await;
    let layers = vec![input("made", &made.layer.unwrap(), &[])];
    let publish = |patterns: serde_json::Value, optional: bool| {
        let params = json!({"artifacts": patterns, "optional": optional});
        let publish = action(json!({"type": "publish-artifacts", "params": params}));
        scene.frontend.post(publish, 60, layers.clone())
    };
    let refused = scene
        .frontend
        .result(&publish(json!(["d/*", "*.egg"]), false))
        .await;
    assert_eq!(
        failure(&refused),
        &Failure::NoMatch {
            pattern: "*.egg".into()
        }
    );
    assert!(scene.frontend.stored().artifacts.is_empty());
    let done = scene
        .frontend
        .result(&publish(json!(["d/**", "*.egg"]), true))
        .await;
    assert_eq!(
        (done.outcome, done.artifacts, done.artifact_bytes),
        (Outcome::Success, 2, 4)
    );
    let view = scene.frontend.stored().artifacts["d/e/b c.json"]
        .0
        .artifact
        .clone();
    assert_eq!(view.content_type, "application/json");
    assert_eq!(view.digest, blake3::hash(b"2\n").to_hex().as_str());

    let copy =
        |params: serde_json::Value| action(json!({"type": "copy-artifacts", "params": params}));
    let gone = scene.done(copy(json!({"job": "gone"}))).await;
    assert!(matches!(failure(&gone), Failure::NoSuchBuild { .. }));
    let none = scene
        .done(copy(json!({"job": "up", "artifacts": ["*.egg"]})))
        .await;
    assert!(matches!(failure(&none), Failure::NoMatch { .. }));
    // Names with a space come percent-encoded, which this frontend does not decode.
    let some = json!({"job": "up", "artifacts": ["d/*.txt"], "target_directory": "in/here"});
    let some = scene.done(copy(some)).await;
    assert_eq!(some.outcome, Outcome::Success);
    let look = "test \"$(cat in/here/d/a.txt)\" = 1";
    let look = scene.frontend.post(
        shell(look),
        60,
        vec![input("copy", &some.layer.unwrap(), &[])],
    );
    assert_eq!(scene.frontend.result(&look).await.outcome, Outcome::Success);
    let door = scene.done(shell("ln -s /tmp in")).await;
    let evil = copy(json!({"job": "up", "artifacts": ["d/*.txt"], "target_directory": "in"}));
    let evil = scene
        .frontend
        .post(evil, 60, vec![input("door", &door.layer.unwrap(), &[])]);
    let evil = scene.frontend.result(&evil).await;
    assert!(matches!(failure(&evil), Failure::EscapesWorkspace { .. }));
    scene.close().await;
}

#[tokio::test]
async fn build_control_commits_what_it_decides() {
    let scene = Scene::with(|settings| settings.kinds = vec![Kind::BuildControl]).await;
    let order = json!({
        "work": "control",
        "order": {
            "config": {"job_id": "j", "configuration-version": "2013-02-26", "tasks": [{
                "name": "t", "needs": [], "type": "execute-shell", "params": {"script": ""}}]},
            "build": {
                "ticket": ticket(), "id": {"job": "j", "number": 1},
                "config": {"revision": 1, "hash": ""}, "parameters": {},
                "cause": {"event": "manual"}, "request": "0".repeat(32),
                "created": "2026-01-01T00:00:00Z",
                "checkpoint": {"revision": 0, "tasks": [{"state": "waiting"}],
                    "latest": "2026-01-01T00:00:00Z"},
            },
            "mailbox": 5,
            "events": [],
        },
    });
    scene
        .frontend
        .post_work(serde_json::from_value::<Work>(order).unwrap());
    let commit = scene
        .frontend
        .until(|stored| stored.commits.first().cloned())
        .await;
    assert_eq!(commit["mailbox"], 5);
    assert_eq!(commit["decision"]["post"][0]["task"], 0);
    scene.close().await;
}

fn ticket() -> serde_json::Value {
    json!({
        "duty": "control", "job": "j".repeat(16), "number": 1, "class": "c".repeat(10),
        "priority": 5, "stamp": 0, "attempt": 1, "losses": 0, "state": {"state": "queued"},
    })
}
