//! `cargo xtask cluster`: a whole DistCI on this machine, as it would run on many.
//!
//! Owns a folder with three ZooKeeper servers, a Ceph, and `distci`: frontends that share the two,
//! and workers that know all frontends. What is stopped keeps its data.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use distci_components::{Daemon, Daemons, S3Access, take_ports};
use serde_json::json;

use crate::components::{self, OTHER_PORTS, Place, Plan};
use crate::machine::Machine;
use crate::step::{attempt, step, text_of};

/// How long a frontend may take until it is ready.
const PATIENCE: Duration = Duration::from_mins(1);

/// The files with the secrets.
pub(crate) const TOKEN: &str = "token";
const SECRET: &str = "s3-secret";

/// What to do with the cluster.
#[derive(Subcommand)]
pub(crate) enum Deed {
    /// Start what does not run, and print how to use it.
    Up(Up),
    /// Stop what runs; its data stays in the folder.
    Down(Place),
    /// Print what runs.
    Status(Place),
}

/// `cluster up`
#[derive(Args)]
pub(crate) struct Up {
    #[command(flatten)]
    place: Place,
    /// Frontends.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    frontends: u16,
    /// Workers, of two slots each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=64))]
    workers: u16,
    /// First of the ports [default: any that are free].
    #[arg(long, value_name = "BASE", value_parser = clap::value_parser!(u16).range(1..65_000))]
    port: Option<u16>,
    /// The program, instead of a release build of this work tree.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub(crate) fn run(machine: &Machine, deed: Deed) -> Result<()> {
    match deed {
        Deed::Up(up) => self::up(machine, &up),
        Deed::Down(place) => down(machine, &place.dir_or(machine, "cluster")),
        Deed::Status(place) => status(machine, &place.dir_or(machine, "cluster")),
    }
}

fn up(machine: &Machine, up: &Up) -> Result<()> {
    let dir = up.place.dir_or(machine, "cluster");
    let binary = match &up.binary {
        Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
        None => step("build", || build(machine, "release"))?,
    };
    let plan = Plan {
        zookeeper: 3,
        osds: 1,
        gateways: 2,
        port: up.port,
    };
    let (zookeeper, s3) = components::up(&dir, &plan)?;
    let program = Program::in_folder(machine, &dir)?;
    step("frontends", || {
        program.start_frontends(up, &binary, &zookeeper, &s3)
    })?;
    step("workers", || program.start_workers(up.workers, &binary))?;
    println!();
    components::print_access(&zookeeper, &s3);
    print_all(&dir, &program)?;
    program.print_usage(&binary)
}

fn down(machine: &Machine, dir: &Path) -> Result<()> {
    if program_in(dir).is_dir() {
        let program = Program::in_folder(machine, dir)?;
        // Workers give their tasks back as long as there are frontends to take them.
        for kind in ["worker-", "frontend-"] {
            let running = program.running(kind)?;
            running.iter().try_for_each(Daemon::stop)?;
            println!("Stopped {} processes {kind}*.", running.len());
        }
    }
    components::down(dir)
}

fn status(machine: &Machine, dir: &Path) -> Result<()> {
    if !program_in(dir).is_dir() {
        println!("There is no cluster in {}.", dir.display());
        return Ok(());
    }
    print_all(dir, &Program::in_folder(machine, dir)?)
}

fn print_all(dir: &Path, program: &Program) -> Result<()> {
    let mut all = components::daemons(dir)?;
    all.extend(program.running("")?);
    components::print_daemons(&all);
    Ok(())
}

fn program_in(dir: &Path) -> PathBuf {
    dir.join("distci")
}

/// Builds the program in a profile (users have `release`), and returns where it is.
pub(crate) fn build(machine: &Machine, profile: &str) -> Result<PathBuf> {
    build_program(machine, "distci", profile)
}

/// Builds the program of a package in a profile, and returns where it is.
pub(crate) fn build_program(machine: &Machine, package: &str, profile: &str) -> Result<PathBuf> {
    let line = "cargo build --locked --message-format json";
    let line = format!("{line} --package {package} --profile {profile}");
    let built = attempt(machine.command(&line).stderr(Stdio::inherit()))?;
    if !built.status.success() {
        bail!("the program does not compile");
    }
    let said = String::from_utf8(built.stdout)?;
    let messages = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let executable = |message: serde_json::Value| Some(message["executable"].as_str()?.into());
    let found = messages.filter_map(executable).next_back();
    found.context("cargo names no program")
}

/// The processes of the program in a cluster's folder.
struct Program {
    daemons: Daemons,
    root: PathBuf,
}

impl Program {
    fn in_folder(machine: &Machine, dir: &Path) -> Result<Self> {
        let dir = program_in(dir);
        // It holds the token and the key of the objects.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.with_context(|| dir.display().to_string())?;
        let daemons = Daemons::in_folder(&dir)?;
        let root = machine.root.clone();
        Ok(Self { daemons, root })
    }

    /// Those that run, of the names that start so.
    fn running(&self, kind: &str) -> Result<Vec<Daemon>> {
        let mut all = self.daemons.all()?;
        all.retain(|daemon| daemon.name().starts_with(kind) && daemon.pid().is_some());
        Ok(all)
    }

