//! A worker whose frontends die, fall silent and come back.

use std::path::Path;
use std::time::Duration;

use distci_model::outcome::Outcome;
use distci_model::wire::Standing;
use tokio::time::Instant;

use crate::door::Door;
use crate::frontend::{Frontend, Report};
use crate::{Scene, shell};

/// A worker and two doors to its frontend.
async fn two_doors() -> (Scene, Door, Door) {
    let frontend = Frontend::start().await;
    let left = Door::to(&frontend.address).await;
    let right = Door::to(&frontend.address).await;
    let addresses = vec![left.address(), right.address()];
    (Scene::before(frontend, addresses, |_| {}), left, right)
}

/// A script that says `ready`, and does the rest when the file `go` is there.
fn waiting(go: &Path, rest: &str) -> String {
    let go = go.display();
    format!("echo ready\nwhile ! [ -e {go} ]; do sleep 0.02; done\n{rest}")
}

/// Waits until there is such a file.
async fn appears(path: &Path) {
    let look = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = Duration::from_mins(1);
    let appeared = tokio::time::timeout(limit, look).await;
    appeared.unwrap_or_else(|_| panic!("{} never came", path.display()));
}

#[tokio::test]
async fn a_dead_frontend_costs_nobody_anything() {
    let (scene, mut left, mut right) = two_doors().await;
    for dead in [&mut left, &mut right] {
        let go = scene.folder.path().join("go");
        let ticket = scene.shell(&waiting(&go, "echo done"));
        scene.said(&ticket, "ready").await;
        dead.shut().await;
        let begun = Instant::now();
        std::fs::write(&go, "").unwrap();
        let result = scene.frontend.result(&ticket).await;
        assert_eq!(result.outcome, Outcome::Success);
        assert_eq!(scene.frontend.console(&ticket), "ready\ndone\n");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        std::fs::remove_file(&go).unwrap();
        dead.open().await;
    }
    scene.close().await;
}

#[tokio::test]
async fn a_silent_frontend_is_passed_over() {
    let (scene, mut left, right) = two_doors().await;
    let (go, on) = (
        scene.folder.path().join("go"),
        scene.folder.path().join("on"),
    );
    let rest = waiting(&on, "echo done");
    let ticket = scene.shell(&waiting(&go, &rest));
    scene.said(&ticket, "ready").await;
    left.silence();
    std::fs::write(&go, "").unwrap();
    scene.said(&ticket, "ready\nready").await;
    left.open().await;
    right.silence();
    std::fs::write(&on, "").unwrap();
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(result.outcome, Outcome::Success);
    assert_eq!(scene.frontend.console(&ticket), "ready\nready\ndone\n");
    scene.close().await;
}

#[tokio::test]
async fn a_script_goes_on_while_every_frontend_is_away() {
    let (scene, mut left, mut right) = two_doors().await;
    let folder = scene.folder.path();
    let (go, ended) = (folder.join("go"), folder.join("ended"));
    // Five million bytes of which no two pieces are alike.
    let rest = format!("seq 750000\ntouch {}", ended.display());
    let ticket = scene.shell(&waiting(&go, &rest));
    scene.said(&ticket, "ready").await;
    left.shut().await;
    right.shut().await;
    std::fs::write(&go, "").unwrap();
    appears(&ended).await;
    let spool = folder.join(format!("worker/attempts/{ticket}.1/console"));
    assert!(spool.exists());
    left.open().await;
    right.open().await;
    let result = scene.frontend.result(&ticket).await;
    let numbers = (1..=750_000).map(|number| format!("{number}\n"));
    let expected = ["ready\n".to_owned()].into_iter().chain(numbers);
    let (console, expected) = (
        scene.frontend.console(&ticket),
        expected.collect::<String>(),
    );
    assert!(expected.len() > 5_000_000);
    assert!(
        console == expected,
        "{} of {}",
        console.len(),
        expected.len()
    );
    assert_eq!(result.console_bytes, console.len() as u64);
    assert!(!spool.exists());
    scene.close().await;
}

#[tokio::test]
async fn an_attempt_that_was_given_away_meanwhile_ends_without_a_word() {
    let (scene, mut left, mut right) = two_doors().await;
    let pipe = scene.folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = "exec 3>PIPE; trap '' TERM; echo ready; setsid sleep 1000 & sleep 1000";
    let ticket = scene.shell(&script.replace("PIPE", &pipe.display().to_string()));
    // It ends when nobody is left who could write to it.
    let rest = tokio::task::spawn_blocking(move || std::fs::read(pipe).unwrap());
    scene.said(&ticket, "ready").await;
    left.shut().await;
    right.shut().await;
    scene.frontend.tell(&ticket, Standing::Lost);
    left.open().await;
    right.open().await;
    assert_eq!(rest.await.unwrap(), b"");
    let next = scene.shell("true");
    scene.frontend.result(&next).await;
    assert!(!scene.frontend.stored().reports.contains_key(&ticket));
    assert_eq!(scene.frontend.console(&ticket), "ready\n");
    scene.close().await;
}

