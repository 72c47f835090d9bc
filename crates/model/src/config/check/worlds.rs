//! What may be written of isolation and caches.
//!
//! Owns the rules for the world that a task runs in. That a name which comes out of a matrix is one
//! is found out cell by cell.

use std::collections::BTreeSet;

use super::super::parse::{Reader, WrittenJob, WrittenTask};
use super::at_most;
use crate::config::{Action, Cache, TaskConfig};
use crate::isolation::{Driver, ImageName, Isolation, Network};

/// Least memory that anything begins in, in bytes.
const LEAST_MEMORY: u64 = 4 << 20;
/// Least disk that a file system fits on, in bytes.
const LEAST_DISK: u64 = 4 << 20;
/// Most processes that may be asked for.
const MOST_PROCESSES: u32 = 1_000_000;
/// Most caches of one task.
const MAX_CACHES: usize = 8;
/// Longest name of a cache, in bytes.
const MAX_CACHE_NAME: usize = 64;
/// Longest path of a cache, in bytes.
const MAX_CACHE_PATH: usize = 256;

/// Checks what each of them says by itself.
pub(super) fn check(reader: &mut Reader<'_>, written: &WrittenJob) {
    if let Some(isolation) = &written.head.isolation {
        check_limits(reader, "isolation", isolation);
    }
    for (list, tasks) in [("tasks", &written.tasks), ("post", &written.post)] {
        for (index, task) in tasks.iter().enumerate() {
            if let Some(task) = task {
                check_task(reader, &format!("{list}[{index}]"), task);
            }
        }
    }
}

fn check_task(reader: &mut Reader<'_>, path: &str, task: &WrittenTask) {
    let is_script = matches!(task.action, Action::ExecuteShell(_));
    let (isolation, cache) = (format!("{path}.isolation"), format!("{path}.cache"));
    if let Some(wanted) = &task.head.isolation {
        check_limits(reader, &isolation, wanted);
        if !is_script {
            reader.problem(
                &isolation,
                "only tasks of the type execute-shell have one",
                None,
            );
        }
    }
    if !task.head.cache.is_empty() && !is_script {
        reader.problem(
            &cache,
            "only tasks of the type execute-shell have one",
            None,
        );
    }
    check_caches(reader, &cache, &task.head.cache);
}

fn check_limits(reader: &mut Reader<'_>, path: &str, isolation: &Isolation) {
    let least = [
        ("memory", isolation.memory, LEAST_MEMORY),
        ("disk", isolation.disk, LEAST_DISK),
    ];
    for (key, size, least) in least {
        if size.is_some_and(|size| size.bytes() < least) {
            let message = format!("must be at least {} MiB", least >> 20);
            reader.problem(&format!("{path}.{key}"), &message, None);
        }
    }
    let most = isolation.processes;
    if most.is_some_and(|most| !(1..=MOST_PROCESSES).contains(&most)) {
        let message = format!("must be between 1 and {MOST_PROCESSES}");
        reader.problem(&format!("{path}.processes"), &message, None);
    }
}

fn check_caches(reader: &mut Reader<'_>, path: &str, caches: &[Cache]) {
    at_most(reader, path, caches.len(), MAX_CACHES);
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (index, cache) in caches.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !names.insert(&cache.name) {
            reader.problem(&format!("{path}.name"), "the cache is named twice", None);
        }
        if !paths.insert(&cache.path) {
            reader.problem(&format!("{path}.path"), "another cache is there", None);
        }
        let steps = || cache.path.split('/');
        let plain = !cache.path.contains('\0') && !steps().any(|step| step == "..");
        let fits = (1..=MAX_CACHE_PATH).contains(&cache.path.len());
        if !plain || !fits || steps().all(|step| matches!(step, "" | "." | "~")) {
            let help = "a folder of the workspace, one below ~/, or an absolute one".to_owned();
            reader.problem(
                &format!("{path}.path"),
                "not the path of a folder",
                Some(help),
            );
        }
    }
}

/// What is wrong with the world of a task of a flat job, and where.
pub(super) fn misfits(path: &str, task: &TaskConfig) -> Vec<(String, String)> {
    let isolation = task.isolation.as_ref();
    let has_image = isolation.is_some_and(|isolation| isolation.image.is_some());
    let mut misfits = cache_misfits(path, &task.cache, has_image);
    if let Some(why) = isolation.and_then(contradiction) {
        misfits.push((format!("{path}.isolation"), why));
    }
    misfits
}

fn contradiction(isolation: &Isolation) -> Option<String> {
    let Isolation {
        image,
        driver,
        network,
        ..
    } = isolation;
    let image = match image {
        Some(image) => match image.parse::<ImageName>() {
            Ok(image) => Some(image),
            Err(error) => return Some(error.to_string()),
        },
        None => None,
    };
    match (driver, image) {
        (Some(Driver::Process), Some(_)) => {
            Some("the driver process runs nothing in an image: leave one of them out".to_owned())
        }
        (Some(driver), None) if driver.has_images() => {
            Some(format!("the driver {driver} needs an `image`"))
        }
        (_, None) if network.is_some_and(|network| network != Network::Host) => {
            Some("who runs without an `image` reaches the network of the machine".to_owned())
        }
        _ => None,
    }
}

