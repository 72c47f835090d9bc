//! A blob on its way to the store in parts, each through any gateway.
//!
//! Owns the upload's parts until they are one blob or gone. Nobody can read a part. Invariant: an
//! upload that is neither completed nor aborted is taken back when it is dropped, as far as the
//! process lives to do it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, MultipartUpload, ObjectStoreExt, PutPayload, PutResult, Result, UploadPart,
};

use super::gateways::{Gateways, THINK, THINK_LONG, sending, strange};

/// An upload in parts.
pub(super) struct Upload {
    gateways: Gateways,
    place: Arc<Place>,
    parts: Arc<Mutex<Vec<Option<PartId>>>>,
    bytes: u64,
    /// Whether there is something to take back.
    open: bool,
}

/// What the store knows an upload by.
#[derive(Debug)]
struct Place {
    location: Path,
    id: String,
}

impl Upload {
    pub(super) async fn begin(gateways: Gateways, location: &Path) -> Result<Self> {
        let begun = gateways.call(THINK, |gateway| async move {
            gateway.s3.create_multipart(location).await
        });
        let place = Place {
            location: location.clone(),
            id: begun.await?,
        };
        Ok(Self {
            gateways,
            place: Arc::new(place),
            parts: Arc::default(),
            bytes: 0,
            open: true,
        })
    }

    fn parts(&self) -> Result<Vec<PartId>> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Option<Vec<_>> = parts.iter().cloned().collect();
        parts.ok_or_else(|| strange("a part is missing".to_owned()))
    }

    /// Whether the parts have become the blob although nobody said so: an upload that an earlier
    /// try has completed is unknown to the store.
    async fn is_complete(&self) -> Result<bool> {
        match self.gateways.head(&self.place.location).await {
            Ok(meta) => Ok(meta.size == self.bytes),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

async fn abort(gateways: &Gateways, place: &Place) -> Result<()> {
    let aborted = gateways.call(THINK, |gateway| async move {
        gateway.s3.abort_multipart(&place.location, &place.id).await
    });
    match aborted.await {
        Err(Error::NotFound { .. }) => Ok(()),
        aborted => aborted,
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.bytes += data.content_length() as u64;
        let index = {
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.push(None);
            parts.len() - 1
        };
        let (gateways, place) = (self.gateways.clone(), Arc::clone(&self.place));
        let parts = Arc::clone(&self.parts);
        async move {
            let place = &place;
            let stored = gateways.call(sending(data.content_length()), |gateway| {
                let data = data.clone();
                async move {
                    let (location, id) = (&place.location, &place.id);
                    gateway.s3.put_part(location, id, index, data).await
                }
            });
            let part = stored.await?;
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts[index] = Some(part);
            Ok(())
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (parts, place) = (&self.parts()?, &self.place);
        let completed = self.gateways.call(THINK_LONG, |gateway| async move {
            let (location, id) = (&place.location, &place.id);
            let parts = parts.clone();
            gateway.s3.complete_multipart(location, id, parts).await
        });
        let stored = match completed.await {
            Err(Error::NotFound { .. }) if self.is_complete().await? => PutResult {
                e_tag: None,
                version: None,
                extensions: object_store::Extensions::default(),
            },
            // An upload that is gone is not a blob that is missing.
            Err(Error::NotFound { source, .. }) => {
                return Err(strange(format!("the upload is gone: {source}")));
            }
            answer => answer?,
        };
        self.open = false;
        Ok(stored)
    }

    async fn abort(&mut self) -> Result<()> {
        abort(&self.gateways, &self.place).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (gateways, place) = (self.gateways.clone(), Arc::clone(&self.place));
        self.gateways.finish(async move {
            if let Err(error) = abort(&gateways, &place).await {
                let location = &place.location;
                tracing::warn!(%location, %error, "an unfinished upload is left to be swept");
            }
        });
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("place", &self.place)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::blobs::s3::answer::meant;
    use crate::blobs::s3::{S3, Scratch};

    #[tokio::test]
    async fn a_dropped_upload_is_taken_back() {
        let s3 = S3::open(&Scratch::shared().settings).unwrap();
        let location = s3.full(&Path::from("a"));
        let mut upload = Upload::begin(s3.gateways.clone(), &location).await.unwrap();
        upload.put_part("part".into()).await.unwrap();
        let (place, gateway) = (
            Arc::clone(&upload.place),
            s3.gateways.preferred().s3.clone(),
        );
        drop(upload);
        let taken_back = async {
            while gateway
                .put_part(&place.location, &place.id, 1, "more".into())
                .await
                .map_err(meant)
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), taken_back)
            .await
            .unwrap();
    }
}
