//! Seeds of the simulation that are run at each change, and the proof that it would find what is wrong.

use std::io;
use std::process::{Command, Output};

/// A few; the gate runs ten thousand beside its tests.
const SEEDS: u64 = 8;
/// In so many seeds a defect of the store has to be found at least once.
const ENOUGH: u64 = 6;

fn simulate(from: u64, seeds: u64, more: &[&str]) -> io::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distci-simulation"));
    command.args(["--from", &from.to_string(), "--seeds", &seeds.to_string()]);
    command.args(more).output()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn whatever_happens_to_a_cluster_it_keeps_its_promises() {
    let output = simulate(0, SEEDS, &[]).unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 5] {
        // Without the line that says how long it took.
        let story = || {
            let told = told(&simulate(seed, 1, &["--story"]).unwrap());
            let (story, _) = told.split_once("1 seeds").unwrap();
            story.to_owned()
        };
        let first = story();
        assert!(first.lines().count() > 50, "{first}");
        assert!(first == story(), "seed {seed} has two stories");
    }
}

#[test]
fn a_store_that_looks_at_no_versions_is_found_out() {
    let output = simulate(0, ENOUGH, &["--defect", "no-checks"]).unwrap();
    assert!(!output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("not so: "), "{}", told(&output));
}

#[test]
fn a_store_that_forgets_what_it_acknowledged_is_found_out() {
    let output = simulate(0, ENOUGH, &["--defect", "forgetful"]).unwrap();
    assert!(!output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("not so: "), "{}", told(&output));
}
