//! A fake of the forges' APIs for commit statuses and GitHub's check runs, over HTTP on loopback.
//!
//! Owns what real ones insist on: their paths, tokens, fields, words and limits. It answers whoever
//! is wrong as they would, keeps what it was told in order, and can be put into any mood. It is not
//! one of the real servers of this crate, for no forge runs in a folder.

mod app;
mod checks;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

pub use app::FakeApp;
use app::Grants;
pub use checks::CheckRun;

/// Longest description that GitHub takes.
const MAX_DESCRIPTION: usize = 140;
/// Longest key that Bitbucket takes.
const MAX_KEY: usize = 40;
/// Most bytes of a request.
const MAX_BODY: u64 = 64 * 1024;

/// Which API it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// GitHub's.
    Github,
    /// GitLab's.
    Gitlab,
    /// Gitea's.
    Gitea,
    /// Bitbucket's.
    Bitbucket,
}

/// How it treats who comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As a forge should.
    Fine,
    /// Answers everybody with this status, and asks to be left alone for so many seconds.
    Status(u16, Option<u64>),
    /// Answers everybody that the requests of this hour are spent, until so many seconds from now.
    Spent(i64),
    /// Takes what it is told and never answers.
    Hanging,
    /// Does what it is told and breaks off without an answer.
    Mute,
}

/// What it was told and took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `acme/app`.
    pub repository: String,
    /// The commit.
    pub sha: String,
    /// What it is listed as.
    pub context: String,
    /// In the forge's own word.
    pub state: String,
    /// In words.
    pub description: String,
    /// Where it leads to.
    pub url: Option<String>,
}

/// A forge that runs until it is dropped.
#[derive(Debug)]
pub struct FakeForge {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dialect: Dialect,
    token: String,
    app: Option<FakeApp>,
    state: Mutex<State>,
    changed: Condvar,
    over: AtomicBool,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    /// The moods of the next requests, before that one counts.
    next: VecDeque<Mood>,
    told: Vec<Status>,
    asked: usize,
    /// Bare repositories that it hosts, by their paths: `/acme/app.git`.
    repositories: BTreeMap<String, PathBuf>,
    /// Where the app is installed, and what it was given.
    grants: Grants,
    runs: Vec<CheckRun>,
}

/// An answer: its status, what it says, and the headers beside.
type Answer = (u16, Value, Vec<(&'static str, String)>);

impl FakeForge {
    /// A forge on a free port, or on this one, that knows one token.
    pub fn start(dialect: Dialect, token: &str, port: u16) -> Result<Self> {
        Self::begin((dialect, token, None), port)
    }

    /// A GitHub on a free port, or on this one, that knows one app and no other token.
    pub fn start_with_app(app: &FakeApp, port: u16) -> Result<Self> {
        Self::begin((Dialect::Github, "", Some(app.clone())), port)
    }

    fn begin((dialect, token, app): (Dialect, &str, Option<FakeApp>), port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).context("fake forge")?;
        let address = listener.local_addr()?;
        let state = State {
            mood: Mood::Fine,
            next: VecDeque::new(),
            told: Vec::new(),
            asked: 0,
            repositories: BTreeMap::new(),
            grants: Grants::default(),
            runs: Vec::new(),
        };
        let shared = Arc::new(Shared {
            dialect,
            token: token.to_owned(),
            app,
            state: Mutex::new(state),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let listening = Arc::clone(&shared);
        // Ends with the value, which calls once more on its own address.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if listening.over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&listening);
                thread::spawn(move || shared.serve(&stream));
            }
        });
        Ok(Self { address, shared })
    }

    /// Its host with its port, as repositories are called by it.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The address of its API.
    pub fn api(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Hosts the bare repository in `folder` as `path`, for whoever clones it by HTTP. After each
    /// change, `git update-server-info` tells it what there is.
    pub fn host_repository(&self, path: &str, folder: &Path) -> String {
        let path = format!("/{path}.git");
        let address = format!("http://{}{path}", self.address);
        let mut state = self.shared.state();
        state.repositories.insert(path, folder.to_owned());
        address
    }

    /// From now on it is like this.
    pub fn set_mood(&self, mood: Mood) {
        self.shared.state().mood = mood;
    }

    /// The next one who comes is treated like this.
    pub fn next(&self, mood: Mood) {
        self.shared.state().next.push_back(mood);
    }

    /// What it was told, in order.
    pub fn told(&self) -> Vec<Status> {
        self.shared.state().told.clone()
    }

    /// The words of [`told`](Self::told) of one context.
    pub fn states(&self, context: &str) -> Vec<String> {
        let told = self.told().into_iter();
        told.filter(|status| status.context == context)
            .map(|status| status.state)
            .collect()
    }

    /// How many have come, whatever became of them.
    pub fn asked(&self) -> usize {
        self.shared.state().asked
    }

    /// Waits until somebody has told it something that `wanted` wants.
    pub fn wait(&self, within: Duration, wanted: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        while !wanted(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "in time it was told only {:?}",
                self.told()
            );
            let state = self.shared.state();
            // Whoever changes something between the look and the wait is noticed soon enough.
            let pause = left.min(Duration::from_millis(200));
            drop(self.shared.changed.wait_timeout(state, pause));
        }
        Ok(())
    }
}

