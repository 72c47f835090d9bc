//! What every store of blobs must do, as tests over each of them.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};

use super::{BlobError, BlobKey, Blobs, PART_BYTES, Stored};

fn key(text: &str) -> BlobKey {
    BlobKey::parse(text).unwrap()
}

fn noise(length: usize) -> Bytes {
    (0..length)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect()
}

fn in_pieces(bytes: &Bytes, size: usize) -> impl Stream<Item = io::Result<Bytes>> + Unpin + use<> {
    let pieces: Vec<_> = bytes
        .chunks(size)
        .map(|piece| Ok(bytes.slice_ref(piece)))
        .collect();
    stream::iter(pieces)
}

async fn read(blobs: &Blobs, at: &BlobKey, from: u64) -> Option<(u64, Bytes)> {
    let (size, pieces) = blobs.get_stream(at, from).await.unwrap()?;
    Some((
        size,
        pieces
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
            .concat()
            .into(),
    ))
}

async fn names(blobs: &Blobs, prefix: &str) -> Vec<String> {
    blobs
        .list(&key(prefix))
        .await
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

async fn a_missing_blob_is_nothing(blobs: Blobs) {
    let key = key("a/b");
    assert_eq!(None, blobs.get(&key, 10).await.unwrap());
    assert_eq!(None, blobs.get_range(&key, 0..5).await.unwrap());
    assert_eq!(None, blobs.get_range(&key, 3..3).await.unwrap());
    assert_eq!(None, blobs.head(&key).await.unwrap());
    assert!(blobs.get_stream(&key, 0).await.unwrap().is_none());
    assert!(blobs.get_stream(&key, 7).await.unwrap().is_none());
}

async fn a_stored_blob_is_read_back(blobs: Blobs) {
    for size in [0, 1, 1000] {
        let key = key("a/b").join(&size.to_string());
        blobs.put(&key, noise(size)).await.unwrap();
        assert_eq!(Some(noise(size)), blobs.get(&key, 1000).await.unwrap());
        assert_eq!(Some(size as u64), blobs.head(&key).await.unwrap());
        assert_eq!(
            Some((size as u64, noise(size))),
            read(&blobs, &key, 0).await
        );
    }
}

async fn the_same_bytes_can_be_stored_again(blobs: Blobs) {
    for _ in 0..2 {
        blobs.put(&key("a"), noise(10)).await.unwrap();
        let stored = blobs
            .put_stream(&key("b"), in_pieces(&noise(10), 3), 10)
            .await
            .unwrap();
        assert_eq!(Stored { bytes: 10 }, stored);
    }
    assert_eq!(Some(noise(10)), blobs.get(&key("a"), 10).await.unwrap());
}

async fn a_blob_above_the_readers_limit_is_refused(blobs: Blobs) {
    blobs.put(&key("a"), noise(11)).await.unwrap();
    let refused = blobs.get(&key("a"), 10).await;
    assert!(matches!(refused, Err(BlobError::TooLarge { limit: 10 })));
}

async fn a_range_is_clipped_to_the_blob(blobs: Blobs) {
    let (key, bytes) = (key("a"), noise(100));
    blobs.put(&key, bytes.clone()).await.unwrap();
    for (range, clipped) in [
        (0..100, 0..100),
        (10..20, 10..20),
        (90..200, 90..100),
        (100..101, 0..0),
        (500..600, 0..0),
        (7..7, 0..0),
    ] {
        assert_eq!(
            Some(bytes.slice(clipped)),
            blobs.get_range(&key, range).await.unwrap()
        );
    }
}

async fn a_stream_begins_where_it_is_asked_to(blobs: Blobs) {
    let (key, bytes) = (key("a"), noise(1_000_000));
    blobs.put(&key, bytes.clone()).await.unwrap();
    for from in [0, 1, 999_999, 1_000_000, 2_000_000] {
        let rest = bytes.slice(from.min(bytes.len())..);
        assert_eq!(
            Some((1_000_000, rest)),
            read(&blobs, &key, from as u64).await
        );
    }
}

async fn a_stream_of_many_parts_is_one_blob(blobs: Blobs) {
    for (i, size) in [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES]
        .iter()
        .enumerate()
    {
        let (key, bytes) = (key("a").join(&i.to_string()), noise(*size));
        let size = *size as u64;
        let stored = blobs
            .put_stream(&key, in_pieces(&bytes, 70_001), size)
            .await
            .unwrap();
        assert_eq!(Stored { bytes: size }, stored);
        assert!(read(&blobs, &key, 0).await == Some((size, bytes)));
    }
}

async fn an_empty_stream_is_an_empty_blob(blobs: Blobs) {
    let stored = blobs
        .put_stream(&key("a"), stream::empty(), 0)
        .await
        .unwrap();
    assert_eq!(Stored { bytes: 0 }, stored);
    assert_eq!(Some(0), blobs.head(&key("a")).await.unwrap());
}

async fn a_stream_above_its_limit_stores_nothing(blobs: Blobs) {
    for size in [11, 3 * PART_BYTES] {
        let limit = size as u64 - 1;
        let refused = blobs
            .put_stream(&key("a/b"), in_pieces(&noise(size), 65_536), limit)
            .await;
        assert!(matches!(refused, Err(BlobError::TooLarge { limit: told }) if told == limit));
        assert!(names(&blobs, "a").await.is_empty());
    }
}

async fn a_stream_that_breaks_off_stores_nothing(blobs: Blobs) {
    for size in [10, 2 * PART_BYTES] {
        let broken = stream::iter([Err(io::Error::from(io::ErrorKind::ConnectionReset))]);
        let stream = in_pieces(&noise(size), 65_536).chain(broken);
        let refused = blobs.put_stream(&key("a/b"), stream, u64::MAX).await;
        assert!(matches!(refused, Err(BlobError::Interrupted(_))));
        assert!(names(&blobs, "a").await.is_empty());
        assert_eq!(None, blobs.head(&key("a/b")).await.unwrap());
    }
}

async fn a_dropped_stream_stores_nothing(blobs: Blobs) {
    let at = key("a/b");
    let stream = in_pieces(&noise(2 * PART_BYTES), 65_536).chain(stream::pending());
    let mut put = Box::pin(blobs.put_stream(&at, stream, u64::MAX));
    // Far enough that parts are written: as many steps as the parts can take.
    for _ in 0..50 {
        assert!(put.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(put);
    assert_eq!(None, blobs.head(&at).await.unwrap());
    assert!(names(&blobs, "a").await.is_empty());
}

async fn a_listing_is_everything_below_in_order(blobs: Blobs) {
    for (at, size) in [
        ("a/b/2", 2),
        ("a/b/10", 10),
        ("a/b/c/d", 4),
        ("a/bc", 3),
        ("x", 1),
    ] {
        blobs.put(&key(at), noise(size)).await.unwrap();
    }
    let listed = blobs.list(&key("a/b")).await.unwrap();
    let expected = [("10", 10), ("2", 2), ("c/d", 4)].map(|(name, size)| (name.to_owned(), size));
    assert_eq!(expected.to_vec(), listed);
    assert!(names(&blobs, "none").await.is_empty());
    assert!(names(&blobs, "a/b/2").await.is_empty());
}

async fn a_deleted_prefix_takes_everything_below_and_nothing_else(blobs: Blobs) {
    for at in ["a/b/1", "a/b/c/2", "a/b2", "a/bb/1", "b/1"] {
        blobs.put(&key(at), noise(5)).await.unwrap();
    }
    for _ in 0..2 {
        blobs.delete_prefix(&key("a/b")).await.unwrap();
        assert_eq!(vec!["b2", "bb/1"], names(&blobs, "a").await);
        assert_eq!(vec!["1"], names(&blobs, "b").await);
    }
    blobs.put(&key("a/b/1"), noise(5)).await.unwrap();
    assert_eq!(vec!["1"], names(&blobs, "a/b").await);
}

async fn any_joined_name_is_a_blob_of_its_own(blobs: Blobs) {
    let odd = [
        "plain",
        "..",
        ".",
        "",
        "%",
        "%25",
        "a b",
        "ä/ö",
        "x#1",
        "~",
        "a?b&c=d+e",
        "\\",
    ];
    for (i, name) in odd.iter().enumerate() {
        blobs.put(&key("a").join(name), noise(i)).await.unwrap();
    }
    for (i, name) in odd.iter().enumerate() {
        assert_eq!(
            Some(noise(i)),
            blobs.get(&key("a").join(name), 100).await.unwrap()
        );
    }
    assert_eq!(odd.len(), names(&blobs, "a").await.len());
}

async fn writers_of_one_key_do_not_mix(blobs: Blobs) {
    let at = key("a/b");
    let bytes = noise(PART_BYTES + 5);
    let stream = || in_pieces(&bytes, 1 << 20);
    let put = || blobs.put_stream(&at, stream(), u64::MAX);
    let (one, two, three) = tokio::join!(put(), put(), put());
    for stored in [one, two, three] {
        stored.unwrap();
    }
    assert!(blobs.get(&at, u64::MAX).await.unwrap() == Some(bytes.clone()));
    assert_eq!(vec!["b"], names(&blobs, "a").await);
}

async fn a_new_blob_takes_a_free_key_and_bears_repetition(blobs: Blobs) {
    let (key, bytes) = (key("a/b"), noise(1000));
    for _ in 0..2 {
        blobs.put_new(&key, bytes.clone()).await.unwrap();
        assert_eq!(Some(bytes.clone()), blobs.get(&key, 1000).await.unwrap());
    }
}

async fn a_new_blob_never_replaces_another(blobs: Blobs) {
    let (key, bytes) = (key("a/b"), noise(1000));
    blobs.put(&key, bytes.clone()).await.unwrap();
    let refused = blobs.put_new(&key, noise(999)).await;
    let Err(BlobError::Taken {
        key: told,
        ours,
        theirs,
    }) = refused
    else {
        panic!("another blob was replaced: {refused:?}");
    };
    assert_eq!((&key, 999, 1000), (&told, ours, theirs));
    assert_eq!(Some(bytes), blobs.get(&key, 1000).await.unwrap());
}

async fn of_many_writers_of_a_new_blob_one_wins(blobs: Blobs) {
    let key = key("a/b");
    let put = |size| blobs.put_new(&key, noise(size));
    let stored: Vec<_> = futures::future::join_all((1..=16).map(|i| put(i * 1000))).await;
    let won: Vec<_> = (1..=16_usize)
        .zip(stored)
        .filter_map(|(i, stored)| match stored {
            Ok(fresh) => fresh.then_some(i * 1000),
            Err(BlobError::Taken { .. }) => None,
            Err(error) => panic!("{error:?}"),
        })
        .collect();
    let [size] = won[..] else {
        panic!("{won:?} have won");
    };
    assert_eq!(Some(noise(size)), blobs.get(&key, 16_000).await.unwrap());
}

macro_rules! contract {
    ($($law:ident)*) => {
        mod directory {
            $(#[tokio::test]
            async fn $law() {
                let dir = tempfile::tempdir().unwrap();
                super::$law(super::Blobs::directory(dir.path()).unwrap()).await;
            })*
        }
        mod memory {
            $(#[tokio::test]
            async fn $law() {
                super::$law(super::Blobs::memory()).await;
            })*
        }
        mod s3 {
            $(#[tokio::test]
            async fn $law() {
                let scratch = super::super::s3::Scratch::shared();
                super::$law(scratch.blobs()).await;
                scratch.clear().await;
            })*
        }
    };
}

contract! {
    a_missing_blob_is_nothing
    a_stored_blob_is_read_back
    the_same_bytes_can_be_stored_again
    a_blob_above_the_readers_limit_is_refused
    a_range_is_clipped_to_the_blob
    a_stream_begins_where_it_is_asked_to
    a_stream_of_many_parts_is_one_blob
    an_empty_stream_is_an_empty_blob
    a_stream_above_its_limit_stores_nothing
    a_stream_that_breaks_off_stores_nothing
    a_dropped_stream_stores_nothing
    a_listing_is_everything_below_in_order
    a_deleted_prefix_takes_everything_below_and_nothing_else
    any_joined_name_is_a_blob_of_its_own
    writers_of_one_key_do_not_mix
    a_new_blob_takes_a_free_key_and_bears_repetition
    a_new_blob_never_replaces_another
    of_many_writers_of_a_new_blob_one_wins
}

#[tokio::test]
async fn a_directory_keeps_its_blobs_and_sweeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(dir.path()).unwrap();
    blobs.put(&key("a/b"), noise(10)).await.unwrap();
    drop(blobs);
    // What a process killed in mid-write leaves.
    std::fs::write(dir.path().join("a/c#1"), "half").unwrap();
    let blobs = Blobs::directory(dir.path()).unwrap();
    assert_eq!(Some(noise(10)), blobs.get(&key("a/b"), 10).await.unwrap());
    assert!(!dir.path().join("a/c#1").exists());
}

#[tokio::test]
async fn a_deleted_prefix_leaves_no_directories() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(dir.path()).unwrap();
    blobs.put(&key("a/b/c/d"), noise(1)).await.unwrap();
    blobs.delete_prefix(&key("a/b")).await.unwrap();
    assert_eq!(0, std::fs::read_dir(dir.path()).unwrap().count());
}

#[test]
fn a_full_disk_is_known_by_its_error_not_its_text() {
    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] io::Error);

    let error = |kind: io::ErrorKind| -> BlobError {
        let source = Box::new(Wrapped(kind.into()));
        object_store::Error::Generic {
            store: "test",
            source,
        }
        .into()
    };
    assert!(matches!(error(io::ErrorKind::StorageFull), BlobError::Full));
    assert!(matches!(
        error(io::ErrorKind::QuotaExceeded),
        BlobError::Full
    ));
    assert!(matches!(
        error(io::ErrorKind::PermissionDenied),
        BlobError::Down(_)
    ));
}

#[test]
fn a_store_is_shared_by_its_clones() {
    fn shared<T: Clone + Send + Sync>(_: &T) {}
    let blobs = Blobs::memory();
    shared(&blobs);
    assert_eq!(2, Arc::strong_count(&blobs.clone().store));
}
