//! The shared store of a cluster, opened at the start of a process.
//!
//! Owns the patience of a start: what may pass is tried again for half a minute, and a person is
//! told of it; what will not pass ends it at once. Never a word in the store itself.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use distci_store::Store;
use distci_store::blobs::{Blobs, S3Settings, S3Trouble};
use distci_store::coordination::zookeeper::{self, OpenError, ZooKeeper};
use tokio::time::{sleep, timeout};

use crate::config::{self, Cluster, Mechanism};

/// How long a part of the cluster may stay silent at the start.
const PATIENCE: Duration = Duration::from_secs(30);
/// After how long a person is told what is waited for.
const NOTICE: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// What connecting may take longer than ZooKeeper's session, to find out why it was in vain.
const REASONS: Duration = Duration::from_secs(10);

/// Opens the store of a cluster, and sees that it can be used. `found` hears of each part.
pub(crate) async fn open(
    cluster: &Cluster,
    mut found: impl FnMut(String) -> Result<()>,
) -> Result<Store> {
    let zookeeper = zookeeper(&cluster.zookeeper).await?;
    let hosts = cluster.zookeeper.hosts.join(", ");
    found(format!(
        "ZooKeeper at {hosts} gives sessions, and its node {} can be used",
        cluster.zookeeper.chroot
    ))?;
    let blobs = blobs(&cluster.s3).await?;
    let endpoints = cluster.s3.endpoints.join(", ");
    found(format!(
        "bucket {} at {endpoints} can be written, read and deleted from",
        cluster.s3.bucket
    ))?;
    Ok(Store::new(Arc::new(zookeeper), blobs))
}

async fn zookeeper(section: &config::ZooKeeper) -> Result<ZooKeeper> {
    let settings = settings(section);
    let what = format!("ZooKeeper at {}", settings.hosts);
    let patience = PATIENCE.max(settings.session_timeout + REASONS);
    let passes = |error: &OpenError| match error {
        OpenError::Unreachable { .. } | OpenError::ReadOnly { .. } | OpenError::Lost { .. } => true,
        OpenError::Setting { .. }
        | OpenError::Certificate { .. }
        | OpenError::Authentication { .. }
        | OpenError::TooOld { .. }
        | OpenError::Access { .. } => false,
    };
    let attempt = || ZooKeeper::connect(settings.clone());
    patiently(&what, patience, attempt, passes).await
}

fn settings(section: &config::ZooKeeper) -> zookeeper::Settings {
    let identity = match &section.identity {
        None => zookeeper::Identity::Anonymous,
        Some(identity) => {
            let user = identity.user.clone();
            let password = identity.password.reveal().to_owned();
            match identity.mechanism {
                Mechanism::Digest => zookeeper::Identity::Digest { user, password },
                Mechanism::Sasl => zookeeper::Identity::Sasl { user, password },
            }
        }
    };
    let tls = section.tls.clone().map(|files| zookeeper::Tls {
        ca: files.ca,
        certificate: files.certificate,
        key: files.key,
    });
    zookeeper::Settings {
        hosts: section.hosts.join(","),
        chroot: section.chroot.clone(),
        session_timeout: section.session_timeout,
        identity,
        tls,
    }
}

async fn blobs(section: &config::S3) -> Result<Blobs> {
    let blobs = Blobs::s3(&S3Settings {
        endpoints: section.endpoints.clone(),
        bucket: section.bucket.clone(),
        region: section.region.clone(),
        access_key: section.access_key.clone(),
        secret_key: section.secret_key.reveal().to_owned(),
        prefix: section.prefix.clone(),
        signed_urls: section.signed_urls,
    })?;
    let what = format!(
        "bucket {} at {}",
        section.bucket,
        section.endpoints.join(", ")
    );
    let passes = |error: &S3Trouble| {
        matches!(
            error,
            S3Trouble::Unreachable { .. } | S3Trouble::Sick { .. }
        )
    };
    patiently(&what, PATIENCE, || blobs.check(), passes).await?;
    Ok(blobs)
}

/// Tries again what may pass, for as long as `patience`. Gives the last reason.
async fn patiently<T, E, F>(
    what: &str,
    patience: Duration,
    attempt: impl Fn() -> F,
    passes: impl Fn(&E) -> bool,
) -> Result<T>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Error> + Display,
{
    let mut last = None;
    let trying = async {
        loop {
            match attempt().await {
                Err(error) if passes(&error) => last = Some(error),
                ended => return ended.map_err(Into::into),
            }
            sleep(PAUSE).await;
        }
    };
    let notice = async {
        sleep(NOTICE).await;
        let seconds = patience.as_secs();
        tracing::info!("waiting for {what}; giving up after {seconds} s");
        pending::<Infallible>().await
    };
    let ended = tokio::select! {
        ended = timeout(patience, trying) => ended,
        never = notice => match never {},
    };
    ended.unwrap_or_else(|_| {
        let why = last.map_or_else(|| anyhow!("no answer"), Into::into);
        Err(why.context(format!("gave up on {what} after {} s", patience.as_secs())))
    })
}
