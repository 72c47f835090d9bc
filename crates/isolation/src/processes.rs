//! The processes of this machine, as `/proc` shows them.
//!
//! Owns finding the descendants of a process and the bearers of a key, and signalling them. Never
//! signals a process that it did not find so.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The variable by which every process of an attempt can be told from all others.
pub const KEY_VARIABLE: &str = "DISTCI_ATTEMPT_KEY";

/// A process and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

/// What became of a round of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// There was nobody to signal.
    Nobody,
    /// Somebody got the signal.
    Signalled,
    /// There are processes, but none that we are allowed to signal.
    Forbidden,
}

/// Which of the descendants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Every one.
    All,
    /// Those in a container, but neither what made it nor what it began with.
    Contained,
}

/// Sends `signal` to descendants of this process, except the dead ones.
pub(crate) fn signal_descendants(whom: Whom, signal: Signal) -> Round {
    signal_below(Pid::this(), whom, signal)
}

/// Kills every descendant of `process`, until there is none. Bounded, because one that hangs in the
/// kernel cannot be killed. Blocks.
pub(crate) fn kill_descendants(process: u32) {
    const ROUNDS: usize = 1000;
    let Ok(root) = i32::try_from(process) else {
        return;
    };
    for _ in 0..ROUNDS {
        if signal_below(Pid::from_raw(root), Whom::All, Signal::SIGKILL) != Round::Signalled {
            return;
        }
        // Death takes the kernel a moment.
        thread::sleep(Duration::from_millis(1));
    }
}

/// A whole process group is signalled at once where it can be: the kernel lets no fork slip through
/// between two members of a group, so a fork bomb in one group loses in one round.
fn signal_below(root: Pid, whom: Whom, signal: Signal) -> Round {
    let mut found = descendants(&all(), root.as_raw());
    if whom == Whom::Contained {
        found.retain(|process| is_contained(process.pid));
    }
    let mut reached = false;
    if signal == Signal::SIGKILL {
        let groups: HashSet<i32> = found.iter().map(|process| process.group).collect();
        let own_group = nix::unistd::getpgrp().as_raw();
        for group in groups
            .into_iter()
            .filter(|&group| group > 1 && group != own_group)
        {
            reached |= killpg(Pid::from_raw(group), signal).is_ok();
        }
    }
    for process in &found {
        // A process that is gone meanwhile is as good as signalled.
        reached |= kill(Pid::from_raw(process.pid), signal) != Err(Errno::EPERM);
    }
    match (found.is_empty(), reached) {
        (true, _) => Round::Nobody,
        (false, true) => Round::Signalled,
        (false, false) => Round::Forbidden,
    }
}

/// Kills every process that carries `key` in its environment, until there is none.
///
/// The second belt, for attempts whose supervisor was itself killed. Bounded, because a process of
/// somebody else can neither be read nor killed.
pub fn kill_bearers(key: &OsStr) -> usize {
    const ROUNDS: usize = 100;
    // A process that just begins another program shows no environment for a moment.
    const QUIET_ROUNDS: usize = 3;
    let mut killed = HashSet::new();
    let mut quiet = 0;
    for _ in 0..ROUNDS {
        let mut reached = false;
        for pid in bearers(key) {
            reached |= kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok();
            killed.insert(pid);
        }
        quiet = if reached { 0 } else { quiet + 1 };
        if quiet == QUIET_ROUNDS {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    killed.len()
}

fn bearers(key: &OsStr) -> Vec<i32> {
    let own = Pid::this().as_raw();
    let wanted = [KEY_VARIABLE.as_bytes(), b"=", key.as_bytes()].concat();
    let bears = |pid: &i32| {
        // A zombie's environment is empty, so the dead are not counted.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&b| b == 0).any(|entry| entry == wanted)
    };
    let others = pids().filter(|&pid| pid != own);
    others.filter(bears).collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn all() -> Vec<Process> {
    pids().filter_map(read).collect()
}

/// `None` for a process that is gone, or dead and only waits to be reaped.
fn read(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself hold any byte, so the last one counts.
    let end = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // A zombie keeps its place in the tree: a living thread's children may hang under it.
    let _state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, group })
}

/// Whether it has another number than here in a container, and is not the first there: that one is
/// the container's own, and takes all others along.
pub(crate) fn is_contained(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let numbers = numbers.unwrap_or_default().split_whitespace().skip(1);
    numbers.last().is_some_and(|inner| inner != "1")
}

fn is_dead(pid: i32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.iter().rposition(|&b| b == b')');
    let state = state.and_then(|end| stat.get(end + 2));
    state.is_none_or(|state| b"ZX".contains(state))
}

fn descendants(all: &[Process], root: i32) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for process in children.remove(&parent).unwrap_or_default() {
            open.push(process.pid);
            if !is_dead(process.pid) {
                found.push(process);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process {
            pid,
            parent,
            group: pid,
        }
    }

    #[test]
    fn a_process_names_its_parent_and_group() {
        let own = read(Pid::this().as_raw()).unwrap();
        assert_eq!(own.parent, Pid::parent().as_raw());
        assert_eq!(own.group, nix::unistd::getpgrp().as_raw());
    }

    #[test]
    fn strangers_are_not_descendants() {
        // None of these pids exists (they are above the kernel's maximum), so all count as dead.
        let all = [process(5_000_001, 5_000_000), process(5_000_002, 1)];
        assert!(descendants(&all, 5_000_000).is_empty());
    }
}
