//! A blob on its way from a gateway.
//!
//! Owns the resumption of a stream that breaks off or stalls: the rest is asked for, as a range,
//! from another gateway. The reader notices nothing but a pause. Never mixes two blobs: the rest
//! must be of the same blob, by its size and tag.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, Result,
};
use tokio::time::timeout;

use super::gateways::{Gateways, THINK, stalled, strange};

/// Breaks in a row, without a byte between them, after which a blob is given up.
const MAX_BREAKS: u32 = 3;

/// Opens a blob, or a range of it, at the first gateway that answers.
pub(super) async fn open(
    gateways: &Gateways,
    location: &Path,
    options: GetOptions,
) -> Result<GetResult> {
    let without_bytes = options.head;
    let (at, blob) = ask(gateways, location, options).await?;
    if without_bytes {
        return Ok(blob);
    }
    let (meta, range, attributes) = (
        blob.meta.clone(),
        blob.range.clone(),
        blob.attributes.clone(),
    );
    let reading = Reading {
        gateways: gateways.clone(),
        at,
        meta: meta.clone(),
        rest: range.clone(),
        stream: blob.into_stream(),
        breaks: 0,
    };
    let stream = stream::try_unfold(reading, Reading::next).boxed();
    Ok(GetResult {
        payload: GetResultPayload::Stream(stream),
        meta,
        range,
        attributes,
        extensions: object_store::Extensions::default(),
    })
}

async fn ask(
    gateways: &Gateways,
    location: &Path,
    options: GetOptions,
) -> Result<(usize, GetResult)> {
    let call = gateways.call(THINK, |gateway| {
        let options = options.clone();
        async move {
            let blob = gateway.s3.get_opts(location, options).await?;
            Ok((gateway.at, blob))
        }
    });
    call.await
}

/// A stream at work.
struct Reading {
    gateways: Gateways,
    /// The gateway that it comes from.
    at: usize,
    meta: ObjectMeta,
    /// What the reader does not have yet.
    rest: Range<u64>,
    stream: BoxStream<'static, Result<Bytes>>,
    breaks: u32,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        while !self.rest.is_empty() {
            let why = match timeout(THINK, self.stream.next()).await {
                Ok(Some(Ok(bytes))) => {
                    if bytes.is_empty() {
                        continue;
                    }
                    self.rest.start += bytes.len() as u64;
                    self.breaks = 0;
                    return Ok(Some((bytes, self)));
                }
                Ok(Some(Err(error))) => error,
                Ok(None) => strange(format!("{} ended too early", self.meta.location)),
                Err(_) => stalled(THINK),
            };
            self.resume(why).await?;
        }
        Ok(None)
    }

    async fn resume(&mut self, why: Error) -> Result<()> {
        self.gateways.leave(self.at, &why);
        self.breaks += 1;
        if self.breaks > MAX_BREAKS {
            return Err(why);
        }
        tracing::debug!(location = %self.meta.location, left = ?self.rest, error = %why,
            "a blob broke off and is read on");
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.rest.clone())),
            ..GetOptions::default()
        };
        let (at, blob) = ask(&self.gateways, &self.meta.location, options).await?;
        if blob.meta.size != self.meta.size || blob.meta.e_tag != self.meta.e_tag {
            return Err(strange(format!("{} has changed", self.meta.location)));
        }
        (self.at, self.stream) = (at, blob.into_stream());
        Ok(())
    }
}
