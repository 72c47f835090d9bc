//! What only several gateways, or none, can show.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use distci_components::{Ceph, CephPlan, ObjectStore as Osd, S3Access, shared};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tempfile::TempDir;

use super::{Deed, S3Settings, S3Trouble, Scratch};
use crate::blobs::{BlobError, BlobKey, Blobs, PART_BYTES};

mod liar;
mod trouble;

/// Above what one call may take when every gateway hangs: patience and one more try.
const BOUND: Duration = Duration::from_secs(30);

fn key(text: &str) -> BlobKey {
    BlobKey::parse(text).unwrap()
}

fn noise(length: usize) -> Bytes {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn pieces(bytes: &Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin + use<> {
    let pieces: Vec<_> = bytes
        .chunks(1 << 20)
        .map(|piece| Ok(bytes.slice_ref(piece)))
        .collect();
    stream::iter(pieces)
}

/// A Ceph that the test may hurt.
fn own_ceph(plan: &CephPlan) -> (TempDir, Ceph) {
    let dir = tempfile::tempdir().unwrap();
    let ceph = Ceph::start(&dir.path().join("ceph"), plan).unwrap();
    (dir, ceph)
}

fn two_gateways() -> (TempDir, Ceph) {
    own_ceph(&CephPlan {
        gateways: 2,
        ..CephPlan::default()
    })
}

/// Calls `deed` once, when the piece number `at` comes by.
fn when<T, E>(
    stream: impl Stream<Item = Result<T, E>> + Send + Unpin,
    at: usize,
    mut deed: impl FnMut() + Send,
) -> impl Stream<Item = Result<T, E>> + Send + Unpin {
    let mut seen = 0;
    stream.inspect(move |_| {
        seen += 1;
        if seen == at {
            deed();
        }
    })
}

#[tokio::test]
async fn an_upload_survives_the_death_of_its_gateway() {
    let (_dir, ceph) = two_gateways();
    let scratch = Scratch::on(ceph.s3());
    let (blobs, bytes) = (scratch.blobs(), noise(6 * PART_BYTES + 5));
    let stream = when(pieces(&bytes), 20, || ceph.kill("rgw.1").unwrap());
    let stored = blobs.put_stream(&key("a"), stream, u64::MAX).await.unwrap();
    assert_eq!(bytes.len() as u64, stored.bytes);
    assert!(blobs.get(&key("a"), u64::MAX).await.unwrap() == Some(bytes));
}

#[tokio::test]
async fn a_download_survives_the_death_and_the_silence_of_its_gateway() {
    let (_dir, ceph) = two_gateways();
    let scratch = Scratch::on(ceph.s3());
    let (blobs, bytes) = (scratch.blobs(), noise(32 << 20));
    blobs
        .put_stream(&key("a"), pieces(&bytes), u64::MAX)
        .await
        .unwrap();
    for (hurt, heal) in [
        (
            Ceph::pause as fn(&Ceph, &str) -> _,
            Ceph::resume as fn(&Ceph, &str) -> _,
        ),
        (Ceph::kill, Ceph::restart),
    ] {
        // A client of its own, which begins with the first gateway.
        let blobs = scratch.blobs();
        let (size, stream) = blobs.get_stream(&key("a"), 0).await.unwrap().unwrap();
        let stream = when(stream, 3, || hurt(&ceph, "rgw.1").unwrap());
        let read: Vec<_> = stream.try_collect().await.unwrap();
        assert_eq!(bytes.len() as u64, size);
        assert!(read.concat() == bytes);
        heal(&ceph, "rgw.1").unwrap();
        ceph.check().unwrap();
    }
}

#[tokio::test]
async fn without_a_gateway_the_store_is_down_and_comes_back() {
    let (_dir, ceph) = two_gateways();
    let scratch = Scratch::on(ceph.s3());
    let blobs = scratch.blobs();
    blobs.put(&key("a"), noise(5)).await.unwrap();
    for gateway in ["rgw.1", "rgw.2"] {
        ceph.kill(gateway).unwrap();
    }
    let begun = Instant::now();
    let (a, b) = (key("a"), key("b"));
    let (put, got, listed) =
        tokio::join!(blobs.put(&b, noise(5)), blobs.get(&a, 5), blobs.list(&a));
    assert!(matches!(put, Err(BlobError::Down(_))), "{put:?}");
    assert!(matches!(got, Err(BlobError::Down(_))), "{got:?}");
    assert!(matches!(listed, Err(BlobError::Down(_))), "{listed:?}");
    assert!(begun.elapsed() < BOUND);
    ceph.restart_all().unwrap();
    blobs.put(&key("b"), noise(5)).await.unwrap();
    assert_eq!(Some(noise(5)), blobs.get(&key("a"), 5).await.unwrap());
}

#[tokio::test]
async fn a_disk_that_hangs_is_only_slow() {
    let (_dir, ceph) = own_ceph(&CephPlan {
        osds: 3,
        gateways: 2,
        store: Osd::Memory,
        ..CephPlan::default()
    });
    let scratch = Scratch::on(ceph.s3());
    let blobs = scratch.blobs();
    ceph.pause("osd.1").unwrap();
    // Enough keys that some of them are on the disk that hangs.
    let puts = (0..16).map(|i| {
        let (blobs, key) = (blobs.clone(), key("a").join(&i.to_string()));
        async move { blobs.put(&key, noise(1000)).await }
    });
    for put in futures::future::join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(16, blobs.list(&key("a")).await.unwrap().len());
    ceph.resume("osd.1").unwrap();
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_blob() {
    let mut scratch = Scratch::shared();
    "no-such-bucket".clone_into(&mut scratch.settings.bucket);
    let got = scratch.blobs().get(&key("a"), 10).await;
    assert!(matches!(got, Err(BlobError::Down(_))), "{got:?}");
}

#[tokio::test]
async fn a_deletion_takes_more_than_one_page() {
    let scratch = Scratch::shared();
    let blobs = scratch.blobs();
    let puts = stream::iter(0..1100).map(|i| {
        let (blobs, key) = (blobs.clone(), key("a").join(&i.to_string()));
        async move { blobs.put(&key, Bytes::new()).await }
    });
    puts.buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await
        .unwrap();
    assert_eq!(1100, blobs.list(&key("a")).await.unwrap().len());
    blobs.delete_prefix(&key("a")).await.unwrap();
    assert!(blobs.list(&key("a")).await.unwrap().is_empty());
}

#[tokio::test]
async fn addresses_are_signed_only_where_that_is_switched_on() {
    let mut scratch = Scratch::shared();
    let minute = Duration::from_mins(1);
    let (key, blobs) = (key("a"), scratch.blobs());
    for deed in [Deed::Read, Deed::Write] {
        let url = blobs.signed(&key, deed, minute).await.unwrap().unwrap();
        assert!(url.reveal().contains("X-Amz-Signature="));
        assert!(!format!("{url:?}").contains("Signature"));
    }
    scratch.settings.signed_urls = false;
    for blobs in [scratch.blobs(), Blobs::memory()] {
        assert_eq!(None, blobs.signed(&key, Deed::Read, minute).await.unwrap());
    }
}

#[test]
fn a_secret_key_is_not_shown() {
    let mut scratch = Scratch::shared();
    "hush-hush".clone_into(&mut scratch.settings.secret_key);
    let blobs = scratch.blobs();
    assert!(!format!("{:?} {blobs:?}", scratch.settings).contains("hush-hush"));
}
