//! What is left on a machine of somebody who should be gone.
//!
//! Owns the places to look at: processes, mounts, control groups, interfaces, loop devices. Never
//! changes anything.

use std::fs;
use std::path::Path;

/// Everything on this machine that mentions `name`, as lines for people: processes (this one aside) in
/// their command or environment, mounts, control groups, interfaces by name or alias, files behind
/// loop devices.
pub fn traces(name: &str) -> Vec<String> {
    let mut found = processes(name);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts.lines().filter(|line| line.contains(name));
    found.extend(mounts.map(|line| format!("mount {line}")));
    groups(Path::new("/sys/fs/cgroup"), name, &mut found);
    found.extend(marked("/sys/class/net", &["ifalias"], name, "interface"));
    let behind = ["loop/backing_file"];
    found.extend(marked("/sys/block", &behind, name, "loop device"));
    found
}

/// The processes among them. Neither the kernel's nor the dead mention anybody.
pub fn processes(name: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in entries(Path::new("/proc")) {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| {
            // It may end while we look.
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let (command, environment) = (read("cmdline"), read("environ"));
        if command.contains(name) || environment.contains(name) {
            found.push(format!("process {pid}: {command}"));
        }
    }
    found
}

fn groups(below: &Path, name: &str, found: &mut Vec<String>) {
    for entry in entries(below) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path();
            if entry.file_name().to_string_lossy().contains(name) {
                found.push(format!("group {}", path.display()));
            }
            groups(&path, name, found);
        }
    }
}

/// Those in `folder` that are called `name`, or say so in one of `files`.
fn marked(folder: &str, files: &[&str], name: &str, kind: &str) -> Vec<String> {
    let says = |path: &Path| {
        let mut texts = files
            .iter()
            .map(|file| fs::read_to_string(path.join(file)).unwrap_or_default());
        texts.any(|text| text.contains(name))
    };
    let all = entries(Path::new(folder));
    let named = all
        .filter(|entry| entry.file_name().to_string_lossy().contains(name) || says(&entry.path()));
    named
        .map(|entry| format!("{kind} {}", entry.file_name().display()))
        .collect()
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}
