//! The cluster: frontends and the store.

use askama::Template;
use distci_model::wire::FrontendView;

use crate::assets::Asset;
use crate::frame::Frame;
use crate::state::State;
use crate::time::Took;

/// The cluster as one frontend sees it.
#[derive(Debug, Template)]
#[template(path = "cluster.html")]
pub struct Cluster {
    /// What surrounds it.
    pub frame: Frame,
    /// The frontends, by their own account.
    pub frontends: Vec<FrontendView>,
    /// How the store stands.
    pub store: Store,
    /// What this frontend counts: name, value.
    pub counts: Vec<(&'static str, u64)>,
}

/// The store as one frontend sees it.
#[derive(Debug)]
pub struct Store {
    /// How long a read took, in milliseconds, or why there was none.
    pub read: Result<u64, String>,
    /// How it is connected, in a word.
    pub health: &'static str,
    /// Whether the frontend has taken in what it holds.
    pub is_current: bool,
}

impl Store {
    fn took(&self) -> Result<String, &str> {
        let words = |millis: &u64| match millis {
            0 => "under 1 ms".to_owned(),
            millis => Took(*millis).to_string(),
        };
        self.read.as_ref().map(words).map_err(String::as_str)
    }

    fn state(&self) -> State {
        match &self.read {
            Ok(_) if self.is_current => State::Success,
            Ok(_) => State::Waiting,
            Err(_) => State::Fault,
        }
    }
}
