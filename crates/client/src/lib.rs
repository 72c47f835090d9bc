//! The HTTP API of DistCI as methods.
//!
//! Owns the addresses of the frontends, the token, the spelling of every path and the only retry
//! loop of the project. Never interprets what it carries: builds are followed, tickets are worked
//! and consoles are shown by its callers. Every call may be repeated, so every call is retried on
//! the next frontend until an answer comes or the deadline is over.

mod answer;
mod artifacts;
mod builds;
mod call;
mod client;
mod direct;
mod download;
mod error;
mod frontends;
mod jobs;
mod path;
mod request_id;
mod retry;
mod test_reports;
mod token;
mod webhooks;
mod work;

pub use builds::{ConsoleChunk, ConsoleFrom, Watched};
pub use client::{Client, Notice, Transport, normal_address};
pub use download::Download;
pub use error::ClientError;
pub use request_id::new_request_id;
pub use test_reports::{TestCalled, TestsWanted};
pub use token::{InvalidToken, Token};
