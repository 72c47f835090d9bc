//! Large answers, streamed.
//!
//! Owns the resumption of a broken download: blobs are written once, so what is missing is asked
//! for again from where the stream broke. The reader notices nothing but a pause.

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use reqwest::header::RANGE;
use reqwest::{Response, StatusCode};
use tokio::time::timeout;

use crate::answer::{STALL, cause};
use crate::call::Call;
use crate::{Client, ClientError};

/// Breaks in a row, without a byte between them, after which a download is given up.
const MAX_BREAKS: u32 = 5;

/// The content of an artifact or a layer.
pub struct Download {
    /// Its size, if the frontend knows it.
    pub size: Option<u64>,
    /// The content in pieces.
    pub stream: BoxStream<'static, Result<Bytes, ClientError>>,
}

impl Download {
    /// Reads through a frontend.
    pub(crate) async fn start(client: Client, call: Call) -> Result<Self, ClientError> {
        let response = client.open(&call).await?;
        Ok(Self::of(client, call, Way::Frontend, response))
    }

    /// Reads straight from the blob store where that goes, or else through a frontend.
    pub(crate) async fn start_direct(client: Client, call: Call) -> Result<Self, ClientError> {
        let response = client.open_direct(&call).await?;
        Ok(Self::of(client, call, Way::Direct, response))
    }

    fn of(client: Client, call: Call, way: Way, response: Response) -> Self {
        let size = response.content_length();
        let reading = Reading {
            client,
            call,
            way,
            response,
            read: 0,
            skip: 0,
            breaks: 0,
        };
        let stream = stream::try_unfold(reading, Reading::next).boxed();
        Self { size, stream }
    }
}

/// Where the bytes come from.
#[derive(Debug, Clone, Copy)]
enum Way {
    Frontend,
    /// The blob store, as long as that goes.
    Direct,
}

/// A download at work.
struct Reading {
    client: Client,
    call: Call,
    way: Way,
    response: Response,
    /// Bytes that the reader has.
    read: u64,
    /// Bytes of the current response that the reader has already.
    skip: u64,
    breaks: u32,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ClientError> {
        loop {
            let why = match timeout(STALL, self.response.chunk()).await {
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(chunk))) => {
                    if let Some(fresh) = self.fresh(chunk) {
                        return Ok(Some((fresh, self)));
                    }
                    continue;
                }
                Ok(Err(error)) => cause(&error.without_url()),
                Err(_) => format!("no bytes within {} s", STALL.as_secs()),
            };
            self.resume(why).await?;
        }
    }

    /// What the reader does not have yet.
    fn fresh(&mut self, mut chunk: Bytes) -> Option<Bytes> {
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX);
        let known = known.min(chunk.len());
        self.skip -= known as u64;
        let fresh = chunk.split_off(known);
        if fresh.is_empty() {
            return None;
        }
        self.read += fresh.len() as u64;
        self.breaks = 0;
        Some(fresh)
    }

    async fn resume(&mut self, why: String) -> Result<(), ClientError> {
        self.breaks += 1;
        if self.breaks > MAX_BREAKS {
            return Err(ClientError::Unreachable {
                tried: self.breaks,
                last: why,
            });
        }
        tracing::debug!(read = self.read, "download broke off: {why}");
        let range = format!("bytes={}-", self.read);
        let call = self.call.clone().header(RANGE.as_str(), range);
        self.response = match self.way {
            Way::Frontend => self.client.open(&call).await?,
            Way::Direct => {
                self.client.avoid_store();
                self.client.open_direct(&call).await?
            }
        };
        let partial = self.response.status() == StatusCode::PARTIAL_CONTENT;
        self.skip = if partial { 0 } else { self.read };
        Ok(())
    }
}
