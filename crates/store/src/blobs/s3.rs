//! Blobs in a bucket of an S3 store, reached through one or several gateways.
//!
//! Owns the settings, and the signing of addresses by which others read or write one blob for a
//! while. What a gateway that fails means is in [`gateways`]; what is wrong with a store that was
//! never right is in [`check`]. Never shows the secret key or a signed address in a log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::signer::Signer;

use super::{BlobError, BlobKey};

mod answer;
mod check;
mod gateways;
mod reading;
#[cfg(test)]
mod scratch;
#[cfg(test)]
mod tests;
mod upload;

pub(super) use answer::Answer;
use check::Subject;
pub use check::{S3Trouble, Step};
use gateways::Gateways;
#[cfg(test)]
pub(super) use scratch::Scratch;

/// Where a bucket is, and with what it opens.
#[derive(Clone)]
pub struct S3Settings {
    /// The gateways, `http://…` or `https://…`, all of one store; the first is asked until it
    /// fails.
    pub endpoints: Vec<String>,
    /// The bucket; it exists.
    pub bucket: String,
    /// The region that requests are signed for; Ceph takes any.
    pub region: String,
    /// The name of the key.
    pub access_key: String,
    /// The secret half of the key.
    pub secret_key: String,
    /// What the keys of all blobs begin with, if the bucket holds other things too.
    pub prefix: Option<String>,
    /// Whether workers may move large bytes straight to and from the store.
    pub signed_urls: bool,
}

impl S3Settings {
    /// Where the blobs are, for people: without keys, also where somebody wrote one into an address.
    pub(super) fn place(&self) -> String {
        let bare = |endpoint: &String| match endpoint.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = authority.rsplit('@').next().unwrap_or_default();
                let path = path.split(['?', '#']).next().unwrap_or_default();
                let slash = if path.is_empty() { "" } else { "/" };
                format!("{scheme}://{host}{slash}{path}")
            }
            None => endpoint.rsplit('@').next().unwrap_or_default().to_owned(),
        };
        let gateways: Vec<_> = self.endpoints.iter().map(bare).collect();
        let below = match self.prefix.as_deref() {
            None | Some("") => String::new(),
            Some(prefix) => format!(", below {prefix}"),
        };
        format!(
            "the bucket {} at {}{below}",
            self.bucket,
            gateways.join(", ")
        )
    }
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings")
            .field("endpoints", &self.endpoints)
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .field("access_key", &self.access_key)
            .field("prefix", &self.prefix)
            .field("signed_urls", &self.signed_urls)
            .finish_non_exhaustive()
    }
}

/// What the holder of a signed address may do with its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Read it, also in ranges.
    Read,
    /// Write it, whole, in one request of at most 5 GiB.
    Write,
}

/// An address that opens one blob to whoever has it, until it expires: a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl(String);

impl SignedUrl {
    /// The address itself. It goes to whom it was made for, and nowhere else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedUrl(…)")
    }
}

/// A bucket, as far as it is more than a store of blobs.
#[derive(Debug)]
pub(super) struct S3 {
    gateways: Gateways,
    prefix: Path,
    subject: Subject,
    signed_urls: bool,
}

impl S3 {
    /// Takes the settings; connects to nobody yet.
    pub(super) fn open(settings: &S3Settings) -> Result<Self, S3Trouble> {
        let prefix = match settings.prefix.as_deref() {
            None | Some("") => Path::default(),
            Some(text) => BlobKey::parse(text.trim_matches('/'))
                .map_err(|error| S3Trouble::settings(format!("prefix: {error}")))?
                .location()
                .map_err(|error| S3Trouble::settings(error.to_string()))?,
        };
        Ok(Self {
            gateways: Gateways::new(settings)?,
            prefix,
            subject: Subject::of(settings),
            signed_urls: settings.signed_urls,
        })
    }

    /// The store of blobs below the prefix.
    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(self.gateways.clone(), self.prefix.clone()))
    }

    /// See [`super::Blobs::signed`].
    pub(super) async fn signed(
        &self,
        key: &BlobKey,
        deed: Deed,
        ttl: Duration,
    ) -> Result<Option<SignedUrl>, BlobError> {
        if !self.signed_urls {
            return Ok(None);
        }
        let method = match deed {
            Deed::Read => Method::GET,
            Deed::Write => Method::PUT,
        };
        let location = self.full(&key.location()?);
        let gateway = self.gateways.preferred();
        let url = gateway.s3.signed_url(method, &location, ttl).await?;
        Ok(Some(SignedUrl(url.into())))
    }

    /// A location as the bucket knows it.
    fn full(&self, location: &Path) -> Path {
        self.prefix.parts().chain(location.parts()).collect()
    }
}