    fn start_frontends(
        &self,
        up: &Up,
        binary: &Path,
        zookeeper: &str,
        s3: &S3Access,
    ) -> Result<()> {
        keep_secrets(self.daemons.dir(), s3)?;
        let mut urls = self.urls()?;
        for number in urls.len()..usize::from(up.frontends) {
            let base = match up.port {
                Some(port) => Some(port + OTHER_PORTS + u16::try_from(number)?),
                None => None,
            };
            let ports = take_ports(base, 1)?;
            urls.extend(ports.iter().map(|port| format!("http://127.0.0.1:{port}")));
        }
        for (number, url) in (1..).zip(&urls) {
            let name = format!("frontend-{number}");
            let config = self.path(&format!("{name}.toml"));
            let address = url.trim_start_matches("http://");
            fs::write(
                &config,
                configuration(self.daemons.dir(), address, zookeeper, s3),
            )?;
            let config = config.display().to_string();
            self.start(&name, binary, &["frontend", "--config", &config])?;
        }
        for (number, url) in (1..).zip(&urls) {
            wait_until_ready(&self.daemons.get(&format!("frontend-{number}")), url)?;
        }
        Ok(())
    }

    fn start_workers(&self, workers: u16, binary: &Path) -> Result<()> {
        let (urls, token) = (
            self.urls()?.join(","),
            self.path("token").display().to_string(),
        );
        for number in 1..=workers {
            let name = format!("worker-{number}");
            let dir = self.path(&name).display().to_string();
            let words = [
                "worker",
                "--url",
                &urls,
                "--token-file",
                &token,
                "--dir",
                &dir,
            ];
            self.start(
                &name,
                binary,
                &[&words[..], &["--slots", "2", "--name", &name]].concat(),
            )?;
        }
        // A wrong argument ends a worker at once.
        sleep(Duration::from_millis(500));
        (1..=workers)
            .map(|number| self.daemons.get(&format!("worker-{number}")))
            .try_for_each(|worker| worker.require_running())
    }

    /// Always by its present command: the program may have moved since the last time.
    fn start(&self, name: &str, binary: &Path, words: &[&str]) -> Result<()> {
        // A repository "." of an example is this work tree.
        let daemon = self.daemons.get(name).working_in(&self.root);
        if daemon.pid().is_some() {
            return Ok(());
        }
        let words = words.iter().map(|&word| word.to_owned());
        let command: Vec<_> = std::iter::once(binary.display().to_string())
            .chain(words)
            .collect();
        daemon.start(&command)
    }

    /// The addresses of all frontends, as their configurations have them.
    fn urls(&self) -> Result<Vec<String>> {
        let mut urls = Vec::new();
        for number in 1.. {
            let config = self.path(&format!("frontend-{number}.toml"));
            let Ok(text) = fs::read_to_string(&config) else {
                break;
            };
            let address = text
                .split('"')
                .nth(1)
                .context("a configuration without address")?;
            urls.push(format!("http://{address}"));
        }
        Ok(urls)
    }

    fn print_usage(&self, binary: &Path) -> Result<()> {
        let urls = self.urls()?;
        println!("\nFrontends  {}", urls.join(" "));
        println!("Token      {}\n", self.path("token").display());
        println!("    export DISTCI_URL={}", urls.join(","));
        println!(
            "    export DISTCI_TOKEN_FILE={}",
            self.path("token").display()
        );
        println!("    alias distci={}", binary.display());
        println!("    distci workers");
        println!("    distci job set examples/hello.json");
        println!("    distci trigger hello --follow\n");
        println!("Kill any of the processes meanwhile; `cargo xtask cluster up` starts it again,");
        println!("and `cargo xtask cluster down` stops all of them.");
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.daemons.dir().join(name)
    }
}

/// The configuration of a frontend whose secrets are in a folder.
pub(crate) fn configuration(dir: &Path, address: &str, zookeeper: &str, s3: &S3Access) -> String {
    // Strings and lists of JSON are TOML, too.
    let hosts = json!(zookeeper.split(',').collect::<Vec<_>>());
    let (token, secret) = (json!(dir.join(TOKEN)), json!(dir.join(SECRET)));
    let S3Access {
        endpoints,
        bucket,
        region,
        access_key,
        ..
    } = s3;
    let (endpoints, bucket) = (json!(endpoints), json!(bucket));
    let (region, access_key) = (json!(region), json!(access_key));
    format!(
        "listen = [\"{address}\"]\n\
         token-file = {token}\n\n\
         [zookeeper]\n\
         hosts = {hosts}\n\
         chroot = \"/distci\"\n\
         session-timeout = 10\n\n\
         [s3]\n\
         endpoints = {endpoints}\n\
         bucket = {bucket}\n\
         region = {region}\n\
         access-key = {access_key}\n\
         secret-key-file = {secret}\n\
         signed-urls = true\n"
    )
}

/// Writes the secrets into a folder, unless they are there: who has them goes on using them.
pub(crate) fn keep_secrets(dir: &Path, s3: &S3Access) -> Result<()> {
    for (name, secret) in [(TOKEN, &random()?), (SECRET, &s3.secret_key)] {
        let path = dir.join(name);
        if path.exists() {
            continue;
        }
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path);
        let mut file = file.with_context(|| path.display().to_string())?;
        writeln!(file, "{secret}")?;
    }
    Ok(())
}

/// Waits until a frontend serves. Errors: it ended, or does not serve within a minute.
pub(crate) fn wait_until_ready(daemon: &Daemon, url: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--max-time", "5"]);
        let asked = attempt(curl.arg(format!("{url}/readyz")))?;
        if asked.status.success() {
            return Ok(());
        }
        daemon.require_running()?;
        if Instant::now() > end {
            bail!(
                "{} is not ready: {}\n{}",
                daemon.name(),
                text_of(&asked),
                daemon.log_tail()
            );
        }
        sleep(Duration::from_millis(100));
    }
}

/// 244 random bits, by the kernel.
fn random() -> Result<String> {
    let mut text = String::new();
    for _ in 0..2 {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        text.extend(id.trim().chars().filter(|&letter| letter != '-'));
    }
    Ok(text)
}
