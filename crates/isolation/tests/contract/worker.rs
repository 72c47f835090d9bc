//! What is left when a worker is killed: a process of its own plays it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use distci_isolation::sweep;

use crate::scene::{Scene, Subject, program};

/// Killed while a script runs: the supervisor ends it, and the next worker finds the rest.
pub(crate) async fn killed_while_it_runs(subject: &Subject) {
    let script = "trap '' TERM HUP; setsid sleep 1000 & echo ready; while :; do sleep 1000; done";
    killed(subject, script).await;
}

/// Killed while nothing runs in an open cell.
pub(crate) async fn killed_between(subject: &Subject) {
    killed(subject, "").await;
}

async fn killed(subject: &Subject, script: &str) {
    let scene = Scene::new();
    let root = scene.site.workspace.parent().unwrap();
    let mut worker = Command::new(program());
    worker
        .arg("work")
        .arg(subject.isolation.driver().as_str())
        .arg(root)
        .arg(&scene.site.name)
        .arg(script)
        .env("TEST_FOLDER", env!("CARGO_TARGET_TMPDIR"));
    if let Some(image) = &subject.image {
        worker.arg(image.folder());
    }
    let mut worker: Child = worker.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(worker.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    worker.kill().unwrap();
    worker.wait().unwrap();
    let folder = scene.site.folder.clone();
    // What still dies may hold things for a moment; a worker that starts sweeps again later too.
    for _ in 0..50 {
        if sweep(&folder).is_ok() && scene.processes().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    sweep(&folder).unwrap();
    scene.becomes_clean().await;
}
