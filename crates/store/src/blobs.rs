//! The second seam: bytes under write-once keys, too many or too large for the shared tree.
//!
//! Owns atomic writes, ranged reads and deletion by prefix over any `object_store`. Never decides
//! what may be read: a committed record that names a key makes its blob visible to users.
//! Invariant: a key holds nothing, or all the bytes of one write; never a part.

use std::error::Error;
use std::io::{self, ErrorKind, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use distci_model::Timestamp;
use futures::future::ready;
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{Stream, StreamExt, TryStreamExt};
use http::StatusCode;
use object_store::memory::InMemory;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, MultipartUpload, ObjectStore,
    ObjectStoreExt, PutMode, UploadPart,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::observed::{Act, Observer, observe};

#[cfg(test)]
mod contract;
mod directory;
mod fickle;
mod key;
mod s3;

pub use fickle::{BlobFate, BlobFates};
pub use key::{BlobKey, InvalidBlobKey};
pub use s3::{Deed, S3Settings, S3Trouble, SignedUrl, Step};

/// What a stream is cut into. S3 takes 10 000 parts, so the largest blob, of 64 GiB, needs no less.
const PART_BYTES: usize = 8 << 20;

/// Parts that one upload holds in memory: being filled, or on their way.
const PARTS_AT_ONCE: usize = 4;

/// What is read from a file at a time; each read costs a switch to another thread.
const READ_BYTES: usize = 256 << 10;

/// A store of blobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The same store, if it is more than a store of blobs.
    s3: Option<Arc<s3::S3>>,
    /// What it is, for people.
    place: Arc<str>,
    /// Who hears of what it does.
    observer: Option<Arc<dyn Observer>>,
}

/// What a streamed write has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The size of the blob.
    pub bytes: u64,
}

