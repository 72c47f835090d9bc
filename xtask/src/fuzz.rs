//! `cargo xtask fuzz`: the bodies that must hold for any bytes, led by what the code covers.
//!
//! Owns the instrumented build, which any stable compiler can make, and the corpus that grows in the
//! user's cache folder. The same bodies run for a moment in the tests of their crates.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::machine::Machine;
use crate::step::{run_loudly, step};

/// The targets, as the files in `fuzz/fuzz_targets` are called.
const TARGETS: [&str; 14] = [
    "agent",
    "api_body",
    "console",
    "image_layer",
    "job_file",
    "layer",
    "name",
    "parcel",
    "record",
    "refusal",
    "schedule",
    "stored_name",
    "test_report",
    "webhook",
];

/// What has the compiler count which edges of the code an input runs along. Overflows count as defects.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks";

/// Build scripts and macros, which run on this machine, are not instrumented if a target is named.
#[cfg(target_arch = "x86_64")]
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
#[cfg(target_arch = "aarch64")]
const PLATFORM: &str = "aarch64-unknown-linux-gnu";

/// `fuzz`
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only these.
    #[arg(value_name = "TARGET", value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    targets: Vec<String>,
}

pub(crate) fn run(machine: &Machine, fuzz: &Fuzz) -> Result<()> {
    let folder = machine.cache.join("fuzz");
    step("build", || {
        let line = "cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml --bins --target";
        let mut build = machine.command(&format!("{line} {PLATFORM}"));
        build
            .env("RUSTFLAGS", FLAGS)
            .env("CARGO_TARGET_DIR", &folder);
        run_loudly(&mut build)
    })?;
    let mut broken = Vec::new();
    for target in TARGETS {
        if !fuzz.targets.is_empty() && !fuzz.targets.iter().any(|wanted| wanted == target) {
            continue;
        }
        let (corpus, found) = (folder.join("corpus").join(target), folder.join("found"));
        for dir in [&corpus, &found] {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let program = folder.join(PLATFORM).join("release").join(target);
        let mut run = machine.command(&program.display().to_string());
        run.arg(&corpus)
            .arg(format!("-artifact_prefix={}/{target}-", found.display()))
            .arg(format!("-max_total_time={}", fuzz.seconds))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
        if let Err(error) = step(target, || run_loudly(&mut run)) {
            eprintln!("{error:#}");
            broken.push(target);
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!(
        "{} do not hold; the inputs are in {}",
        broken.join(", "),
        folder.join("found").display()
    )
}
