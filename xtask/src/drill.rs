//! `cargo xtask drill`: a whole cluster of network namespaces on this machine, for `distci drill`.
//!
//! Owns the cluster: three ZooKeeper servers, a Ceph, three frontends and workers, each in a network
//! namespace of its own, and the file of faults that can be done to it. Everything happens in a network,
//! mount and process namespace that are made for it, so nothing of it can be left behind, however this
//! ends. The drill itself is the program's.

mod faults;
mod lan;
mod site;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cluster::{self, TOKEN};
use crate::drill::lan::Lan;
use crate::drill::site::Site;
use crate::machine::Machine;
use crate::step::step;

/// `drill`
#[derive(Args)]
pub(crate) struct Drill {
    /// How long to hurt the cluster, such as 90s, 15m or 2h.
    #[arg(long = "for", value_name = "TIME", default_value = "3m")]
    lasts: String,
    /// Draws the order of faults and builds [default: another each time].
    #[arg(long)]
    seed: Option<u64>,
    /// Workers; one in five decides about builds, the others run tasks.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(5..=200))]
    workers: u8,
    /// Also write the report to a file, as Markdown.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The program, instead of a release build of this work tree.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The folder, once the namespaces are made.
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// Three minutes of a drill with the program as the tests have built it: the same faults in the same
/// order each time, for a gate that is red must be red again. Longer ones draw others.
pub(crate) fn short(machine: &Machine) -> Result<()> {
    let drill = Drill {
        lasts: "3m".to_owned(),
        seed: Some(1),
        workers: 20,
        report: None,
        binary: Some(cluster::build(machine, "dev")?),
        inside: None,
    };
    ensure!(
        run(machine, &drill)? == ExitCode::SUCCESS,
        "a promise was broken"
    );
    Ok(())
}

pub(crate) fn run(machine: &Machine, drill: &Drill) -> Result<ExitCode> {
    match &drill.inside {
        Some(dir) => inside(machine, drill, dir),
        None => outside(machine, drill),
    }
}

/// Makes the namespaces and does the rest in them.
fn outside(machine: &Machine, drill: &Drill) -> Result<ExitCode> {
    let binary = match &drill.binary {
        Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
        None => step("build", || cluster::build(machine, "release"))?,
    };
    let dir = machine.cache.join(format!("drill-{}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let mut command = Command::new("unshare");
    command
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        // The first process of a namespace inherits its orphans: a shell takes leave of them.
        .args(["sh", "-c", r#""$@"; exit $?"#, "sh"])
        .arg(env::current_exe()?)
        .args(["drill", "--for", &drill.lasts])
        .args(["--workers", &drill.workers.to_string()])
        .arg("--binary")
        .arg(binary)
        .arg("--inside")
        .arg(&dir);
    if let Some(seed) = drill.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(report) = &drill.report {
        command.arg("--report").arg(std::path::absolute(report)?);
    }
    let status = command.status().context("unshare")?;
    if status.success() {
        fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("The logs of all processes are in {}.", dir.display());
    Ok(ExitCode::FAILURE)
}

fn inside(machine: &Machine, drill: &Drill, dir: &Path) -> Result<ExitCode> {
    let binary = drill.binary.as_deref().context("no program")?;
    let lan = step("network", Lan::make)?;
    let site = Site::build(&lan, dir, binary, usize::from(drill.workers))?;
    let faults = dir.join("faults.json");
    let text = serde_json::to_string_pretty(&faults::of(&site)?)?;
    fs::write(&faults, text).with_context(|| faults.display().to_string())?;
    let mut command = Command::new(binary);
    command
        .arg("drill")
        .args(["--for", &drill.lasts, "--clients", "16"])
        .arg("--faults")
        .arg(&faults)
        .arg("--history")
        .arg(dir.join("history.json"))
        .env("DISTCI_URL", site.urls().join(","))
        .env("DISTCI_TOKEN_FILE", site.dir().join(TOKEN))
        .current_dir(&machine.root);
    if let Some(seed) = drill.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(report) = &drill.report {
        command.arg("--report").arg(report);
    }
    let clean = step("drill", || {
        Ok(command.status().context("the program")?.success())
    })?;
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
