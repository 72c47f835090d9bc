//! A corner of a real bucket for one test.
//!
//! Owns its prefix, which no other test has.

use std::hash::{BuildHasher, RandomState};

use distci_components::{S3Access, shared};
use futures::{StreamExt, TryStreamExt};

use super::S3Settings;
use crate::blobs::Blobs;

/// Settings with a prefix of their own. What is below it stays until [`Scratch::clear`].
pub(in super::super) struct Scratch {
    pub(super) settings: S3Settings,
}

impl Scratch {
    /// In the Ceph that all tests share.
    pub(in super::super) fn shared() -> Self {
        Self::on(&shared::ceph().unwrap())
    }

    pub(super) fn on(access: &S3Access) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        Self {
            settings: S3Settings {
                endpoints: access.endpoints.clone(),
                bucket: access.bucket.clone(),
                region: access.region.clone(),
                access_key: access.access_key.clone(),
                secret_key: access.secret_key.clone(),
                prefix: Some(format!("scratch/{random:016x}")),
                signed_urls: true,
            },
        }
    }

    pub(in super::super) fn blobs(&self) -> Blobs {
        Blobs::s3(&self.settings).unwrap()
    }

    pub(in super::super) async fn clear(&self) {
        let store = self.blobs().store;
        let all = store.list(None).map_ok(|meta| meta.location).boxed();
        store
            .delete_stream(all)
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
    }
}
