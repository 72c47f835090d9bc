//! The API as a stranger meets it: one request a connection, at one frontend or at any.
//!
//! Shares nothing with the product's client, so that neither hides what the other does wrong.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;

/// How long a frontend may be silent before another is asked.
const SILENCE: Duration = Duration::from_secs(8);
/// How long everybody may refuse. The longest fault takes a minute.
const PATIENCE: Duration = Duration::from_mins(3);

/// One request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Request {
    /// Reads a path below `/api/v1`.
    pub(crate) fn get(path: &str) -> Self {
        Self {
            method: "GET",
            path: format!("/api/v1{path}"),
            ..Self::default()
        }
    }

    /// Asks whether a frontend can serve.
    pub(crate) fn ready() -> Self {
        Self {
            method: "GET",
            path: "/readyz".to_owned(),
            ..Self::default()
        }
    }

    /// Sends JSON.
    pub(crate) fn send(method: &'static str, path: &str, body: &serde_json::Value) -> Self {
        Self {
            method,
            path: format!("/api/v1{path}"),
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The head of an answer, and its body as it comes.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

impl Answer {
    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The whole body. Errors: it broke off.
    pub(crate) fn bytes(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The body line by line.
    pub(crate) fn lines(self) -> impl Iterator<Item = std::io::Result<String>> {
        BufReader::new(self.body).lines()
    }
}

/// The frontends, and what opens them.
#[derive(Debug)]
pub(crate) struct Api {
    doors: Vec<SocketAddr>,
    token: String,
    next: AtomicUsize,
}

impl Api {
    pub(crate) fn new(ports: &[u16], token: &str) -> Self {
        let door = |port: &u16| SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        Self {
            doors: ports.iter().map(door).collect(),
            token: token.to_owned(),
            next: AtomicUsize::new(0),
        }
    }

    /// How many frontends there are.
    pub(crate) fn frontends(&self) -> usize {
        self.doors.len()
    }

    /// The next frontend in turn.
    pub(crate) fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.doors.len()
    }

    /// Asks one frontend once. Errors: no whole head of an answer within `silence`.
    pub(crate) fn once(
        &self,
        frontend: usize,
        request: &Request,
        silence: Duration,
    ) -> Result<Answer> {
        let door = self.doors.get(frontend).context("no such frontend")?;
        let mut stream = TcpStream::connect_timeout(door, silence)?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_write_timeout(Some(silence))?;
        stream.set_nodelay(true)?;
        let Request {
            method,
            path,
            headers,
            body,
        } = request;
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {door}\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-length: {}\r\n",
            self.token,
            body.len()
        );
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n")?;
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        read_head(BufReader::new(stream))
    }

    /// Asks one frontend after the other until one answers with something else than 5xx.
    ///
    /// Errors: none does for minutes.
    pub(crate) fn ask(&self, request: &Request) -> Result<Answer> {
        self.insist(|frontend| self.once(frontend, request, SILENCE))
    }

    /// Asks for the bytes of a body, at any frontend. Errors: refused, or nobody answers.
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let request = Request::get(path);
        let (status, bytes) = self
            .insist(|frontend| {
                let answer = self.once(frontend, &request, SILENCE)?;
                let status = answer.status;
                Ok(Whole(status, answer.bytes()?))
            })?
            .into();
        ensure!(status == 200, "{path}: {status}");
        Ok(bytes)
    }

    /// Asks for JSON, at any frontend. Errors: refused, or nobody answers.
    pub(crate) fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let bytes = self.bytes(path)?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{path}: {}", String::from_utf8_lossy(&bytes)))
    }

    fn insist<T: HasStatus>(&self, mut ask: impl FnMut(usize) -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let refused = match ask(self.turn()) {
                Ok(answer) if answer.status() < 500 => return Ok(answer),
                Ok(answer) => anyhow::anyhow!("status {}", answer.status()),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(refused.context("no frontend answered for minutes"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

trait HasStatus {
    fn status(&self) -> u16;
}

impl HasStatus for Answer {
    fn status(&self) -> u16 {
        self.status
    }
}

struct Whole(u16, Vec<u8>);

impl HasStatus for Whole {
    fn status(&self) -> u16 {
        self.0
    }
}

impl From<Whole> for (u16, Vec<u8>) {
    fn from(Whole(status, bytes): Whole) -> Self {
        (status, bytes)
    }
}

fn read_head(mut stream: BufReader<TcpStream>) -> Result<Answer> {
    let first = line(&mut stream)?;
    let status = first.split(' ').nth(1).context("no status")?.parse()?;
    let mut headers = Vec::new();
    loop {
        let header = line(&mut stream)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let left = match length {
        Some((_, length)) => Left::Bytes(length.parse()?),
        None if status == 204 => Left::Bytes(0),
        None => Left::Chunks(0),
    };
    Ok(Answer {
        status,
        headers,
        body: Body { stream, left },
    })
}

fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => bail!("the answer broke off"),
    }
}

/// What is left of a body: of one with a length, or of the chunk that is being read.
enum Left {
    Bytes(u64),
    Chunks(u64),
    Nothing,
}

struct Body {
    stream: BufReader<TcpStream>,
    left: Left,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let broken = |error: anyhow::Error| std::io::Error::other(format!("{error:#}"));
        let left = match &mut self.left {
            Left::Nothing | Left::Bytes(0) => return Ok(0),
            Left::Bytes(left) => left,
            Left::Chunks(left) => {
                if *left == 0 {
                    let size = line(&mut self.stream).map_err(broken)?;
                    *left = u64::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
                }
                if *left == 0 {
                    self.left = Left::Nothing;
                    return Ok(0);
                }
                left
            }
        };
        let most = buffer
            .len()
            .min(usize::try_from(*left).unwrap_or(usize::MAX));
        let read = self.stream.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        *left -= read as u64;
        if matches!(self.left, Left::Chunks(0)) {
            line(&mut self.stream).map_err(broken)?;
        }
        Ok(read)
    }
}