impl Drop for FakeForge {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request on one connection; whoever breaks off is no concern of ours.
    fn serve(&self, stream: &TcpStream) {
        let Ok(Some(request)) = Request::read(stream) else {
            return;
        };
        if request.method == "GET" && !request.path.starts_with("/api/") {
            drop(match self.file(&request.path) {
                Some(bytes) => send(stream, "200 OK\r\ncontent-type: text/plain", &bytes),
                None => send(stream, "404 Not Found", b"not found"),
            });
            return;
        }
        let mood = {
            let mut state = self.state();
            state.asked += 1;
            state.next.pop_front().unwrap_or(state.mood)
        };
        let answer = self.treat(&request, mood);
        self.changed.notify_all();
        if let Some(answer) = answer {
            drop(reply(stream, &answer));
        }
    }

    /// The answer of somebody in this mood; `None` if there is none.
    fn treat(&self, request: &Request, mood: Mood) -> Option<Answer> {
        Some(match mood {
            Mood::Fine => self.answer(request),
            Mood::Status(status, after) => {
                let after = after.map(|after| ("retry-after", after.to_string()));
                let said = json!({ "message": "in a mood" });
                (status, said, after.into_iter().collect())
            }
            Mood::Spent(left) => {
                let reset = now().as_second().saturating_add(left);
                let headers = vec![
                    ("x-ratelimit-remaining", "0".to_owned()),
                    ("x-ratelimit-reset", reset.to_string()),
                ];
                (
                    403,
                    json!({ "message": "API rate limit exceeded" }),
                    headers,
                )
            }
            Mood::Hanging => {
                while !self.over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(50));
                }
                return None;
            }
            Mood::Mute => {
                self.answer(request);
                return None;
            }
        })
    }

    /// A file of a repository that is hosted here, as git's plainest protocol asks for it.
    fn file(&self, path: &str) -> Option<Vec<u8>> {
        let path = path.split('?').next()?;
        let state = self.state();
        let (name, folder) = state
            .repositories
            .iter()
            .find(|(name, _)| path.starts_with(*name))?;
        let below = path.strip_prefix(name.as_str())?.trim_start_matches('/');
        let plain = below.split('/').all(|part| !part.starts_with('.'));
        std::fs::read(folder.join(below)).ok().filter(|_| plain)
    }

    fn answer(&self, request: &Request) -> Answer {
        if let Some(app) = &self.app {
            return self.answer_app(app, request);
        }
        let (header, value) = match self.dialect {
            Dialect::Github | Dialect::Bitbucket => {
                ("authorization", format!("Bearer {}", self.token))
            }
            Dialect::Gitlab => ("private-token", self.token.clone()),
            Dialect::Gitea => ("authorization", format!("token {}", self.token)),
        };
        if request.header(header) != Some(&value) {
            return refused(401, "Bad credentials");
        }
        if request.method != "POST" {
            return refused(405, "Method Not Allowed");
        }
        let agent = request.header("user-agent");
        if self.dialect == Dialect::Github && agent.is_none() {
            return refused(403, "Request forbidden by administrative rules.");
        }
        let Some((repository, sha)) = self.dialect.place(&request.path) else {
            return refused(404, "Not Found");
        };
        match self.dialect.status(repository, sha, &request.body) {
            Ok(status) => self.take(status),
            Err(why) => refused(422, &why),
        }
    }

    fn take(&self, status: Status) -> Answer {
        let mut state = self.state();
        let same = |told: &&Status| told.sha == status.sha && told.context == status.context;
        let before = state.told.iter().rev().find(same);
        if self.dialect == Dialect::Gitlab && before.is_some_and(|b| b.state == status.state) {
            let message = format!("Cannot transition status via :x from :{}", status.state);
            return refused(400, &message);
        }
        state.told.push(status);
        (201, json!({ "id": state.told.len() }), Vec::new())
    }
}

