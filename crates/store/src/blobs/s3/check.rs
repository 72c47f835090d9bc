//! What is wrong with a store that was never right, in plain words.
//!
//! Owns the start-up check: one tiny blob is written, read and deleted through each gateway. Never
//! repairs anything, and never touches a key outside of `check/`.

use std::error::Error as StdError;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use object_store::aws::AmazonS3;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, Result};
use tokio::time::timeout;

use super::answer::{Answer, meant};
use super::gateways::{Gateway, is_stall, stalled};
use super::{S3, S3Settings};

/// Longest that each step may take: more than the 7 s for which Ceph hangs with one of its disks.
const STEP: Duration = Duration::from_secs(10);
/// What is written.
const PROBE: &[u8] = b"distci looks whether it can write, read and delete here";
/// Most characters of a foreign answer that are quoted.
const MAX_QUOTE: usize = 200;

/// Why a bucket cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum S3Trouble {
    /// The settings make no sense.
    #[error("the blob store's settings are wrong: {detail}")]
    Settings {
        /// What is wrong with them.
        detail: String,
    },
    /// No gateway answers.
    #[error(
        "no gateway of the blob store can be reached ({detail}): is the address right, does a \
         gateway listen there, and does every firewall let us through?"
    )]
    Unreachable {
        /// Each gateway, and what happened.
        detail: String,
    },
    /// Something else than an object store is there.
    #[error("{endpoint} answers, but not as S3: {said}")]
    NotS3 {
        /// The gateway.
        endpoint: String,
        /// What it said.
        said: String,
    },
    /// The store is there, but not well.
    #[error("{endpoint} has trouble of its own: {said}; look at the store's health")]
    Sick {
        /// The gateway.
        endpoint: String,
        /// What it said.
        said: String,
    },
    /// There is no such bucket.
    #[error(
        "there is no bucket {bucket:?} at {endpoint}; create it: aws --endpoint-url {endpoint} \
         s3 mb s3://{bucket}"
    )]
    NoBucket {
        /// The gateway.
        endpoint: String,
        /// The bucket.
        bucket: String,
    },
    /// The access key is unknown.
    #[error(
        "{endpoint} does not know the access key {access_key:?}; create a user with it: \
         radosgw-admin user create"
    )]
    UnknownKey {
        /// The gateway.
        endpoint: String,
        /// The access key.
        access_key: String,
    },
    /// The access key is known, the secret key is another.
    #[error("the secret key is not the one that {endpoint} has for the access key {access_key:?}")]
    WrongSecret {
        /// The gateway.
        endpoint: String,
        /// The access key.
        access_key: String,
    },
    /// The clocks differ too much for signed requests.
    #[error("the clock of this machine {}; set both by NTP", Skew { endpoint, ahead: *ahead })]
    Clock {
        /// The gateway.
        endpoint: String,
        /// By how much our clock is ahead of the gateway's, if it told.
        ahead: Option<SignedDuration>,
    },
    /// The key does not open the bucket for this.
    #[error(
        "the access key {access_key:?} may not {step} in bucket {bucket:?} at {endpoint}; let it \
         own the bucket, or give it s3:PutObject, s3:GetObject, s3:DeleteObject, s3:ListBucket"
    )]
    Denied {
        /// The gateway.
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// The access key.
        access_key: String,
        /// What it may not.
        step: Step,
    },
    /// There is no room.
    #[error("bucket {bucket:?} at {endpoint} is full: a quota is used up, or the store is")]
    Full {
        /// The gateway.
        endpoint: String,
        /// The bucket.
        bucket: String,
    },
}

/// What the check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It writes a blob.
    Write,
    /// It reads it.
    Read,
    /// It deletes it.
    Delete,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Delete => "delete",
        })
    }
}

/// The difference of two clocks in words.
struct Skew<'a> {
    endpoint: &'a str,
    ahead: Option<SignedDuration>,
}

impl std::fmt::Display for Skew<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let endpoint = self.endpoint;
        match self.ahead {
            None => write!(f, "and that of {endpoint} differ too much"),
            Some(ahead) => {
                let seconds = ahead.as_secs().unsigned_abs();
                let side = if ahead.is_negative() {
                    "behind"
                } else {
                    "ahead of"
                };
                write!(f, "is {seconds} s {side} that of {endpoint}")
            }
        }
    }
}

impl S3Trouble {
    pub(super) fn settings(detail: String) -> Self {
        Self::Settings { detail }
    }
}

/// What one gateway's check found.
enum Verdict {
    Good,
    /// It does not answer; another may.
    Silent(String),
    Bad(S3Trouble),
}

/// Who is checked, for messages.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) bucket: String,
    pub(super) access_key: String,
}

impl Subject {
    pub(super) fn of(settings: &S3Settings) -> Self {
        Self {
            bucket: settings.bucket.clone(),
            access_key: settings.access_key.clone(),
        }
    }
}

