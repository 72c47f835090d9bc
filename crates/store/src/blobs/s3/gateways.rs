//! The gateways of one bucket as one store: what one cannot do now, another is asked for.
//!
//! Owns the choice of the gateway, the time that a call may take, and its repetition. Everything
//! that is repeated here may be: keys are written once, so a repeated write stores the same bytes.
//! Invariant: a call ends within [`PATIENCE`] and one more try, and is tried at every gateway.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    ClientOptions, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    RetryConfig,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::answer::{Answer, Connector, meant};
use super::reading;
use super::upload::Upload;
use super::{S3Settings, S3Trouble};

/// Between two lines about gateways that fail.
const QUIET: Duration = Duration::from_secs(10);

/// Longest that a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest that a gateway may think. Ceph lets calls hang for about 7 s when one of its disks
/// hangs: the second try, which begins after 5 s, then finds the others at work.
pub(super) const THINK: Duration = Duration::from_secs(5);
/// Longest that a gateway may think about what it does in proportion to a large blob: putting
/// together thousands of parts.
pub(super) const THINK_LONG: Duration = Duration::from_secs(30);
/// A gateway that takes fewer bytes a second than this is given up.
const SLOWEST: u64 = 1 << 20;
/// After this no further try begins, provided that there was one at each gateway and one more.
/// With [`THINK`] it stays below the 20 s for which clients wait for a frontend's answer.
const PATIENCE: Duration = Duration::from_secs(12);
/// What follows a round in which every gateway has failed; it doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Idle connections are let go before Ceph's gateway closes them after 65 s.
const IDLE: Duration = Duration::from_secs(30);
/// Keys in one bulk deletion: a busy Ceph takes 6 ms for each.
const DELETED_AT_ONCE: usize = 100;
/// Bulk deletions under way.
const DELETIONS: usize = 4;

/// One gateway.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    /// Its place among the gateways.
    pub(super) at: usize,
    pub(super) endpoint: Arc<str>,
    pub(super) s3: AmazonS3,
}

/// All gateways of a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Gateways {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Never empty.
    gateways: Vec<Gateway>,
    /// The place of the one that is asked first.
    preferred: AtomicUsize,
    /// When a change of it was last worth a line.
    said: Mutex<Option<Instant>>,
    /// Unfinished uploads that are being taken back.
    aborts: Mutex<JoinSet<()>>,
}

impl Shared {
    /// While all gateways are away, each call goes round: one line in a while says as much.
    fn is_worth_a_line(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let worth = said.is_none_or(|said| said.elapsed() >= QUIET);
        if worth {
            *said = Some(Instant::now());
        }
        worth
    }
}

impl Gateways {
    pub(super) fn new(settings: &S3Settings) -> Result<Self, S3Trouble> {
        if settings.endpoints.is_empty() {
            return Err(S3Trouble::settings("there is no endpoint".to_owned()));
        }
        let gateways = settings.endpoints.iter().enumerate();
        let gateways = gateways.map(|(at, endpoint)| gateway(settings, at, endpoint));
        Ok(Self {
            shared: Arc::new(Shared {
                gateways: gateways.collect::<Result<_, _>>()?,
                preferred: AtomicUsize::new(0),
                said: Mutex::default(),
                aborts: Mutex::default(),
            }),
        })
    }

    pub(super) fn all(&self) -> &[Gateway] {
        &self.shared.gateways
    }

    /// The gateway that is asked first.
    pub(super) fn preferred(&self) -> &Gateway {
        let at = self.shared.preferred.load(Ordering::Relaxed);
        &self.shared.gateways[at % self.shared.gateways.len()]
    }

    /// Prefers the next gateway to one that failed, unless somebody else has done so.
    pub(super) fn leave(&self, failed: usize, why: &Error) {
        let next = (failed + 1) % self.shared.gateways.len();
        let preferred = &self.shared.preferred;
        let left = preferred
            .compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if left && next != failed {
            let [from, to] = [failed, next].map(|at| &*self.shared.gateways[at].endpoint);
            if self.shared.is_worth_a_line() {
                tracing::warn!(from, to, error = %why, "another gateway of the blob store is asked");
            } else {
                tracing::debug!(from, to, error = %why, "another gateway, again");
            }
        }
    }

    /// Makes a call at one gateway after the other, each time for at most `limit`, until one
    /// answers or patience is at its end.
    ///
    /// # Idempotence
    ///
    /// The call may be made several times, also when an earlier one had its effect.
    pub(super) async fn call<T, F>(&self, limit: Duration, call: impl Fn(Gateway) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let begun = Instant::now();
        let mut failures = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            let gateway = self.preferred().clone();
            let at = gateway.at;
            let answer = timeout(limit, call(gateway)).await;
            let error = match answer.unwrap_or_else(|_| Err(stalled(limit))) {
                Ok(answer) => return Ok(answer),
                Err(error) => meant(error),
            };
            if !is_passing(&error) {
                return Err(error);
            }
            self.leave(at, &error);
            failures += 1;
            let gateways = self.shared.gateways.len();
            if begun.elapsed() >= PATIENCE && failures > gateways {
                return Err(error);
            }
            if failures % gateways == 0 {
                sleep(pause).await;
                pause = LAST_PAUSE.min(pause * 2);
            }
        }
    }

    /// Finishes `abort` in the background. What the process does not get to is left to the
    /// bucket's rule for unfinished uploads.
    pub(super) fn finish(&self, abort: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let aborts = &self.shared.aborts;
        let mut aborts = aborts.lock().unwrap_or_else(PoisonError::into_inner);
        while aborts.try_join_next().is_some() {}
        aborts.spawn_on(abort, &runtime);
    }

    /// Deletes at most [`DELETED_AT_ONCE`] blobs; one that is gone already does no harm.
    async fn delete(&self, locations: Vec<Path>) -> Result<Vec<Path>> {
        self.call(THINK, |gateway| {
            let locations = stream::iter(locations.clone()).map(Ok).boxed();
            async move { gateway.s3.delete_stream(locations).try_collect().await }
        })
        .await
    }

    async fn page(&self, prefix: Option<String>, token: Option<String>) -> Result<Page> {
        let page = self.call(THINK, |gateway| {
            let (prefix, token) = (prefix.clone(), token.clone());
            async move {
                let options = PaginatedListOptions {
                    page_token: token,
                    ..PaginatedListOptions::default()
                };
                gateway.s3.list_paginated(prefix.as_deref(), options).await
            }
        });
        let page = page.await?;
        Ok(Page {
            objects: page.result.objects,
            next: page.page_token,
        })
    }
}

