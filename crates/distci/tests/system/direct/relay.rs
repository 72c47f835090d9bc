//! A relay of TCP that counts, and hinders what it is told to hinder.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of requests to signed addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// They pass, as all others do.
    All,
    /// Their connections are closed at once.
    RefuseSigned,
    /// If they read, their connections are cut after so many bytes.
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

    /// How each request to a signed address began.
    pub(super) fn signed_heads(&self) -> Vec<String> {
        let heads = self.seen.heads.lock();
        heads.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn pass(mut near: TcpStream, target: SocketAddr, rule: Rule, seen: &Seen) -> Result<()> {
    let mut far = TcpStream::connect(target).await?;
    let (mut near_in, mut near_out) = near.split();
    let (mut far_in, mut far_out) = far.split();
    // What may still come back; requests on a connection follow each other.
    let left = AtomicU64::new(u64::MAX);
    let up = async {
        let mut buffer = vec![0; 64 << 10];
        while let Some(bytes) = next(&mut near_in, &mut buffer).await? {
            if let Some(head) = signed_head(bytes) {
                match rule {
                    Rule::RefuseSigned => return Ok(()),
                    Rule::CutSignedReads(limit) if head.starts_with("GET ") => {
                        left.store(limit, Ordering::SeqCst);
                    }
                    Rule::All | Rule::CutSignedReads(_) => {}
                }
                let heads = seen.heads.lock();
                heads.unwrap_or_else(PoisonError::into_inner).push(head);
            }
            far_out.write_all(bytes).await?;
            seen.count(bytes);
        }
        Ok(())
    };
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        while let Some(bytes) = next(&mut far_in, &mut buffer).await? {
            near_out.write_all(bytes).await?;
            seen.count(bytes);
            if left.fetch_sub(bytes.len() as u64, Ordering::SeqCst) <= bytes.len() as u64 {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        done = up => done,
        done = down => done,
    }
}

/// What comes, unless it was the end.
async fn next<'a>(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &'a mut [u8],
) -> Result<Option<&'a [u8]>> {
    let length = from.read(buffer).await?;
    Ok((length > 0).then(|| &buffer[..length]))
}

/// The beginning of a request to a signed address. A client sends a head at once.
fn signed_head(bytes: &[u8]) -> Option<String> {
    let begin = &bytes[..bytes.len().min(4096)];
    let begins = begin.starts_with(b"GET ") || begin.starts_with(b"PUT ");
    let head = String::from_utf8_lossy(begin).into_owned();
    (begins && head.contains("X-Amz-Signature=")).then_some(head)
}

impl Seen {
    fn count(&self, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    }
}