impl S3 {
    /// See [`super::super::Blobs::check`].
    pub(in super::super) async fn check(&self) -> Result<(), S3Trouble> {
        let gateways = self.gateways.all();
        let probes = gateways.iter().map(|gateway| self.check_one(gateway));
        let (mut good, mut silent, mut sick) = (false, Vec::new(), Vec::new());
        for verdict in join_all(probes).await {
            match verdict {
                Verdict::Good => good = true,
                Verdict::Silent(why) => silent.push(why),
                Verdict::Bad(trouble @ S3Trouble::Sick { .. }) => sick.push(trouble),
                Verdict::Bad(trouble) => return Err(trouble),
            }
        }
        if !good {
            let detail = silent.join("; ");
            return Err(sick.pop().unwrap_or(S3Trouble::Unreachable { detail }));
        }
        for why in silent
            .into_iter()
            .chain(sick.iter().map(ToString::to_string))
        {
            tracing::warn!("a gateway of the blob store cannot be used now: {why}");
        }
        Ok(())
    }

    async fn check_one(&self, gateway: &Gateway) -> Verdict {
        let endpoint = gateway.endpoint.to_string();
        // Others may check at the same moment: the name is one that nobody else has.
        let random = RandomState::new().hash_one(gateway.at);
        let name = format!("check/{random:016x}");
        let at = self.full(&Path::from(name));
        let (step, error) = match probe(&gateway.s3, &at).await {
            Ok(None) => return Verdict::Good,
            Ok(Some(said)) => return Verdict::Bad(S3Trouble::NotS3 { endpoint, said }),
            Err(failed) => failed,
        };
        if let Some(answer) = Answer::of(&error) {
            return Verdict::Bad(self.diagnose(endpoint, step, answer));
        }
        let said = innermost(&error);
        if is_silence(&error) {
            return Verdict::Silent(format!("{endpoint}: {said}"));
        }
        Verdict::Bad(S3Trouble::NotS3 { endpoint, said })
    }

    fn diagnose(&self, endpoint: String, step: Step, answer: &Answer) -> S3Trouble {
        let (bucket, access_key) = (self.subject.bucket.clone(), self.subject.access_key.clone());
        match answer.code.as_deref() {
            Some("NoSuchBucket") => S3Trouble::NoBucket { endpoint, bucket },
            Some("InvalidAccessKeyId") => S3Trouble::UnknownKey {
                endpoint,
                access_key,
            },
            Some("SignatureDoesNotMatch") => S3Trouble::WrongSecret {
                endpoint,
                access_key,
            },
            Some("RequestTimeTooSkewed") => S3Trouble::Clock {
                endpoint,
                ahead: answer.date.map(|theirs| now().duration_since(theirs)),
            },
            Some("AccessDenied") => S3Trouble::Denied {
                endpoint,
                bucket,
                access_key,
                step,
            },
            _ if answer.is_full() => S3Trouble::Full { endpoint, bucket },
            None if !answer.status.is_server_error() => S3Trouble::NotS3 {
                endpoint,
                said: answer.to_string(),
            },
            Some(_) | None => S3Trouble::Sick {
                endpoint,
                said: answer.to_string(),
            },
        }
    }
}

/// Writes, reads and deletes a blob. Gives what was strange about it.
async fn probe(s3: &AmazonS3, at: &Path) -> Result<Option<String>, (Step, Error)> {
    let put = s3.put(at, Bytes::from_static(PROBE).into());
    within(put).await.map_err(|error| (Step::Write, error))?;
    let get = async { s3.get(at).await?.bytes().await };
    let read = within(get).await.map_err(|error| (Step::Read, error))?;
    let delete = s3.delete(at);
    within(delete)
        .await
        .map_err(|error| (Step::Delete, error))?;
    if read != PROBE {
        let said = quote(&String::from_utf8_lossy(&read));
        return Ok(Some(format!(
            "it gave back other bytes than it took: {said}"
        )));
    }
    match within(s3.head(at)).await {
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err((Step::Read, error)),
        Ok(_) => Ok(Some("it still has what was deleted".to_owned())),
    }
}

async fn within<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = timeout(STEP, call).await;
    answer.unwrap_or_else(|_| Err(stalled(STEP))).map_err(meant)
}

/// Whether nobody answered, rather than somebody else.
fn is_silence(error: &Error) -> bool {
    let mut causes = std::iter::successors(Some(error as &(dyn StdError + 'static)), |&error| {
        error.source()
    });
    let transport = causes.find_map(|error| error.downcast_ref::<HttpError>());
    is_stall(error)
        || transport.is_some_and(|error| {
            matches!(
                error.kind(),
                HttpErrorKind::Connect | HttpErrorKind::Timeout | HttpErrorKind::Interrupted
            )
        })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the edge: two clocks are compared"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

/// The innermost error says what happened; those around it only say where.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.last().unwrap_or(error).to_string()
}

fn quote(text: &str) -> String {
    let text: String = text.trim().chars().take(MAX_QUOTE).collect();
    format!("{text:?}")
}
