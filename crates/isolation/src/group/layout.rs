//! How a machine has its control groups: in one hierarchy, in many, or in both ways at once.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::Folder;

/// What a hierarchy counts and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Controller {
    /// Memory.
    Memory,
    /// The number of processes and threads.
    Pids,
    /// A share of the processors.
    Cpu,
    /// Processor time.
    CpuAccounting,
}

/// Below which group others are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// That in which this process is.
    Own,
    /// The topmost, which a daemon finds by the same name in every hierarchy.
    Top,
}

impl Controller {
    const ALL: [Self; 4] = [Self::Memory, Self::Pids, Self::Cpu, Self::CpuAccounting];

    /// Its name in the old form; in the new one `cpu` counts too.
    fn old_name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::CpuAccounting => "cpuacct",
        }
    }

    fn new_name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu | Self::CpuAccounting => "cpu",
        }
    }
}

/// The hierarchies of a machine in which this process may make groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    hierarchies: Vec<Hierarchy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    controllers: Vec<Controller>,
    unified: bool,
    /// The group that this process is in.
    home: PathBuf,
    /// The group below which it makes others.
    base: PathBuf,
}

impl Layout {
    /// Looks, and makes the groups below which others are made.
    pub(crate) fn find(place: Place) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let mut hierarchies = Vec::new();
        let mut trouble = io::Error::other("this machine has none mounted");
        for mount in mounts.lines().filter_map(Mount::parse) {
            let entered = match place {
                Place::Own => mount.enter(&own),
                Place::Top => mount.enter_top().map(Some),
            };
            match entered {
                Ok(Some(hierarchy)) => hierarchies.push(hierarchy),
                Ok(None) => {}
                Err(error) => trouble = error,
            }
        }
        if hierarchies.is_empty() {
            return Err(trouble);
        }
        Ok(Self { hierarchies })
    }

    /// The folders of the group `name`.
    pub(crate) fn folders(&self, name: &str) -> Vec<Folder> {
        let folder = |hierarchy: &Hierarchy| Folder {
            controllers: hierarchy.controllers.clone(),
            unified: hierarchy.unified,
            path: hierarchy.base.join(name),
            home: hierarchy.home.clone(),
        };
        self.hierarchies.iter().map(folder).collect()
    }
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// What of the hierarchy is mounted.
    root: String,
    point: PathBuf,
    unified: bool,
    /// The words by which the old form tells its hierarchies apart.
    options: Vec<String>,
}

impl Mount {
    /// A line of `mountinfo` (proc(5)), if it is of control groups.
    fn parse(line: &str) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut kind = kind.split(' ');
        let unified = match kind.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options = kind.nth(1)?.split(',').map(str::to_owned).collect();
        Some(Self {
            root: root.to_owned(),
            point: point.into(),
            unified,
            options,
        })
    }

    /// The hierarchy, with the group for our groups made. `None` if it is of no use.
    fn enter(&self, own: &str) -> io::Result<Option<Hierarchy>> {
        let Some(home) = self.home(own) else {
            return Ok(None);
        };
        if self.unified {
            return enter_unified(&home);
        }
        let has = |controller: &Controller| {
            let name = controller.old_name();
            self.options.iter().any(|option| option == name)
        };
        let controllers: Vec<Controller> = Controller::ALL.into_iter().filter(has).collect();
        if controllers.is_empty() {
            return Ok(None);
        }
        let base = make(&home, "distci")?;
        Ok(Some(Hierarchy {
            controllers,
            unified: false,
            home,
            base,
        }))
    }

    /// The hierarchy, with a group for our groups below its topmost. All hierarchies are of use: what
    /// others make below our groups in them has to be removed.
    fn enter_top(&self) -> io::Result<Hierarchy> {
        let offered = fs::read_to_string(self.point.join("cgroup.controllers"));
        let offered = offered.unwrap_or_default();
        let has = |controller: &Controller| {
            if self.unified {
                offered
                    .split_whitespace()
                    .any(|name| name == controller.new_name())
            } else {
                let name = controller.old_name();
                self.options.iter().any(|option| option == name)
            }
        };
        let all = Controller::ALL.into_iter();
        let controllers: Vec<Controller> = all.filter(has).collect();
        let base = make(&self.point, "distci")?;
        if self.unified {
            for group in [&self.point, &base] {
                offer(group, &controllers)?;
            }
        }
        Ok(Hierarchy {
            controllers,
            unified: self.unified,
            home: self.point.clone(),
            base,
        })
    }

    /// The folder of the group in which the process is whose `/proc/self/cgroup` is `own`.
    fn home(&self, own: &str) -> Option<PathBuf> {
        let mut lines = own.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        });
        let (_, path) = lines.find(|(controllers, _)| {
            if self.unified {
                return controllers.is_empty();
            }
            let mut names = controllers.split(',').filter(|name| !name.is_empty());
            names.any(|name| self.options.iter().any(|option| option == name))
        })?;
        // In a container the mount may show only a part of the hierarchy.
        let below = path.strip_prefix(self.root.trim_end_matches('/'));
        let home = self
            .point
            .join(below.unwrap_or(path).trim_start_matches('/'));
        Some(if home.is_dir() {
            home
        } else {
            self.point.clone()
        })
    }
}

