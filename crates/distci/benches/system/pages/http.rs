//! Pages as bytes: asking for them over a connection that is kept, and serving the same from memory,
//! which is what the machine allows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::report::Times;

/// Requests for a page whose times are gathered.
const ROUNDS: usize = 300;

/// A connection with a server of pages.
pub(super) struct Line {
    stream: BufReader<TcpStream>,
    head: String,
}

/// How long the body of an answer is.
enum Length {
    Bytes(usize),
    Chunks,
}

impl Line {
    /// Opens one to `http://HOST:PORT`.
    pub(super) async fn open(url: &str, token: &str) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").context("not http")?;
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            head: format!("host: {host}\r\nauthorization: Bearer {token}\r\naccept: */*\r\n\r\n"),
        })
    }

    /// What is at a path.
    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let length = self.ask(path).await?;
        self.body(length).await.with_context(|| path.to_owned())
    }

    /// How long it takes to get what is at a path, again and again, and how many bytes that are.
    pub(super) async fn times(&mut self, path: &str) -> anyhow::Result<(Times, usize)> {
        let (mut times, mut bytes) = (Times::new()?, 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            bytes = self.get(path).await?.len();
            times.add(start.elapsed());
        }
        Ok((times, bytes))
    }

    /// Begins to follow what is at a path.
    pub(super) async fn follow(mut self, path: &str) -> anyhow::Result<Events> {
        match self.ask(path).await? {
            Length::Chunks => Ok(Events {
                line: self,
                rest: Vec::new(),
            }),
            Length::Bytes(_) => bail!("{path} is no stream"),
        }
    }

    async fn ask(&mut self, path: &str) -> anyhow::Result<Length> {
        let request = format!("GET {path} HTTP/1.1\r\n{}", self.head);
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let status = self.text().await?;
        ensure!(status.contains(" 200 "), "{path}: {status}");
        let mut length = Length::Chunks;
        loop {
            let header = self.text().await?.to_ascii_lowercase();
            if header.is_empty() {
                return Ok(length);
            }
            if let Some(bytes) = header.strip_prefix("content-length:") {
                length = Length::Bytes(bytes.trim().parse()?);
            }
        }
    }

    async fn text(&mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        self.stream.read_line(&mut text).await?;
        ensure!(text.ends_with('\n'), "the server hung up");
        Ok(text.trim_end().to_owned())
    }

    async fn body(&mut self, length: Length) -> anyhow::Result<Vec<u8>> {
        match length {
            Length::Bytes(bytes) => {
                let mut body = vec![0; bytes];
                self.stream.read_exact(&mut body).await?;
                Ok(body)
            }
            Length::Chunks => {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk().await? {
                    body.extend(chunk);
                }
                Ok(body)
            }
        }
    }

    /// The next chunk of a body; nothing at its end.
    async fn chunk(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let bytes = usize::from_str_radix(&self.text().await?, 16)?;
        let mut chunk = vec![0; bytes];
        self.stream.read_exact(&mut chunk).await?;
        self.text().await?;
        Ok((bytes > 0).then_some(chunk))
    }
}

/// Server-sent events.
pub(super) struct Events {
    line: Line,
    rest: Vec<u8>,
}

impl Events {
    /// The data of the next event; nothing at the end of the stream. Cancelled, it may lose some.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.rest.drain(..end + 2).collect();
                let event = String::from_utf8(event)?;
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                if let Some(data) = data {
                    return Ok(Some(data.to_owned()));
                }
                // Only a sign of life.
                continue;
            }
            match self.line.chunk().await? {
                Some(chunk) => self.rest.extend(chunk),
                None => return Ok(None),
            }
        }
    }
}

/// The addresses of the style, the scripts and the picture of a page.
pub(super) fn assets(page: &[u8]) -> BTreeSet<String> {
    let page = String::from_utf8_lossy(page);
    let parts = page.split("=\"/assets/").skip(1);
    let names = parts.filter_map(|part| part.split('"').next());
    names.map(|name| format!("/assets/{name}")).collect()
}

/// A server that gives copies of what another one gave, from memory.
pub(super) struct Copy {
    pub(super) url: String,
    _serving: JoinSet<anyhow::Result<()>>,
}

/// What is at a path: its media type, and the bytes.
type Held = (String, &'static str, Vec<u8>);

impl Copy {
    /// Copies what is at these paths, with all assets of pages.
    pub(super) async fn of(line: &mut Line, paths: &[&str]) -> anyhow::Result<Self> {
        let mut held = Vec::new();
        for path in paths {
            let body = line.get(path).await?;
            for asset in assets(&body) {
                let bytes = line.get(&asset).await?;
                held.push((asset.clone(), media(&asset), bytes));
            }
            held.push(((*path).to_owned(), media(path), body));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (held, mut serving) = (Arc::new(held), JoinSet::new());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                connections.spawn(serve(stream, Arc::clone(&held)));
            }
        });
        Ok(Self {
            url,
            _serving: serving,
        })
    }

    /// How long it takes to get a copy, again and again: the raw limit.
    pub(super) async fn times(&self, path: &str) -> anyhow::Result<Times> {
        let mut line = Line::open(&self.url, "").await?;
        Ok(line.times(path).await?.0)
    }
}

async fn serve(stream: TcpStream, pages: Arc<Vec<Held>>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut request, mut header) = (String::new(), String::new());
        if stream.read_line(&mut request).await? == 0 {
            return Ok(());
        }
        while header != "\r\n" {
            header.clear();
            stream.read_line(&mut header).await?;
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let found = pages.iter().find(|(known, ..)| known == path);
        let (status, media, body) = match found {
            Some((_, media, body)) => ("200 OK", *media, body.as_slice()),
            None => ("404 Not Found", "text/plain", [].as_slice()),
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {media}\r\ncontent-length: {length}\r\n\r\n"
        );
        let answer = [head.as_bytes(), body].concat();
        stream.get_mut().write_all(&answer).await?;
    }
}

fn media(path: &str) -> &'static str {
    let end = path.rsplit('.').next().unwrap_or_default();
    match end {
        "css" => "text/css",
        "js" => "text/javascript",
        "svg" => "image/svg+xml",
        _ if path.contains("/part?") => "application/json",
        _ => "text/html; charset=utf-8",
    }
}
