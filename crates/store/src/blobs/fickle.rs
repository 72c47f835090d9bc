//! Blobs in memory that come late, or not at all, as whoever simulates a cluster wishes.
//!
//! Owns nothing but the blobs. What becomes of a call is asked before each; a blob that was stored is
//! never lost or changed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What becomes of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlobFate {
    /// How long it takes.
    pub delay: Duration,
    /// It fails, and nothing has happened.
    pub fails: bool,
    /// It happens, and whoever called hears that it has failed.
    pub is_unheard: bool,
}

/// Asked before each call.
pub type BlobFates = Arc<dyn Fn() -> BlobFate + Send + Sync>;

#[derive(Clone)]
pub(super) struct Fickle {
    blobs: Arc<InMemory>,
    fates: BlobFates,
}

impl Fickle {
    pub(super) fn new(fates: BlobFates) -> Self {
        let blobs = Arc::default();
        Self { blobs, fates }
    }

    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let fate = (self.fates)();
        tokio::time::sleep(fate.delay).await;
        if fate.fails {
            return Err(failed());
        }
        let done = work.await;
        if fate.is_unheard {
            return Err(failed());
        }
        done
    }
}

fn failed() -> Error {
    Error::Generic {
        store: "fickle",
        source: "it is out of reach".into(),
    }
}

impl fmt::Debug for Fickle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fickle").finish_non_exhaustive()
    }
}

impl fmt::Display for Fickle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fickle blobs in memory")
    }
}

#[async_trait]
impl ObjectStore for Fickle {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let work = self.blobs.put_opts(location, payload, options);
        self.call(work).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let work = self.blobs.put_multipart_opts(location, options);
        self.call(work).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.call(self.blobs.get_opts(location, options)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let begun = async move {
            this.call(async { Ok(()) }).await?;
            Ok::<_, Error>(this.blobs.delete_stream(locations))
        };
        begun.into_stream().try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, listed) = (self.clone(), self.blobs.list(prefix));
        let begun = async move {
            this.call(async { Ok(()) }).await?;
            Ok::<_, Error>(listed)
        };
        begun.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call(self.blobs.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(self.blobs.copy_opts(from, to, options)).await
    }
}
