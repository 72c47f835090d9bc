//! A relay of TCP that counts, and hinders what it is told to hinder.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of connections whose first request has a signed address.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// They pass, as all others.
    All,
    /// They are closed at once.
    RefuseSigned,
    /// If they read, they are cut after so many bytes.
    CutSignedReads(u64),
}

/// A relay to one address. Dropped, it cuts everything.
pub(super) struct Relay {
    address: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    bytes: AtomicU64,
    /// How requests to signed addresses began.
    heads: Mutex<Vec<String>>,
}

impl Relay {
    pub(super) async fn start(target: SocketAddr, rule: Rule) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::<Seen>::default();
        let mut serving = JoinSet::new();
        let shared = Arc::clone(&seen);
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                // A connection that breaks is what relays are for.
                open.spawn(async move { drop(pass(stream, target, rule, &seen).await) });
            }
        });
        Ok(Self {
            address,
            seen,
            _serving: serving,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bytes that have passed, both ways.
    pub(super) fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::SeqCst)
    }

    /// How each connection to a signed address began.
    pub(super) fn signed_heads(&self) -> Vec<String> {
        let heads = self.seen.heads.lock();
        heads.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn pass(mut near: TcpStream, target: SocketAddr, rule: Rule, seen: &Seen) -> Result<()> {
    let mut begin = vec![0; 4096];
    let length = near.read(&mut begin).await?;
    begin.truncate(length);
    let head = String::from_utf8_lossy(&begin).into_owned();
    let signed = head.contains("X-Amz-Signature=");
    let down = match rule {
        Rule::RefuseSigned if signed => return Ok(()),
        Rule::CutSignedReads(limit) if signed && head.starts_with("GET ") => limit,
        Rule::All | Rule::RefuseSigned | Rule::CutSignedReads(_) => u64::MAX,
    };
    if signed {
        let heads = seen.heads.lock();
        heads.unwrap_or_else(PoisonError::into_inner).push(head);
    }
    let mut far = TcpStream::connect(target).await?;
    far.write_all(&begin).await?;
    seen.bytes.fetch_add(length as u64, Ordering::SeqCst);
    let (mut near_in, mut near_out) = near.split();
    let (mut far_in, mut far_out) = far.split();
    tokio::select! {
        done = copy(&mut near_in, &mut far_out, u64::MAX, seen) => done,
        done = copy(&mut far_in, &mut near_out, down, seen) => done,
    }
}

/// Passes bytes on until the end, or until `limit` have passed.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    limit: u64,
    seen: &Seen,
) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    while passed < limit {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        to.write_all(&buffer[..length]).await?;
        passed += length as u64;
        seen.bytes.fetch_add(length as u64, Ordering::SeqCst);
    }
    Ok(())
}
