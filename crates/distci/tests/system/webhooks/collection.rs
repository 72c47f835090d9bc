//! The payloads that GitHub's own people collect for the authors of apps, every one of them: fetched
//! by npm as a package of a pinned version, signed, and sent to a standalone.
//!
//! What is to come of each is read from the payload a second time, here, in the fewest words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use distci_model::wire::{BuildSummary, Page};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Hooked;

const PACKAGE: &str = "@octokit/webhooks-examples";
const VERSION: &str = "7.6.1";

/// All examples of one event.
#[derive(Deserialize)]
struct Event {
    name: String,
    examples: Vec<Value>,
}

/// One example.
struct Example {
    event: String,
    /// Unlike that of any other.
    delivery: String,
    payload: Value,
}

/// The folder of the package; fetched if it was not before.
fn package() -> Result<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("webhooks-examples-{VERSION}"));
    if place.exists() {
        return Ok(place);
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let run = |program: &str, arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(program);
        let output = command.current_dir(dir.path()).args(arguments).output();
        let output = output.with_context(|| format!("{program} is needed for {PACKAGE}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{program} {arguments:?}: {said}");
        Ok(())
    };
    run(
        "npm",
        &["pack", "--silent", &format!("{PACKAGE}@{VERSION}")],
    )?;
    let archive = format!("octokit-webhooks-examples-{VERSION}.tgz");
    run("tar", &["-xzf", &archive])?;
    // Another test run may have been faster, with the same bytes.
    match std::fs::rename(dir.path().join("package"), &place) {
        Err(_) if place.exists() => Ok(place),
        renamed => renamed.map(|()| place).context("unpacking the payloads"),
    }
}

fn examples() -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(package()?)? {
        let file = entry?.path().join("index.json");
        if !file.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&file)?;
        let events: Vec<Event> = serde_json::from_str(&text)?;
        for event in events {
            for payload in event.examples {
                examples.push(Example {
                    event: event.name.clone(),
                    delivery: format!("{:08}", examples.len()),
                    payload,
                });
            }
        }
    }
    Ok(examples)
}

/// The kind of event that a payload is, with the commit that it is about.
fn expected(example: &Example) -> Option<(&'static str, Option<&str>)> {
    let payload = &example.payload;
    let is = |action: &str| payload["action"] == action;
    let text = |pointer: &str| payload.pointer(pointer).and_then(Value::as_str);
    let full = payload["ref"].as_str().unwrap_or_default();
    match example.event.as_str() {
        "push" if payload["deleted"] == true => Some(("delete", None)),
        "push" if full.starts_with("refs/tags/") => Some(("tag", text("/after"))),
        "push" => Some(("push", text("/after"))),
        "pull_request" => Some(("pull_request", text("/pull_request/head/sha"))),
        "release" if is("published") => Some(("release", None)),
        "merge_group" if is("checks_requested") => {
            Some(("merge_group", text("/merge_group/head_sha")))
        }
        "check_run" if is("rerequested") => Some(("rerequest", text("/check_run/head_sha"))),
        "check_suite" if is("rerequested") => Some(("rerequest", text("/check_suite/head_sha"))),
        _ => None,
    }
}

/// A job for each repository of the collection, that wants everything and runs nowhere.
fn set_jobs(hooked: &Hooked, examples: &[Example]) -> Result<Vec<String>> {
    let wanted = examples
        .iter()
        .filter(|example| expected(example).is_some());
    let page = |example: &Example| {
        example.payload["repository"]["html_url"]
            .as_str()
            .map(str::to_owned)
    };
    let pages: BTreeSet<String> = wanted.filter_map(page).collect();
    let actions: BTreeSet<&str> = examples
        .iter()
        .filter(|example| example.event == "pull_request")
        .filter_map(|example| example.payload["action"].as_str())
        .collect();
    let mut jobs = Vec::new();
    for (index, repository) in pages.iter().enumerate() {
        let name = format!("of-{index}");
        hooked.server.set_job(&json!({
            "job_id": name,
            "tasks": [{ "type": "execute-shell",
                "params": { "script": "true", "nodelabels": ["nobody"] } }],
            "triggers": [{
                "on": ["push", "tag", "delete", "pull_request", "release", "merge_group",
                    "rerequest"],
                "repository": repository, "forks": true, "actions": actions,
            }],
        }))?;
        jobs.push(name);
    }
    Ok(jobs)
}

/// Which commit of which kind of event each build is to be about, by the build's name.
type Wanted<'e> = BTreeMap<String, (&'static str, Option<&'e str>)>;

/// How many builds there are of each kind, after each was held against what was wanted.
fn kinds(
    hooked: &Hooked,
    jobs: &[String],
    wanted: &mut Wanted<'_>,
) -> Result<BTreeMap<String, usize>> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for job in jobs {
        let page = hooked
            .server
            .ask(&["builds", job, "-n", "1000", "--json"])?;
        let page: Page<BuildSummary> = serde_json::from_str(&page)?;
        for build in page.items {
            let name = format!("{job}#{}", build.number);
            let (kind, sha) = wanted
                .remove(&name)
                .context("a build that nobody asked for")?;
            let told = build.cause.told().context("no event")?;
            assert_eq!(told.kind.as_str(), kind, "{name}");
            if kind != "release" {
                assert_eq!(told.fact("sha"), sha, "{name}");
            }
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
    }
    Ok(kinds)
}

#[test]
fn every_payload_of_the_collection_is_answered_and_understood() -> Result<()> {
    let examples = examples()?;
    ensure!(examples.len() > 700, "there are only {}", examples.len());
    let hooked = Hooked::start()?;
    let jobs = set_jobs(&hooked, &examples)?;
    let mut wanted = Wanted::new();
    for example in &examples {
        let (event, delivery) = (example.event.as_str(), example.delivery.as_str());
        let body = example.payload.to_string();
        let (status, answer) = hooked.told(event, delivery, &body)?;
        let expected = expected(example);
        let builds = answer.builds.len();
        let fits = match expected {
            Some(_) => status == 200 && builds == 1 && answer.builds[0].fresh,
            None if event == "ping" => status == 200 && builds == 0,
            None => status == 202 && builds == 0,
        };
        ensure!(fits, "{event} {delivery}: {status} {answer:?} for {body}");
        if let Some(expected) = expected {
            wanted.insert(answer.builds[0].build.to_string(), expected);
        }
        // A build that nobody wants to be repeated is not.
        let (_, again) = hooked.told(event, delivery, &body)?;
        ensure!(
            again.builds.iter().all(|build| !build.fresh),
            "{event} {delivery}"
        );
    }
    let kinds = kinds(&hooked, &jobs, &mut wanted)?;
    ensure!(wanted.is_empty(), "{wanted:?}");
    println!("{} payloads: {kinds:?}", examples.len());
    for kind in [
        "push",
        "tag",
        "delete",
        "pull_request",
        "release",
        "merge_group",
        "rerequest",
    ] {
        ensure!(
            kinds.contains_key(kind),
            "the collection has no {kind}: {kinds:?}"
        );
    }
    Ok(())
}
