//! Webhooks as forges send them, against the real program: one from the push to the build that it
//! starts, and every payload that GitHub's own people have collected.

mod checks;
mod collection;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use distci_model::outcome::Outcome;
use distci_model::wire::{Page, WebhookAnswer, WebhookDelivery};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::rig::{Server, eventually};

const SECRET: &str = "known to us and to the forge";

/// A standalone that takes GitHub's webhooks, and its address.
struct Hooked {
    server: Server,
    address: String,
    _data: tempfile::TempDir,
}

impl Hooked {
    fn start() -> Result<Self> {
        Self::with(&[])
    }

    /// The same with further arguments.
    fn with(arguments: &[&str]) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let file = data.path().join("secret");
        std::fs::write(&file, format!("{SECRET}\n"))?;
        let secret = format!("github={}", file.display());
        let ours = ["standalone", "--webhook-secret", &secret];
        let server = Server::start(data.path(), &[&ours, arguments].concat())?;
        let url = std::fs::read_to_string(data.path().join("url"))?;
        let address = url.trim().trim_start_matches("http://").to_owned();
        Ok(Self {
            server,
            address,
            _data: data,
        })
    }

    /// Delivers a signed payload as GitHub does; gives status and answer.
    fn deliver(&self, event: &str, delivery: &str, body: &str) -> Result<(u16, String)> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
        hmac.update(body.as_bytes());
        let signature = HEXLOWER.encode(&hmac.finalize().into_bytes());
        let head = format!(
            "POST /hooks/github HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\
             x-github-event: {event}\r\nx-github-delivery: {delivery}\r\n\
             x-hub-signature-256: sha256={signature}\r\n\r\n",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address)?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).context("no status")?.parse()?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok((status, body.to_owned()))
    }

    /// The same, where there must be an answer.
    fn told(&self, event: &str, delivery: &str, body: &str) -> Result<(u16, WebhookAnswer)> {
        let (status, text) = self.deliver(event, delivery, body)?;
        let answer = serde_json::from_str(&text);
        let answer = answer.with_context(|| format!("{event} {delivery}: {status} {text}"))?;
        Ok((status, answer))
    }

    fn kept(&self) -> Result<Vec<WebhookDelivery>> {
        let json = self.server.ask(&["webhook", "ls", "--json"])?;
        let page: Page<WebhookDelivery> = serde_json::from_str(&json)?;
        Ok(page.items)
    }
}

