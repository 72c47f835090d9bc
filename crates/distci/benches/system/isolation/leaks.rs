//! What tasks leave on the machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use distci_components::traces;

/// Where tools and drivers keep files, and what the kernel has of everybody.
const FOLDERS: [&str; 7] = [
    "/run/distci",
    "/run/distci/addresses",
    "/run/lxc",
    "/run/netns",
    "/tmp",
    "/sys/class/net",
    "/sys/block",
];
/// How long others may take to remove what they made meanwhile, and the kernel what died.
const PATIENCE: Duration = Duration::from_mins(1);

/// What there was before.
pub(super) struct Leaks {
    /// In the path of everything that is ours.
    folder: PathBuf,
    before: BTreeSet<String>,
}

impl Leaks {
    /// Looks at the machine before tasks run whose folders are in `folder`.
    pub(super) fn before(folder: &Path) -> Self {
        let leaks = Self {
            folder: folder.to_owned(),
            before: BTreeSet::new(),
        };
        Self {
            before: leaks.now(),
            ..leaks
        }
    }

    /// What is there now that was not there before and does not go away, in words.
    pub(super) async fn after(&self) -> String {
        let mut left: BTreeSet<String> = &self.now() - &self.before;
        let begun = Instant::now();
        while !left.is_empty() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(100)).await;
            left = &left & &self.now();
        }
        if left.is_empty() {
            return "none".to_owned();
        }
        // Others may be at work on the machine: the reader has to judge.
        left.into_iter().collect::<Vec<_>>().join("<br>")
    }

    fn now(&self) -> BTreeSet<String> {
        let mut now = BTreeSet::new();
        for name in ["bench-tmp", &self.folder.display().to_string()] {
            now.extend(traces(name));
        }
        let own = self.folder.to_string_lossy();
        for folder in FOLDERS.into_iter().chain([own.as_ref()]) {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            now.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        now
    }
}