/// A part of a listing, and where it goes on.
struct Page {
    objects: Vec<ObjectMeta>,
    next: Option<String>,
}

/// The time in which a gateway must have taken this many bytes.
pub(super) fn sending(bytes: usize) -> Duration {
    THINK + Duration::from_secs(bytes as u64 / SLOWEST)
}

/// A gateway took longer than it may.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
struct Stall(Duration);

pub(super) fn stalled(limit: Duration) -> Error {
    Error::Generic {
        store: "S3",
        source: Box::new(Stall(limit)),
    }
}

/// Whether a gateway took longer than it may.
pub(super) fn is_stall(error: &Error) -> bool {
    matches!(error, Error::Generic { source, .. } if source.is::<Stall>())
}

pub(super) fn strange(what: String) -> Error {
    Error::Generic {
        store: "S3",
        source: what.into(),
    }
}

/// Whether another gateway, or the same one later, may do better.
fn is_passing(error: &Error) -> bool {
    if !matches!(error, Error::Generic { .. } | Error::JoinError { .. }) {
        return false;
    }
    // Without an answer there was a connection that broke, or nonsense.
    Answer::of(error).is_none_or(|answer| match answer.status {
        StatusCode::NOT_IMPLEMENTED | StatusCode::INSUFFICIENT_STORAGE => false,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        status => status.is_server_error(),
    })
}

fn gateway(settings: &S3Settings, at: usize, endpoint: &str) -> Result<Gateway, S3Trouble> {
    let endpoint = endpoint.trim().trim_end_matches('/');
    let told = || S3Trouble::settings(format!("{endpoint:?} is no http:// or https:// address"));
    let address: http::Uri = endpoint.parse().map_err(|_| told())?;
    let plain = match address.scheme_str() {
        Some("http") => true,
        Some("https") => false,
        _ => return Err(told()),
    };
    if address.query().is_some() || endpoint.contains('@') {
        return Err(told());
    }
    let s3 = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_access_key_id(&settings.access_key)
        .with_secret_access_key(&settings.secret_key)
        .with_client_options(options(plain))
        .with_http_connector(Connector::default())
        // The one retry loop is `Gateways::call`: it knows the other gateways.
        .with_retry(RetryConfig {
            max_retries: 0,
            retry_timeout: Duration::ZERO,
            ..RetryConfig::default()
        })
        .build()
        .map_err(|error| S3Trouble::settings(error.to_string()))?;
    Ok(Gateway {
        at,
        endpoint: endpoint.into(),
        s3,
    })
}

/// How a gateway is spoken to. A transfer may take as long as it goes on; what may not is bounded
/// by each call. The system's certificates are read only where they are needed.
fn options(plain: bool) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT)
        .with_pool_idle_timeout(IDLE)
        .with_allow_http(plain)
        .with_no_system_certificates(plain)
}

impl fmt::Display for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3({} gateways)", self.shared.gateways.len())
    }
}

#[async_trait]
impl ObjectStore for Gateways {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.call(sending(payload.content_length()), |gateway| {
            let (payload, options) = (payload.clone(), options.clone());
            async move { gateway.s3.put_opts(location, payload, options).await }
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload::begin(self.clone(), location).await?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        reading::open(self, location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let gateways = self.clone();
        locations
            .try_chunks(DELETED_AT_ONCE)
            .map_err(|error| error.1)
            .map_ok(move |locations| {
                let gateways = gateways.clone();
                async move { gateways.delete(locations).await }
            })
            .try_buffered(DELETIONS)
            .map_ok(|deleted| stream::iter(deleted).map(Ok))
            .try_flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.filter(|prefix| !prefix.as_ref().is_empty());
        let prefix = prefix.map(|prefix| format!("{prefix}/"));
        let begin = (self.clone(), prefix, Some(None));
        stream::try_unfold(begin, |(gateways, prefix, token)| async move {
            let Some(token) = token else {
                return Ok::<_, Error>(None);
            };
            let page = gateways.page(prefix.clone(), token).await?;
            let next = (gateways, prefix, page.next.map(Some));
            Ok(Some((stream::iter(page.objects).map(Ok), next)))
        })
        .try_flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call(THINK, |gateway| async move {
            gateway.s3.list_with_delimiter(prefix).await
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(THINK_LONG, |gateway| {
            let options = options.clone();
            async move { gateway.s3.copy_opts(from, to, options).await }
        })
        .await
    }
}