/// A blob's size, and its bytes in pieces.
pub type Contents = (u64, BoxStream<'static, Result<Bytes, BlobError>>);

/// Why a blob was not stored or not read. A refused write leaves nothing that anybody can read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store has no room. Deleting helps; repeating the write does not.
    #[error("no space left for blobs")]
    Full,
    /// The blob is larger than the caller allows.
    #[error("blob is larger than {limit} bytes")]
    TooLarge {
        /// What the caller allows.
        limit: u64,
    },
    /// The stream of bytes to store broke off; its sender may begin again.
    #[error("incoming stream broke off")]
    Interrupted(#[source] io::Error),
    /// The key holds another blob, which stays. Keys are written once, so this is a bug, or
    /// somebody else writes into this store: report it.
    #[error("{key} holds {theirs} bytes already, which are not the {ours} bytes to be stored")]
    Taken {
        /// The key.
        key: BlobKey,
        /// The size of what was to be stored.
        ours: u64,
        /// The size of what is there.
        theirs: u64,
    },
    /// The store does not answer as it should. The same call may be repeated later: keys are
    /// write-once, so a repeated write stores the same bytes.
    #[error("blob store is down")]
    Down(#[source] Box<dyn Error + Send + Sync>),
}

impl Blobs {
    /// Blobs as files below `dir`, which no other process may use. What is acknowledged survives a
    /// loss of power.
    pub fn directory(dir: &Path) -> Result<Self, BlobError> {
        Ok(Self {
            store: Arc::new(directory::open(dir)?),
            s3: None,
            place: format!("the folder {}", dir.display()).into(),
            observer: None,
        })
    }

    /// Blobs in a bucket. Connects to nobody yet; [`check`](Self::check) says whether it can be
    /// used. Every call is tried at all gateways for about 12 s before it is
    /// [`BlobError::Down`].
    ///
    /// # Errors
    /// [`S3Trouble::Settings`].
    pub fn s3(settings: &S3Settings) -> Result<Self, S3Trouble> {
        let s3 = s3::S3::open(settings)?;
        Ok(Self {
            store: s3.store(),
            s3: Some(Arc::new(s3)),
            place: settings.place().into(),
            observer: None,
        })
    }

    /// Blobs in memory, for tests.
    pub fn memory() -> Self {
        Self {
            store: Arc::new(InMemory::new()),
            s3: None,
            place: "memory".into(),
            observer: None,
        }
    }

    /// Blobs in memory, to which happens what `fates` says.
    pub fn fickle(fates: BlobFates) -> Self {
        Self {
            store: Arc::new(fickle::Fickle::new(fates)),
            place: "memory that is fickle".into(),
            ..Self::memory()
        }
    }

    /// The same store, of which somebody hears.
    pub(crate) fn observed(self, observer: Arc<dyn Observer>) -> Self {
        Self {
            observer: Some(observer),
            ..self
        }
    }

    /// What the store is, in words, without secrets.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Does something of which the observer hears.
    async fn told<T>(
        &self,
        act: Act,
        work: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        observe(self.observer.as_ref(), act, work).await
    }

    /// Looks whether the store can be written, read and deleted from. Takes 10 s for a gateway
    /// that hangs.
    ///
    /// # Errors
    /// What is wrong, in words for whoever has configured it. A gateway that does not answer is no
    /// error while another does.
    pub async fn check(&self) -> Result<(), S3Trouble> {
        match &self.s3 {
            Some(s3) => s3.check().await,
            None => Ok(()),
        }
    }

    /// An address by which whoever has it may do one thing to one blob without asking us, if the
    /// store has such addresses and they are switched on.
    pub async fn signed(
        &self,
        key: &BlobKey,
        deed: Deed,
        ttl: Duration,
    ) -> Result<Option<SignedUrl>, BlobError> {
        match &self.s3 {
            Some(s3) => s3.signed(key, deed, ttl).await,
            None => Ok(None),
        }
    }

    /// Stores a small blob in one step.
    ///
    /// # Idempotence
    ///
    /// The same bytes may be stored again under their key, and a caller whose write was interrupted
    /// should do so.
    pub async fn put(&self, key: &BlobKey, bytes: Bytes) -> Result<(), BlobError> {
        self.told(Act::Put, self.put_over(key, bytes)).await
    }

    async fn put_over(&self, key: &BlobKey, bytes: Bytes) -> Result<(), BlobError> {
        self.store.put(&key.location()?, bytes.into()).await?;
        Ok(())
    }

    /// Stores a small blob under a key that nobody has written yet: a tripwire for bugs and foreign
    /// writers, nothing to be correct by. Says whether it was not there before.
    ///
    /// # Errors
    /// [`BlobError::Taken`] if the key holds a blob of another size.
    ///
    /// # Idempotence
    ///
    /// As [`put`](Self::put): a blob of the same size is taken for an earlier try of this call.
    pub async fn put_new(&self, key: &BlobKey, bytes: Bytes) -> Result<bool, BlobError> {
        self.told(Act::Put, self.put_first(key, bytes)).await
    }

    async fn put_first(&self, key: &BlobKey, bytes: Bytes) -> Result<bool, BlobError> {
        let (location, ours) = (key.location()?, bytes.len() as u64);
        let put = self
            .store
            .put_opts(&location, bytes.clone().into(), PutMode::Create.into());
        let Err(error) = put.await else {
            return Ok(true);
        };
        // Whatever went wrong, an earlier try may have stored the blob: what is there tells.
        match self.head(key).await {
            Ok(Some(theirs)) if theirs == ours => Ok(false),
            Ok(Some(theirs)) => Err(BlobError::Taken {
                key: key.clone(),
                ours,
                theirs,
            }),
            Ok(None) if knows_no_create(&error) => self.put_over(key, bytes).await.map(|()| true),
            Ok(None) | Err(_) => Err(error.into()),
        }
    }

    /// Stores what `stream` brings, at most `limit` bytes, without ever holding all of it.
    ///
    /// # Cancel safety
    ///
    /// A dropped call stores nothing.
    pub async fn put_stream(
        &self,
        key: &BlobKey,
        stream: impl Stream<Item = Result<Bytes, io::Error>> + Send + Unpin,
        limit: u64,
    ) -> Result<Stored, BlobError> {
        let mut parts = Parts {
            stream,
            rest: Bytes::new(),
            bytes: 0,
            limit,
        };
        let first = parts.next().await?;
        if first.len() < PART_BYTES {
            self.put(key, first).await?;
            return Ok(Stored { bytes: parts.bytes });
        }
        let mut upload = self.store.put_multipart(&key.location()?).await?;
        if let Err(error) = fill(&mut *upload, first, &mut parts).await {
            if let Err(error) = upload.abort().await {
                tracing::warn!(%key, %error, "an unfinished upload is left to be swept");
            }
            return Err(error);
        }
        Ok(Stored { bytes: parts.bytes })
    }

    /// A whole blob of at most `limit` bytes, if it is there.
    pub async fn get(&self, key: &BlobKey, limit: u64) -> Result<Option<Bytes>, BlobError> {
        let get = async {
            match self.open(key, None).await? {
                Some(blob) if blob.meta.size > limit => Err(BlobError::TooLarge { limit }),
                Some(blob) => Ok(Some(blob.bytes().await?)),
                None => Ok(None),
            }
        };
        self.told(Act::Get, get).await
    }

    /// The part of a blob that is within `range`, which may be empty, if the blob is there.
    pub async fn get_range(
        &self,
        key: &BlobKey,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, BlobError> {
        if range.is_empty() {
            return Ok(self.head(key).await?.map(|_| Bytes::new()));
        }
        let get = async {
            let opened = self.open_from(key, range.start, GetRange::Bounded(range));
            match opened.await? {
                Some(Opened::Some(blob)) => Ok(Some(blob.bytes().await?)),
                Some(Opened::Beyond(_)) => Ok(Some(Bytes::new())),
                None => Ok(None),
            }
        };
        self.told(Act::Get, get).await
    }

    /// The size of a blob and its bytes from `from` on, if it is there.
    pub async fn get_stream(
        &self,
        key: &BlobKey,
        from: u64,
    ) -> Result<Option<Contents>, BlobError> {
        match self.open_from(key, from, GetRange::Offset(from)).await? {
            Some(Opened::Some(blob)) => Ok(Some((blob.meta.size, pieces(blob).await?))),
            Some(Opened::Beyond(size)) => Ok(Some((size, stream::empty().boxed()))),
            None => Ok(None),
        }
    }

    /// The size of a blob, if it is there.
    pub async fn head(&self, key: &BlobKey) -> Result<Option<u64>, BlobError> {
        let size = self
            .store
            .head(&key.location()?)
            .await
            .map(|meta| meta.size);
        found(size)
    }

    /// Deletes all blobs below `prefix`.
    ///
    /// # Idempotence
    ///
    /// An interrupted deletion is repeated; what is gone already does no harm.
    pub async fn delete_prefix(&self, prefix: &BlobKey) -> Result<(), BlobError> {
        let below = self
            .store
            .list(Some(&prefix.location()?))
            .map_ok(|meta| meta.location);
        let mut deleted = self.store.delete_stream(below.boxed());
        while let Some(deleted) = deleted.next().await {
            found(deleted)?;
        }
        Ok(())
    }

    /// All blobs below `prefix` with their sizes, in the order of their names. A name is what
    /// follows the prefix and its slash.
    pub async fn list(&self, prefix: &BlobKey) -> Result<Vec<(String, u64)>, BlobError> {
        let below = format!("{prefix}/");
        let named = |meta: object_store::ObjectMeta| {
            let name = meta.location.as_ref().strip_prefix(&below)?;
            Some((name.to_owned(), meta.size))
        };
        let listed = self.store.list(Some(&prefix.location()?));
        let listed = listed.try_filter_map(|meta| ready(Ok(named(meta))));
        let list = async { Ok(listed.try_collect().await?) };
        let mut blobs: Vec<_> = self.told(Act::List, list).await?;
        blobs.sort_unstable();
        Ok(blobs)
    }

    /// When each blob below `prefix` was stored, by its name.
    pub async fn times(&self, prefix: &BlobKey) -> Result<Vec<(String, Timestamp)>, BlobError> {
        let below = format!("{prefix}/");
        let timed = |meta: object_store::ObjectMeta| {
            let name = meta.location.as_ref().strip_prefix(&below)?;
            let millis = meta.last_modified.timestamp_millis();
            let at = Timestamp::from_millisecond(millis).ok()?;
            Some((name.to_owned(), at))
        };
        let listed = self.store.list(Some(&prefix.location()?));
        let listed = listed.try_filter_map(|meta| ready(Ok(timed(meta))));
        let list = async { Ok(listed.try_collect().await?) };
        self.told(Act::List, list).await
    }

    async fn open(
        &self,
        key: &BlobKey,
        range: Option<GetRange>,
    ) -> Result<Option<GetResult>, BlobError> {
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        found(self.store.get_opts(&key.location()?, options).await)
    }

    /// Opens a range that begins at `from`. Stores differ in the error for one that begins at the
    /// end or after it, so any error makes us ask for the size.
    async fn open_from(
        &self,
        key: &BlobKey,
        from: u64,
        range: GetRange,
    ) -> Result<Option<Opened>, BlobError> {
        let range = Some(range).filter(|range| *range != GetRange::Offset(0));
        let error = match self.open(key, range).await {
            Ok(blob) => return Ok(blob.map(Opened::Some)),
            Err(error) => error,
        };
        match self.head(key).await? {
            Some(size) if size <= from => Ok(Some(Opened::Beyond(size))),
            Some(_) | None => Err(error),
        }
    }
}

/// A range of a blob that is there.
enum Opened {
    Some(GetResult),
    /// The range begins where the blob, of this size, has ended.
    Beyond(u64),
}

/// A stream cut into parts of one size, but for the last.
struct Parts<S> {
    stream: S,
    rest: Bytes,
    bytes: u64,
    limit: u64,
}

impl<S: Stream<Item = Result<Bytes, io::Error>> + Unpin> Parts<S> {
    /// The next part; shorter than the others, or empty, at the end.
    async fn next(&mut self) -> Result<Bytes, BlobError> {
        // Copied, for a part made of a million tiny pieces would be far larger than its bytes.
        let mut part = BytesMut::new();
        while part.len() < PART_BYTES {
            if self.rest.is_empty() && !self.refill().await? {
                break;
            }
            let taken = self.rest.len().min(PART_BYTES - part.len());
            part.extend_from_slice(&self.rest.split_to(taken));
        }
        Ok(part.freeze())
    }

    async fn refill(&mut self) -> Result<bool, BlobError> {
        let Some(piece) = self.stream.next().await else {
            return Ok(false);
        };
        self.rest = piece.map_err(BlobError::Interrupted)?;
        self.bytes += self.rest.len() as u64;
        if self.bytes > self.limit {
            return Err(BlobError::TooLarge { limit: self.limit });
        }
        Ok(true)
    }
}

async fn fill<S: Stream<Item = Result<Bytes, io::Error>> + Unpin>(
    upload: &mut dyn MultipartUpload,
    first: Bytes,
    parts: &mut Parts<S>,
) -> Result<(), BlobError> {
    let mut sent = FuturesUnordered::new();
    let mut part = first;
    while !part.is_empty() {
        sent.push(upload.put_part(part.into()));
        // The next one is the last that there is room for.
        while sent.len() >= PARTS_AT_ONCE {
            sent.try_next().await?;
        }
        part = meanwhile(&mut sent, parts.next()).await?;
    }
    while sent.try_next().await?.is_some() {}
    upload.complete().await?;
    Ok(())
}

/// Waits for the next part while others are sent.
async fn meanwhile(
    sent: &mut FuturesUnordered<UploadPart>,
    next: impl Future<Output = Result<Bytes, BlobError>>,
) -> Result<Bytes, BlobError> {
    let mut next = pin!(next);
    loop {
        tokio::select! {
            part = &mut next => return part,
            Some(done) = sent.next() => done?,
        }
    }
}

async fn pieces(
    blob: GetResult,
) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
    let Range { start, end } = blob.range;
    match blob.payload {
        // The library's own stream would switch threads every 8 KiB.
        GetResultPayload::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            file.seek(SeekFrom::Start(start))
                .await
                .map_err(BlobError::from_io)?;
            let reader = ReaderStream::with_capacity(file.take(end - start), READ_BYTES);
            Ok(reader.map_err(BlobError::from_io).boxed())
        }
        GetResultPayload::Stream(stream) => Ok(stream.map_err(BlobError::from).boxed()),
    }
}

fn found<T>(answer: Result<T, object_store::Error>) -> Result<Option<T>, BlobError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the store cannot create a blob only where there is none.
fn knows_no_create(error: &object_store::Error) -> bool {
    let status = s3::Answer::of(error).map(|answer| answer.status);
    matches!(error, object_store::Error::NotImplemented { .. })
        || status == Some(StatusCode::NOT_IMPLEMENTED)
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        if is_full(&error) {
            Self::Full
        } else {
            Self::Down(Box::new(error))
        }
    }
}

impl BlobError {
    fn from_io(error: io::Error) -> Self {
        if is_full(&error) {
            Self::Full
        } else {
            Self::Down(Box::new(error))
        }
    }
}

/// Whether a full disk, or a quota, is at the root of the error.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let full = |error: &(dyn Error + 'static)| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|e| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    };
    s3::Answer::of(error).is_some_and(s3::Answer::is_full)
        || std::iter::successors(Some(error), |&error| error.source()).any(full)
}