/// A repository with one commit, and that commit.
fn repository(dir: &Path) -> Result<(PathBuf, String)> {
    let git = |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new("git");
        command.arg("-C").arg(dir).args(arguments);
        for (name, value) in [
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@example.org"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@example.org"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ] {
            command.env(name, value);
        }
        let output = command.output()?;
        ensure!(output.status.success(), "git {arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    git(&["init", "--quiet", "--initial-branch=main"])?;
    std::fs::write(dir.join("file"), "content\n")?;
    git(&["add", "file"])?;
    git(&["commit", "--quiet", "--message", "First\n\nText"])?;
    Ok((dir.to_owned(), git(&["rev-parse", "HEAD"])?))
}

fn push(sha: &str, branch: &str) -> Value {
    json!({
        "ref": format!("refs/heads/{branch}"), "before": "0".repeat(40), "after": sha,
        "created": true, "deleted": false, "forced": false, "commits": [],
        "head_commit": { "id": sha, "message": "First\n\nText" },
        "repository": { "id": 1, "html_url": "https://github.com/Acme/App" },
        "sender": { "login": "octocat" },
    })
}

fn job(repository: &Path, refs: &[&str]) -> Value {
    let script = "echo sha=$DISTCI_SHA branch=$DISTCI_BRANCH event=$DISTCI_EVENT by=$DISTCI_SENDER\n\
                  echo checked out $(git rev-parse HEAD)";
    json!({
        "job_id": "app",
        "parameters": { "COMMIT": { "default": "main" } },
        "triggers": [{
            "on": ["push", "tag"], "repository": "git@github.com:acme/app.git", "refs": refs,
            "parameters": { "COMMIT": "${event.sha}" },
        }],
        "tasks": [
            { "type": "git-checkout", "params": { "repository": repository, "ref": "${COMMIT}" } },
            { "type": "execute-shell", "params": { "script": script } },
        ],
    })
}

#[test]
fn a_signed_push_is_built_once_and_what_nobody_wanted_can_be_replayed() -> Result<()> {
    let hooked = Hooked::start()?;
    let dir = tempfile::tempdir()?;
    let (repository, sha) = repository(dir.path())?;
    hooked.server.set_job(&job(&repository, &["main"]))?;
    let body = push(&sha, "main").to_string();
    let (status, answer) = hooked.told("push", "1", &body)?;
    assert_eq!((status, answer.builds.len()), (200, 1), "{answer:?}");
    assert!(answer.builds[0].fresh);
    assert_eq!(answer.builds[0].build.to_string(), "app#1");
    let build = eventually("the build's end", || {
        let view = hooked.server.build("app#1")?;
        Ok(view.outcome.is_some().then_some(view))
    })?;
    ensure!(
        build.outcome.as_ref().is_some_and(Outcome::is_success),
        "{build:?}"
    );
    let console = hooked
        .server
        .ask(&["logs", "app#1", "--task", "execute-shell"])?;
    let line = format!("sha={sha} branch=main event=push by=octocat");
    ensure!(console.contains(&line), "{console}");
    ensure!(console.contains(&format!("checked out {sha}")), "{console}");

    let (status, answer) = hooked.told("push", "1", &body)?;
    assert_eq!(status, 200);
    assert_eq!(answer.builds[0].build.to_string(), "app#1");
    assert!(
        !answer.builds[0].fresh,
        "a redelivery posts no second build"
    );
    assert_eq!(hooked.kept()?.len(), 0);

    let (status, answer) = hooked.told("push", "2", &push(&sha, "next").to_string())?;
    assert_eq!((status, answer.builds.len()), (202, 0), "{answer:?}");
    let [kept] = &hooked.kept()?[..] else {
        anyhow::bail!("what nobody wanted is not kept");
    };
    let listed = hooked.server.ask(&["webhook", "ls"])?;
    ensure!(listed.contains("refs/heads/next"), "{listed}");
    let shown = hooked.server.ask(&["webhook", "show", kept.id.as_str()])?;
    ensure!(shown.contains("its refs do not fit"), "{shown}");
    hooked
        .server
        .set_job(&job(&repository, &["main", "next"]))?;
    let replayed = hooked
        .server
        .ask(&["webhook", "replay", kept.id.as_str()])?;
    ensure!(replayed.contains("app#2"), "{replayed}");
    let (status, answer) = hooked.told("push", "2", &push(&sha, "next").to_string())?;
    assert_eq!(status, 200);
    assert!(!answer.builds[0].fresh, "the replay was the same delivery");
    Ok(())
}

#[test]
fn who_does_not_sign_is_turned_away() -> Result<()> {
    let hooked = Hooked::start()?;
    let mut stream = TcpStream::connect(&hooked.address)?;
    write!(
        stream,
        "POST /hooks/github HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-github-event: push\r\n\
         content-length: 2\r\n\r\n{{}}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    Ok(())
}

#[test]
fn a_token_is_printed_with_the_hash_that_the_job_file_wants() -> Result<()> {
    let hooked = Hooked::start()?;
    let both: Value = serde_json::from_str(&hooked.server.ask(&["webhook", "token", "--json"])?)?;
    let token = both["token"].as_str().context("no token")?;
    hooked.server.set_job(&json!({
        "job_id": "app",
        "tasks": [{ "type": "execute-shell", "params": { "script": "true" } }],
        "triggers": [{ "on": "webhook", "token_sha256": both["token_sha256"] }],
    }))?;
    let mut stream = TcpStream::connect(&hooked.address)?;
    write!(
        stream,
        "POST /hooks/generic/app HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    hooked.server.build("app#1").map(drop)
}