/// In the new form a group has members or children that are controlled, never both: this process
/// moves aside, into a group below its own. Where all controllers have the old form, there is nothing
/// to control here. It could still kill a whole group at once, but every command would have to be
/// moved into it, for which the kernel waits some 10 ms.
fn enter_unified(home: &Path) -> io::Result<Option<Hierarchy>> {
    let offered = fs::read_to_string(home.join("cgroup.controllers"))?;
    let offered: Vec<&str> = offered.split_whitespace().collect();
    let has = |controller: &Controller| offered.contains(&controller.new_name());
    let controllers: Vec<Controller> = Controller::ALL.into_iter().filter(has).collect();
    if controllers.is_empty() {
        return Ok(None);
    }
    // Begun again, this process may be where an earlier one of its service moved to.
    let top = match home.file_name() {
        Some(name) if name == "distci-worker" => home.parent().unwrap_or(home),
        _ => home,
    };
    let aside = make(top, "distci-worker")?;
    fs::write(aside.join("cgroup.procs"), "0")?;
    let base = make(top, "distci")?;
    for group in [top, &base] {
        offer(group, &controllers)?;
    }
    Ok(Some(Hierarchy {
        controllers,
        unified: true,
        home: aside,
        base,
    }))
}

/// Lets the groups below one of the new form have these.
pub(super) fn offer(group: &Path, controllers: &[Controller]) -> io::Result<()> {
    let names: BTreeSet<&str> = controllers.iter().map(|c| c.new_name()).collect();
    for name in names {
        fs::write(group.join("cgroup.subtree_control"), format!("+{name}"))?;
    }
    Ok(())
}

fn make(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let path = parent.join(name);
    // Another user's worker may have made it already, and then there is no place in it for us.
    let made = fs::create_dir_all(&path).and_then(|()| Ok(access(&path, AccessFlags::W_OK)?));
    made.map_err(|error| {
        let path = path.display();
        io::Error::new(error.kind(), format!("{path} cannot be made: {error}"))
    })?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mounts_are_understood() {
        let old = "30 28 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct";
        let mount = Mount::parse(old).unwrap();
        assert!(!mount.unified);
        assert_eq!(mount.point, Path::new("/sys/fs/cgroup/cpu"));
        assert_eq!(mount.options, ["rw", "cpu", "cpuacct"]);
        let new = "30 28 0:26 /a /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let mount = Mount::parse(new).unwrap();
        assert!(mount.unified);
        assert_eq!(mount.root, "/a");
        assert_eq!(Mount::parse("30 28 0:26 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn the_own_group_is_found_in_each_form() {
        let point = tempfile::tempdir().unwrap();
        fs::create_dir_all(point.path().join("a/b")).unwrap();
        let mount = |unified, root: &str, option: &str| Mount {
            root: root.to_owned(),
            point: point.path().to_owned(),
            unified,
            options: vec!["rw".to_owned(), option.to_owned()],
        };
        let own = "5:pids:/x\n4:memory,cpu:/a/b\n1:name=systemd:/\n0::/a\n";
        let home = |mount: Mount| mount.home(own);
        assert_eq!(
            home(mount(false, "/", "memory")),
            Some(point.path().join("a/b"))
        );
        assert_eq!(home(mount(false, "/", "blkio")), None);
        assert_eq!(home(mount(true, "/", "")), Some(point.path().join("a")));
        // A container sees its own group as the root of what is mounted.
        assert_eq!(home(mount(true, "/a", "")), Some(point.path().join("")));
        // What is not there is not believed.
        assert_eq!(
            home(mount(false, "/", "pids")),
            Some(point.path().to_owned())
        );
    }

    #[test]
    fn in_the_new_form_the_worker_moves_aside() {
        let home = tempfile::tempdir().unwrap();
        fs::write(
            home.path().join("cgroup.controllers"),
            "cpu memory pids io\n",
        )
        .unwrap();
        let hierarchy = enter_unified(home.path()).unwrap().unwrap();
        assert_eq!(hierarchy.controllers, Controller::ALL);
        assert_eq!(hierarchy.home, home.path().join("distci-worker"));
        let moved = fs::read_to_string(hierarchy.home.join("cgroup.procs")).unwrap();
        assert_eq!(moved, "0");
        // A worker that begins where the last one was finds the same place.
        fs::write(
            hierarchy.home.join("cgroup.controllers"),
            "cpu memory pids\n",
        )
        .unwrap();
        let again = enter_unified(&hierarchy.home).unwrap();
        assert_eq!(again, Some(hierarchy));
    }

    #[test]
    fn a_hierarchy_that_controls_nothing_is_of_no_use() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("cgroup.controllers"), "hugetlb\n").unwrap();
        assert_eq!(enter_unified(home.path()).unwrap(), None);
    }
}