fn cache_misfits(path: &str, caches: &[Cache], has_image: bool) -> Vec<(String, String)> {
    let mut misfits = Vec::new();
    for (index, cache) in caches.iter().enumerate() {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let name = cache.name.as_bytes();
        if !(1..=MAX_CACHE_NAME).contains(&name.len()) || !name.iter().copied().all(fits) {
            let why = format!(
                "{:?} is no name of a cache: 1 to {MAX_CACHE_NAME} letters, digits, '.', '_' and '-'",
                cache.name
            );
            misfits.push((format!("{path}.cache[{index}].name"), why));
        }
        if !has_image && cache.path.starts_with(['/', '~']) {
            let why = "without an `image` a cache is a folder of the workspace".to_owned();
            misfits.push((format!("{path}.cache[{index}].path"), why));
        }
    }
    misfits
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::JobConfig;

    fn problems(head: &Value, task: &Value) -> Vec<String> {
        let mut file = json!({ "job_id": "j" });
        let mut shell = json!({ "type": "execute-shell", "params": { "script": "true" } });
        for (file, more) in [(&mut file, head), (&mut shell, task)] {
            let (file, more) = (file.as_object_mut().unwrap(), more.as_object().unwrap());
            file.extend(more.clone());
        }
        file["tasks"] = json!([shell]);
        match JobConfig::parse(&file.to_string()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .iter()
                .map(|problem| format!("{}: {}", problem.path, problem.message))
                .collect(),
        }
    }

    #[test]
    fn worlds_that_make_sense_are_taken() {
        let whole = json!({
            "image": "debian-12", "driver": "lxc", "memory": "2 GiB", "cpus": 0.5,
            "processes": 100, "disk": "1 GiB", "network": "none"
        });
        assert_eq!(
            problems(&json!({}), &json!({ "isolation": whole })),
            [""; 0]
        );
        assert_eq!(
            problems(&json!({ "isolation": whole }), &json!({})),
            [""; 0]
        );
        let cached = json!({
            "isolation": { "image": "${os}" },
            "matrix": { "os": ["debian-12", "alpine"] },
            "cache": [{ "name": "cargo-${os}", "path": "~/.cargo" }, { "name": "t", "path": "target" }]
        });
        assert_eq!(problems(&json!({}), &cached), [""; 0]);
    }

    #[test]
    fn worlds_that_cannot_be_are_refused() {
        for (isolation, problem) in [
            (json!({ "driver": "lxc" }), "needs an `image`"),
            (
                json!({ "driver": "process", "image": "a" }),
                "nothing in an image",
            ),
            (json!({ "network": "none" }), "reaches the network"),
            (json!({ "image": "A b" }), "no name of an image"),
            (json!({ "image": "a", "memory": "1 KiB" }), "at least 4 MiB"),
            (json!({ "image": "a", "processes": 0 }), "between 1 and"),
            (json!({ "image": "a", "cpus": 0 }), "number of processors"),
            (json!({ "image": "a", "driver": "xen" }), "unknown variant"),
            (json!({ "image": "a", "memroy": "1 GiB" }), "unknown key"), // spelling:ignore-line
        ] {
            for (head, task) in [
                (json!({}), json!({ "isolation": isolation })),
                (json!({ "isolation": isolation }), json!({})),
            ] {
                let found = problems(&head, &task);
                assert!(
                    found.iter().any(|found| found.contains(problem)),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn caches_stay_where_they_belong() {
        for (cache, problem) in [
            (
                json!([{ "name": "a", "path": "~/.cargo" }]),
                "without an `image`",
            ),
            (json!([{ "name": "a", "path": "../x" }]), "not the path"),
            (json!([{ "name": "a", "path": "./" }]), "not the path"),
            (
                json!([{ "name": "a/b", "path": "x" }]),
                "no name of a cache",
            ),
            (
                json!([{ "name": "a", "path": "x" }, { "name": "a", "path": "y" }]),
                "named twice",
            ),
            (
                json!([{ "name": "a", "path": "x" }, { "name": "b", "path": "x" }]),
                "another cache",
            ),
        ] {
            let found = problems(&json!({}), &json!({ "cache": cache }));
            assert!(
                found.iter().any(|found| found.contains(problem)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn only_scripts_have_a_world() {
        let publish = json!({
            "type": "publish-artifacts", "params": { "artifacts": ["x"] },
            "isolation": { "image": "a" }
        });
        let found = problems(&json!({}), &publish);
        assert!(
            found[0].contains("only tasks of the type execute-shell"),
            "{found:?}"
        );
    }
}
