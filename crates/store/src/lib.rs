//! The shared store: the only code that knows redb and object stores.
//!
//! Owns two seams, [`coordination`] and [`blobs`], and on top of them the typed store: jobs,
//! builds, tickets, consoles, artifacts, history. Never knows HTTP and never decides a rule: the
//! laws are in `distci-model`. Invariant: each transition of a ticket is exactly one commit.

mod admission;
mod artifacts;
pub mod blobs;
mod builds;
mod caches;
mod cancel;
mod cluster;
mod consoles;
mod control;
pub mod coordination;
mod deliveries;
mod drains;
mod errands;
mod error;
mod events;
mod fsck;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod history;
mod index;
mod job_files;
mod job_news;
mod jobs;
mod journals;
pub mod keys;
mod locks;
mod meta;
mod migrate;
mod observed;
mod reruns;
mod revisions;
mod schedules;
mod store;
mod test_reports;
mod tickets;
mod transaction;
mod turns;
mod wishes;

pub use artifacts::{LayerOf, StoredArtifact, Upload};
pub use builds::{Posted, Which};
pub use cluster::{Card, ClusterNews, ClusterWatch, DigestNode};
pub use consoles::{
    ConsoleHome, ConsolePart, FoundLines, Line, Lines, LinesFrom, MAX_LINE, Match, Search,
};
pub use drains::{DrainNews, DrainWatch};
pub use error::StoreError;
pub use events::{EventPost, Offered};
pub use fsck::{Checked, Checkup, Finding, Flaw, Mending};
pub use history::JobHead;
pub use index::{IndexNews, IndexWatch};
pub use job_news::{JobNews, JobWatch};
pub use jobs::{Expected, Put};
pub use locks::{Blocked, HeldSlot, LockNews, LockWatch};
pub use meta::{Meta, PrepareError, SCHEMA};
pub use migrate::{Copied, MigrateError, Stage};
pub use observed::{Act, Observer};
pub use schedules::{Fired, Planned, Timetable, TimetableNews, TimetableWatch};
pub use store::{OpenError, Store};
pub use test_reports::{BuildTests, Lately};
pub use tickets::{Claiming, TicketFacts};
