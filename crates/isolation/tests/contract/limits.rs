//! What a task may take, what it gets told, and what is counted.

use distci_isolation::{Ended, Excess, Terms};
use distci_model::isolation::{Cpus, Size};

use crate::scene::{Scene, Subject};

const MEMORY: u64 = 96 << 20;

pub(crate) async fn memory(subject: &Subject) {
    // Enough for a shell, and soon filled by a slow one.
    let least = 24 << 20;
    let terms = Terms {
        memory: Size::from_bytes(least.max(MEMORY / subject.scale as u64)),
        ..subject.terms()
    };
    let (finished, text) = Scene::run(subject, &terms, "echo modest").await;
    assert_eq!(
        (finished.ended, text.as_str()),
        (Ended::Exit(0), "modest\n")
    );
    assert_eq!(finished.excess, Excess::default());
    let greedy = "x=$(head -c 400000000 /dev/zero | tr '\\0' x); echo ${#x}";
    let (finished, text) = Scene::run(subject, &terms, greedy).await;
    assert_ne!(text, "400000000\n");
    assert!(finished.excess.memory, "{finished:?} {text}");
}

pub(crate) async fn processes(subject: &Subject) {
    let terms = Terms {
        processes: Some(40),
        ..subject.terms()
    };
    let (finished, _) = Scene::run(subject, &terms, "sleep 0.01 & sleep 0.01 & wait").await;
    assert_eq!(
        (finished.ended, finished.excess),
        (Ended::Exit(0), Excess::default())
    );
    let greedy = "i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; exit 0";
    let (finished, text) = Scene::run(subject, &terms, greedy).await;
    assert!(finished.excess.processes, "{finished:?} {text}");
}

/// Half of a processor is at most half of the time.
pub(crate) async fn cpus(subject: &Subject) {
    let terms = Terms {
        cpus: Cpus::from_thousandths(300),
        ..subject.terms()
    };
    let begun = std::time::Instant::now();
    let rounds = 300_000 / subject.scale;
    let script = format!("i=0; while [ $i -lt {rounds} ]; do i=$((i+1)); done");
    let (finished, text) = Scene::run(subject, &terms, &script).await;
    let (took, used) = (
        begun.elapsed().as_millis(),
        u128::from(finished.usage.cpu_ms),
    );
    assert_eq!(finished.ended, Ended::Exit(0), "{text}");
    assert!(used * 10 <= took * 5, "{used} ms of processor in {took} ms");
}

pub(crate) async fn fork_bomb(subject: &Subject) {
    let terms = Terms {
        processes: Some(60),
        memory: Size::from_bytes(2 * MEMORY),
        ..subject.terms()
    };
    let bomb = "f() { f | f & }; f; sleep 1; exit 4";
    let (finished, _) = Scene::run(subject, &terms, bomb).await;
    assert!(
        finished.excess.processes || finished.excess.memory,
        "{finished:?}"
    );
}

pub(crate) async fn usage(subject: &Subject) {
    let rounds = 100_000 / subject.scale;
    let script = format!(
        "i=0; while [ $i -lt {rounds} ]; do i=$((i+1)); done; \
         dd if=/dev/zero of=big bs=1M count=8 conv=fsync 2>/dev/null"
    );
    let (finished, _) = Scene::run(subject, &subject.terms(), &script).await;
    assert!(finished.usage.cpu_ms > 0, "{finished:?}");
    assert!(finished.usage.memory_peak > 100_000, "{finished:?}");
    assert!(finished.usage.written >= 8 << 20, "{finished:?}");
}
