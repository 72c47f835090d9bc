//! The stage of a law: the folders of an attempt, a driver, and a look at what is left behind.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use distci_components::{processes, traces};
use distci_isolation::{
    Cell, Command, Ended, Error, Finished, Image, Isolation, Output, Place, Site, Stop, Terms,
};
use distci_model::isolation::Network;
use tempfile::TempDir;

/// The command that is the supervisor in these tests.
pub(crate) fn supervisor() -> Vec<OsString> {
    vec![program().into(), "supervise".into()]
}

/// The program of these tests.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_distci-isolation-test")
}

/// A driver, and what it promises.
pub(crate) struct Subject {
    pub(crate) isolation: Box<dyn Isolation>,
    /// What it makes its cells from.
    pub(crate) image: Option<Image>,
    /// The networks that it knows. The others it must refuse.
    pub(crate) networks: &'static [Network],
    /// How often a law may ask for the slow and large: 1 for all of it.
    pub(crate) scale: usize,
    /// How many cells are to leave nothing, one after the other.
    pub(crate) many: usize,
}

impl Subject {
    /// Whether what runs in a cell sees nothing of the machine.
    pub(crate) fn hides_the_machine(&self) -> bool {
        self.image.is_some()
    }

    pub(crate) fn terms(&self) -> Terms {
        Terms {
            image: self.image.clone(),
            network: self.networks[0],
            ..Terms::default()
        }
    }
}

/// The folders of one attempt.
pub(crate) struct Scene {
    _folder: TempDir,
    pub(crate) site: Site,
}

/// Everything that a command printed.
#[derive(Default)]
pub(crate) struct Printed(pub(crate) Vec<u8>);

#[async_trait]
impl Output for Printed {
    async fn take(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

impl Printed {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Nobody wants it to end.
pub(crate) fn never<'a>() -> Stop<'a> {
    Box::pin(std::future::pending())
}

impl Scene {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = TempDir::new().unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Numbers of processes come again; what an earlier test left must not be taken for ours.
        let unique = folder.path().file_name().unwrap().to_string_lossy();
        let unique = unique.trim_start_matches('.');
        let name = format!("test-{unique}-{count:03}");
        let site = Self::site(folder.path(), name);
        Self {
            _folder: folder,
            site,
        }
    }

    /// The folders of the attempt `name`, made below `root`.
    pub(crate) fn site(root: &Path, name: String) -> Site {
        let make = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        Site {
            folder: make("cell"),
            workspace: make("workspace"),
            temporary: make("tmp"),
            files: make("files"),
            key: root.into(),
            name,
        }
    }

    pub(crate) async fn open(&self, subject: &Subject, terms: &Terms) -> Box<dyn Cell> {
        let opened = subject.isolation.open(&self.site, terms).await;
        opened.unwrap_or_else(|error| panic!("the cell cannot be opened: {error}"))
    }

    /// One script in a cell of its own; afterwards nothing may be left.
    pub(crate) async fn run(subject: &Subject, terms: &Terms, script: &str) -> (Finished, String) {
        let scene = Self::new();
        let done = scene.play(subject, terms, script).await;
        scene.assert_clean();
        done
    }

    pub(crate) async fn play(
        &self,
        subject: &Subject,
        terms: &Terms,
        script: &str,
    ) -> (Finished, String) {
        let cell = self.open(subject, terms).await;
        let (finished, printed) = run(cell.as_ref(), script, never()).await;
        cell.close().await.unwrap();
        (finished.unwrap(), printed.text())
    }

    /// Nothing of the cell is left on the machine: no process, mount, group or file.
    pub(crate) fn assert_clean(&self) {
        let left = self.left();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// The same, once those who clean up without being waited for have done so.
    pub(crate) async fn becomes_clean(&self) {
        let patience = Instant::now() + Duration::from_mins(1);
        while !self.left().is_empty() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.assert_clean();
    }

    fn left(&self) -> Vec<String> {
        let root = self.root().display().to_string();
        let mut left = traces(&root);
        left.extend(traces(&self.site.name));
        let leases = fs::read_dir("/run/distci/addresses").into_iter().flatten();
        let leases = leases.flatten().map(|lease| lease.path());
        let held =
            leases.filter(|lease| fs::read_to_string(lease).is_ok_and(|by| by.contains(&root)));
        left.extend(held.map(|lease| format!("lease {}", lease.display())));
        left
    }

    /// The processes that belong to the attempt: by their key, or because their command names it.
    pub(crate) fn processes(&self) -> Vec<String> {
        processes(&self.root().display().to_string())
    }

    fn root(&self) -> &Path {
        self.site.workspace.parent().unwrap()
    }
}

/// Runs a script in the workspace of a cell.
pub(crate) async fn run(
    cell: &dyn Cell,
    script: &str,
    stop: Stop<'_>,
) -> (Result<Finished, Error>, Printed) {
    let mut printed = Printed::default();
    let command = command(cell, &["sh", "-c", script]);
    let finished = cell.run(&command, &mut printed, stop).await;
    (finished, printed)
}

pub(crate) fn command(cell: &dyn Cell, argv: &[&str]) -> Command {
    let path: PathBuf = cell.path(Place::Temporary);
    Command {
        argv: argv.iter().map(OsString::from).collect(),
        directory: cell.path(Place::Workspace),
        env: vec![
            ("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("TMPDIR".into(), path.into()),
        ],
    }
}

/// Whether it ended by that signal, as a shell would tell it or as the kernel does.
pub(crate) fn is_signal(ended: &Ended, signal: u8) -> bool {
    *ended == Ended::Signal(signal) || *ended == Ended::Exit(128 + signal)
}
