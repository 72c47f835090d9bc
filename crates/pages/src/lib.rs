//! The pages that people look at.
//!
//! Owns how everything looks: templates, style, small scripts, pictures drawn as SVG. Each page is one
//! struct beside one template, made from the types of the wire and rendered by [`Page::html`]. Pure:
//! no I/O, no clock, no store; whoever serves a page reads what it shows. Invariant: text that comes
//! from people, builds or repositories is escaped, and nothing on a page runs that is not in `assets/`.

mod ansi;
mod artifacts;
pub mod assets;
mod badge;
mod build;
mod chart;
mod cluster;
mod console;
mod edit;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod graph;
mod home;
mod job;
mod journal;
mod json;
mod page;
mod preview;
mod queue;
mod reports;
mod revisions;
mod search;
mod sign_in;
mod spark;
mod state;
mod time;
mod tree;
mod trouble;
mod words;
mod workers;

pub use artifacts::Artifacts;
pub use badge::Badge;
pub use build::Build;
pub use cluster::Cluster;
pub use console::{Console, View, console_lines};
pub use edit::Edit;
pub use frame::{Frame, Place};
pub use home::{Home, Row, Running};
pub use job::{Job, Wish};
pub use journal::Journal;
pub use page::{Page, Unrendered};
pub use preview::{Preview, Sight};
pub use queue::{Queue, Wanted};
pub use reports::Reports;
pub use revisions::{Compared, Revisions};
pub use search::{Found, Search, Wish as SearchWish};
pub use sign_in::SignIn;
pub use state::State;
pub use trouble::Trouble;
pub use workers::Workers;

/// A path as it stands below an address.
pub fn below(path: &str) -> String {
    words::Below(path).to_string()
}

#[cfg(test)]
mod tests;
