//! Every world is explored wholly, and every planted defect is found.

#![expect(
    clippy::print_stdout,
    reason = "the size of what was explored is part of the proof"
)]

use anyhow::{Context, Result, ensure};
use distci_proof::Defect;
use distci_proof::laws;
use distci_proof::prove::{find, prove};
use distci_proof::watch;
use distci_proof::worlds::{self, Size, World};

fn world(name: &str) -> Result<World> {
    let mut worlds = worlds::all(Size::Small).into_iter();
    let found = worlds.find(|world| world.name == name);
    found.context("there is no such world")
}

/// Proves a world, and prints how large it is.
fn holds(name: &str) -> Result<()> {
    match prove(&world(name)?) {
        Ok(proved) => println!("{proved}"),
        Err(broken) => anyhow::bail!("{broken}"),
    }
    Ok(())
}

/// Makes sure that a planted defect breaks this law in this world.
fn breaks(defect: Defect, law: &str, name: &str) -> Result<()> {
    let broken = find(defect, &world(name)?);
    let broken = broken.with_context(|| format!("{defect:?} was not found"))?;
    ensure!(broken.law == law, "another law: {broken}");
    println!("{defect:?} in {} steps: {law}", broken.way.len());
    Ok(())
}

macro_rules! worlds {
    ($($test:ident: $name:literal;)*) => {
        $(#[test]
        fn $test() -> Result<()> {
            holds($name)
        })*

        #[test]
        fn no_world_is_left_out() {
            let names: Vec<_> = worlds::all(Size::Small).iter().map(|it| it.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

worlds! {
    one_task: "one task";
    tasks_in_a_row: "tasks in a row";
    tasks_beside_each_other: "tasks beside each other";
    a_task_that_fails: "a task that fails";
    a_build_that_is_cancelled: "a build that is cancelled";
    frontends_that_lag: "frontends that lag";
    a_lock: "a lock";
    one_build_at_a_time: "one build at a time";
    the_newest_build_only: "the newest build only";
    builds_downstream: "builds downstream";
    requests: "requests";
    schedules: "schedules";
}

macro_rules! defects {
    ($($test:ident: $defect:ident in $name:literal breaks $law:ident;)*) => {
        $(#[test]
        fn $test() -> Result<()> {
            breaks(Defect::$defect, laws::$law, $name)
        })*

        #[test]
        fn no_defect_is_left_out() {
            assert_eq!(Defect::ALL, [$(Defect::$defect),*]);
        }
    };
}

defects! {
    parking_without_a_look_at_the_mailbox: NoMailboxCheck in "frontends that lag" breaks ASLEEP;
    completing_without_a_look_at_the_build: NoParentCheck in "tasks beside each other" breaks ASLEEP;
    completing_without_ringing: NoRing in "tasks beside each other" breaks ASLEEP;
    a_result_of_any_attempt: Unfenced in "one task" breaks STALE_RESULT;
    claiming_whatever_version: ClaimWithoutVersion in "one task" breaks NAMES;
    posting_tasks_apart_from_the_decision: ChildrenApart in "tasks beside each other" breaks CHILDREN;
    consuming_tasks_apart_from_the_decision: ConsumedApart in "tasks beside each other" breaks CHILDREN;
    taking_locks_apart_from_the_claim: LockOutsideTheClaim in "a lock" breaks SLOTS;
    keeping_locks_after_the_claim: LockKept in "a lock" breaks SLOTS;
    numbering_whatever_version: NumberWithoutVersion in "requests" breaks NUMBERS;
    triggering_apart_from_the_decision: TriggersApart in "builds downstream" breaks DOWNSTREAM;
    firing_whatever_version: FireWithoutVersion in "schedules" breaks NUMBERS;
    cancelling_without_ringing: CancelWithoutRing in "a build that is cancelled" breaks ASLEEP;
    expiring_whatever_version: ExpiryWithoutVersion in "a lock" breaks NAMES;
}

#[test]
fn the_watch_over_a_claim() -> Result<()> {
    for watching in watch::all(Size::Small) {
        match watch::prove(&watching) {
            Ok(proved) => println!("{proved}"),
            Err(broken) => anyhow::bail!("{broken}"),
        }
    }
    Ok(())
}

#[test]
fn rules_that_are_not_enough() -> Result<()> {
    for (name, rules) in watch::PLANTED {
        let broken = watch::prove(&watch::small(rules)).err();
        let broken = broken.with_context(|| format!("{name}: was not found"))?;
        ensure!(broken.law == laws::HEALTHY, "another law: {broken}");
        println!("{name}, in {} steps: {}", broken.way.len(), broken.law);
    }
    Ok(())
}