#[tokio::test]
async fn an_append_that_is_refused_as_over_ends_the_attempt() {
    let scene = Scene::new().await;
    let go = scene.folder.path().join("go");
    let ticket = scene.shell(&waiting(&go, "echo done; sleep 1000"));
    scene.said(&ticket, "ready").await;
    scene.frontend.stored().over.insert(ticket.clone());
    std::fs::write(&go, "").unwrap();
    let next = scene.shell("true");
    scene.frontend.result(&next).await;
    assert!(!scene.frontend.stored().reports.contains_key(&ticket));
    scene.close().await;
}

#[tokio::test]
async fn a_store_that_takes_nothing_keeps_no_script_waiting() {
    let scene = Scene::new().await;
    let folder = scene.folder.path();
    let (go, ended) = (folder.join("go"), folder.join("ended"));
    let rest = format!("seq 300000\necho made > file\ntouch {}", ended.display());
    let ticket = scene.shell(&waiting(&go, &rest));
    scene.said(&ticket, "ready").await;
    scene.frontend.stored().down = true;
    std::fs::write(&go, "").unwrap();
    appears(&ended).await;
    scene.frontend.stored().down = false;
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(result.outcome, Outcome::Success);
    assert!(result.layer.is_some());
    let console = scene.frontend.console(&ticket);
    assert!(console.ends_with("\n300000\n"), "{}", console.len());
    assert_eq!(console.lines().count(), 300_001);
    scene.close().await;
}

#[tokio::test]
async fn a_claim_whose_answer_never_came_is_given_back_by_a_worker_that_stops() {
    let scene = Scene::new().await;
    scene.frontend.stored().mute = true;
    let ticket = scene.shell("true");
    let is_made = |made: &Option<_>| made.as_ref() == Some(&ticket);
    scene
        .frontend
        .until(|stored| is_made(&stored.muted).then_some(()))
        .await;
    scene.frontend.stored().mute = false;
    scene.stop.cancel();
    let report = scene.frontend.report(&ticket).await;
    assert!(matches!(report, Report::Released));
    scene.close().await;
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_found_by_asking_again() {
    let (scene, mut left, mut right) = two_doors().await;
    scene.frontend.stored().mute = true;
    let ticket = scene.shell("true");
    scene.frontend.until(|stored| stored.muted.clone()).await;
    scene.frontend.stored().mute = false;
    left.shut().await;
    right.shut().await;
    left.open().await;
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(result.outcome, Outcome::Success);
    scene.close().await;
}

#[tokio::test]
async fn a_worker_finds_a_frontend_that_comes_late() {
    let frontend = Frontend::start().await;
    let mut door = Door::to(&frontend.address).await;
    door.shut().await;
    let scene = Scene::before(frontend, vec![door.address()], |_| {});
    let ticket = scene.shell("true");
    door.open().await;
    let result = scene.frontend.result(&ticket).await;
    assert_eq!(result.outcome, Outcome::Success);
    scene.close().await;
}

#[tokio::test]
async fn no_beat_forgets_a_claim_or_a_request() {
    let scene = Scene::with(|settings| settings.slots = 3).await;
    let hold = scene.shell("echo ready; while :; do sleep 1; done");
    scene.said(&hold, "ready").await;
    scene.frontend.stored().mute = true;
    let asked_for = scene.shell("true");
    let muted = scene.frontend.until(|stored| stored.muted.clone()).await;
    assert_eq!(muted, asked_for);
    scene.frontend.stored().mute = false;
    // Each claim that comes makes a beat of its own.
    let before = scene.frontend.stored().beats;
    while scene.frontend.stored().beats < before + 5 {
        scene.done(shell("sleep 0.2")).await;
    }
    // The frontend keeps count of the claims that nobody knows of.
    scene.close().await;
}

#[tokio::test]
async fn who_only_waits_does_not_beat() {
    let scene = Scene::new().await;
    let ticket = scene.shell("true");
    scene.frontend.result(&ticket).await;
    assert_eq!(scene.frontend.stored().beats, 0);
    scene.close().await;
}