impl Dialect {
    /// Repository and commit of a path.
    fn place(self, path: &str) -> Option<(String, String)> {
        let parts: Vec<&str> = path.strip_prefix("/api/")?.split('/').collect();
        let (repository, sha) = match (self, parts.as_slice()) {
            (Self::Github | Self::Gitea, ["repos", owner, name, "statuses", sha]) => {
                (format!("{owner}/{name}"), sha)
            }
            (Self::Gitlab, ["projects", id, "statuses", sha]) => (id.replace("%2F", "/"), sha),
            (
                Self::Bitbucket,
                [
                    "repositories",
                    owner,
                    name,
                    "commit",
                    sha,
                    "statuses",
                    "build",
                ],
            ) => (format!("{owner}/{name}"), sha),
            _ => return None,
        };
        Some((repository, (*sha).to_owned()))
    }

    /// The status in a body, or what is wrong with it.
    fn status(self, repository: String, sha: String, body: &Value) -> Result<Status, String> {
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        let needed = |key: &str| text(key).ok_or_else(|| format!("{key} is missing"));
        if sha.len() != 40 || !sha.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("No commit found for SHA: {sha}"));
        }
        let (context, url, words): (_, _, &[&str]) = match self {
            Self::Github | Self::Gitea => (
                "context",
                "target_url",
                &["pending", "success", "failure", "error"],
            ),
            Self::Gitlab => (
                "name",
                "target_url",
                &["pending", "running", "success", "failed", "canceled"],
            ),
            Self::Bitbucket => (
                "key",
                "url",
                &["INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"],
            ),
        };
        let state = needed("state")?;
        if !words.contains(&state.as_str()) {
            return Err(format!("state {state} is not included in the list"));
        }
        let context = needed(context)?;
        if self == Self::Bitbucket && context.chars().count() > MAX_KEY {
            return Err("key is too long (maximum is 40 characters)".to_owned());
        }
        let description = text("description").unwrap_or_default();
        if description.chars().count() > MAX_DESCRIPTION {
            return Err("description is too long (maximum is 140 characters)".to_owned());
        }
        let url = text(url);
        let is_address = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if url.as_ref().is_some_and(|url| !is_address(url))
            || url.is_none() && self == Self::Bitbucket
        {
            return Err("target url must use http(s) scheme".to_owned());
        }
        Ok(Status {
            repository,
            sha,
            context,
            state,
            description,
            url,
        })
    }
}

/// A request as far as it matters.
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Value,
}

impl Request {
    fn read(stream: &TcpStream) -> Result<Option<Self>> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Ok(None);
        };
        let (method, path) = (method.to_owned(), path.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut request = Self {
            method,
            path,
            headers,
            body: Value::Null,
        };
        let length = request
            .header("content-length")
            .map(|length| length.parse());
        let length: u64 = length.transpose()?.unwrap_or(0);
        let mut body = Vec::new();
        reader.take(length.min(MAX_BODY)).read_to_end(&mut body)?;
        request.body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Some(request))
    }

    fn header(&self, name: &str) -> Option<&String> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }
}

/// The time by this forge's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "a forge has a clock of its own, and this one is the machine's"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

fn refused(status: u16, message: &str) -> Answer {
    (status, json!({ "message": message }), Vec::new())
}

fn reply(stream: &TcpStream, (status, body, headers): &Answer) -> std::io::Result<()> {
    let date = now().strftime("%a, %d %b %Y %H:%M:%S GMT");
    let mut head = format!("{status} Answer\r\ncontent-type: application/json\r\ndate: {date}");
    for (name, value) in headers {
        head.extend(["\r\n", name, ": ", value]);
    }
    send(stream, &head, body.to_string().as_bytes())
}

fn send(mut stream: &TcpStream, head: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    )?;
    stream.write_all(body)
}
