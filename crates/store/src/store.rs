//! The store as a whole: coordination and blobs together.
//!
//! Owns the two seams and the caches of what never changes. Remembers nothing that another process
//! would have to know.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use distci_model::config::JobConfig;
use lru::LruCache;

use crate::blobs::{BlobError, Blobs};
use crate::consoles::ConsoleIndexes;
use crate::coordination::embedded::{Embedded, OpenError as CoordinationError};
use crate::coordination::{Clock, Coordination, ServerFacts, Standing};
use crate::observed::{Observed, Observer};
use crate::turns::Turns;

/// Configurations kept parsed.
const CONFIGS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The shared store, concrete and typed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) coordination: Arc<dyn Coordination>,
    pub(crate) blobs: Blobs,
    pub(crate) configs: Arc<Configs>,
    pub(crate) consoles: Arc<ConsoleIndexes>,
    pub(crate) turns: Arc<Turns>,
}

/// Why an embedded store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its coordination data could not.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    /// Its blobs could not.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

impl Store {
    /// A store over these two.
    pub fn new(coordination: Arc<dyn Coordination>, blobs: Blobs) -> Self {
        Self {
            coordination,
            blobs,
            configs: Arc::default(),
            consoles: Arc::default(),
            turns: Arc::default(),
        }
    }

    /// The same store, of which somebody hears.
    #[must_use]
    pub fn observed(self, observer: Arc<dyn Observer>) -> Self {
        let tree = self.coordination;
        Self {
            blobs: self.blobs.observed(Arc::clone(&observer)),
            coordination: Arc::new(Observed { tree, observer }),
            ..self
        }
    }

    /// What the coordination store is, and the session with it. For people.
    pub fn standing(&self) -> Standing {
        self.coordination.standing()
    }

    /// The servers that are the coordination store, each asked now. For people; takes a quarter of a
    /// second at most.
    pub async fn servers(&self) -> Vec<ServerFacts> {
        self.coordination.servers().await
    }

    /// Where the blobs are, without secrets.
    pub fn blob_place(&self) -> &str {
        self.blobs.place()
    }

    /// The store of one machine: everything below `dir`, which no other process may use.
    pub fn embedded(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        let coordination = Embedded::open(dir, clock)?;
        let blobs = Blobs::directory(&dir.join("blobs"))?;
        Ok(Self::new(Arc::new(coordination), blobs))
    }
}

/// Parsed configurations by hash, flat.
#[derive(Debug)]
pub(crate) struct Configs(Mutex<LruCache<String, Arc<JobConfig>>>);

impl Default for Configs {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CONFIGS)))
    }
}

impl Configs {
    pub(crate) fn get(&self, hash: &str) -> Option<Arc<JobConfig>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(hash)
            .cloned()
    }

    pub(crate) fn put(&self, hash: String, config: Arc<JobConfig>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(hash, config);
    }
}
