//! The gate: everything that must hold before a change lands, cheapest first.
//!
//! Stops at the first step that fails. The last line of its output is the number of tests that
//! passed and failed, in the words that continuous integration looks for; whatever could not be
//! checked is said just above it.

use std::process::{ExitCode, Stdio};
use std::time::Instant;
use std::{fs, io};

use anyhow::{Context, Result, bail};
use distci_components::shared::{self, Ending};

use crate::machine::Machine;
use crate::simulate::Beside;
use crate::step::{attempt, run_loudly, run_quietly, seconds, step, text_of};
use crate::tally::Tally;
use crate::{deny, drill, reasons, setup};

/// Where nextest reports, as `.config/nextest.toml` names it.
const REPORT: &str = "target/nextest/default/junit.xml";

/// What the gate found beside its verdict.
#[derive(Default)]
struct Findings {
    tally: Tally,
    remarks: Vec<String>,
}

/// Runs the gate and prints its verdict.
pub(crate) fn run(machine: &Machine) -> ExitCode {
    let begun = Instant::now();
    let mut findings = Findings::default();
    let verdict = gate(machine, &mut findings);
    findings.remarks.extend(end_shared_servers());
    // Repeated here because a remark made minutes ago has scrolled away.
    for remark in &findings.remarks {
        println!("!!! {remark}");
    }
    let code = match verdict {
        Ok(()) => {
            println!("The gate is green after {}.", seconds(begun.elapsed()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!(
                "The gate is RED after {}: {error:#}",
                seconds(begun.elapsed())
            );
            ExitCode::FAILURE
        }
    };
    if !findings.tally.is_empty() {
        println!("{}", findings.tally);
    }
    code
}

fn gate(machine: &Machine, findings: &mut Findings) -> Result<()> {
    step("set-up", || setup::run(machine))?;
    check_sources(machine)?;
    check_dependencies(machine, &mut findings.remarks)?;
    step("clippy", || {
        let clippy = "cargo clippy --quiet --locked --workspace --all-targets -- -Dwarnings";
        run_loudly(&mut machine.command(clippy))
    })?;
    step("documentation", || {
        let mut doc = machine.command("cargo doc --quiet --locked --workspace --no-deps");
        run_loudly(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
    })?;
    let seeds = step("the simulation begins", || Beside::start(machine))?;
    step("tests", || run_tests(machine, &mut findings.tally))?;
    step("documentation tests", || {
        run_doc_tests(machine, &mut findings.tally)
    })?;
    step("the simulation ends", || seeds.finish())?;
    drill::short(machine).context("drill")
}

/// Ends the servers that the tests shared; says so if that is not what happened.
fn end_shared_servers() -> Option<String> {
    match shared::stop() {
        Ok(Ending::NothingRan) => None,
        Ok(Ending::Stopped) => {
            println!("The tests' shared servers are stopped.");
            None
        }
        Ok(Ending::InUse) => Some("the tests' shared servers run on: others use them".to_owned()),
        Err(error) => Some(format!("the tests' shared servers: {error:#}")),
    }
}

fn check_sources(machine: &Machine) -> Result<()> {
    step("format", || {
        run_loudly(&mut machine.command("cargo fmt --all --check"))
    })?;
    step("spelling", || run_loudly(&mut machine.command("typos")))
}

fn check_dependencies(machine: &Machine, remarks: &mut Vec<String>) -> Result<()> {
    step("a reason for each dependency", || reasons::check(machine))?;
    step("no unused dependency", || {
        // Named, for the corpus of repositories holds manifests that are wrong on purpose.
        run_quietly(&mut machine.command("cargo-machete crates xtask")).map(drop)
    })?;
    step("imports, licences, sources", || deny::check_rules(machine))?;
    remarks.extend(step("advisories, where their database can be had", || {
        deny::check_advisories(machine)
    })?);
    Ok(())
}

fn run_tests(machine: &Machine, tally: &mut Tally) -> Result<()> {
    let list = "cargo nextest list --locked --workspace --cargo-quiet --message-format json";
    // What the compiler has to say goes to the screen; the list comes to us.
    let listed = attempt(machine.command(list).stderr(Stdio::inherit()))?;
    if !listed.status.success() {
        bail!("the tests do not compile");
    }
    let list = String::from_utf8(listed.stdout).context("the list of tests")?;
    *tally += Tally::skipped_in(&list)?;

    let report = machine.root.join(REPORT);
    remove_if_there(&report)?;
    let ended =
        run_loudly(&mut machine.command("cargo nextest run --locked --workspace --cargo-quiet"));
    // Counted whether or not all passed; a run that never began leaves no report, and said why.
    match fs::read_to_string(&report) {
        Ok(report) => *tally += Tally::of_junit(&report)?,
        Err(missing) if ended.is_ok() => return Err(missing).context(REPORT),
        Err(_) => {}
    }
    ended
}

fn run_doc_tests(machine: &Machine, tally: &mut Tally) -> Result<()> {
    let ended = attempt(&mut machine.command("cargo test --quiet --locked --workspace --doc"))?;
    let text = text_of(&ended);
    *tally += Tally::of_doc_tests(&text);
    if !ended.status.success() {
        print!("{text}");
        bail!("a documentation test: {}", ended.status);
    }
    Ok(())
}

fn remove_if_there(file: &std::path::Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| file.display().to_string())
        }
        _ => Ok(()),
    }
}
