//! The cluster: how it fares, as one frontend sees it.

use askama::Template;
use distci_model::Timestamp;
use distci_model::vitals::{ClusterView, PaceView, ServerView};

use crate::assets::Asset;
use crate::frame::Frame;
use crate::state::State;
use crate::time::{Ago, Took};

/// The cluster as one frontend sees it.
#[derive(Debug, Template)]
#[template(path = "cluster.html")]
pub struct Cluster {
    /// What surrounds it.
    pub frame: Frame,
    /// When it is made.
    pub now: Timestamp,
    /// How it fares.
    pub view: ClusterView,
}

impl Cluster {
    fn state(&self) -> State {
        let coordination = &self.view.coordination;
        match &coordination.trouble {
            None if coordination.current => State::Success,
            None => State::Waiting,
            Some(_) => State::Fault,
        }
    }

    fn state_of(server: &ServerView) -> State {
        match server.state {
            Some(_) => State::Success,
            None => State::Fault,
        }
    }

    fn ago(&self, at: &Timestamp) -> Ago {
        Ago {
            at: *at,
            now: self.now,
        }
    }

    /// How long a read took.
    fn read(&self) -> Option<String> {
        self.view.coordination.read_us.map(took)
    }

    /// How long it took to ask for a blob.
    fn blobs(&self) -> Option<String> {
        self.view.blobs_us.map(took)
    }

    fn median(pace: &PaceView) -> String {
        took(pace.median_us)
    }

    fn p99(pace: &PaceView) -> String {
        took(pace.p99_us)
    }

    fn words(pace: &PaceView) -> &str {
        match pace.what.as_str() {
            "request" => "answer a request",
            "read" => "read a node, or the names below one",
            "commit" => "commit",
            "catch_up" => "catch up with the store",
            "blob_put" => "store a blob",
            "blob_get" => "read a blob",
            "blob_list" => "list blobs",
            other => other,
        }
    }
}

/// A length of time in microseconds: shorter than a few milliseconds as a fraction of one.
fn took(micros: u64) -> String {
    match micros {
        0..10 => "under 0.01 ms".to_owned(),
        10..10_000 => format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10),
        _ => Took(micros / 1000).to_string(),
    }
}
