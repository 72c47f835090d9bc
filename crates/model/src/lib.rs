//! The nouns and laws of DistCI.
//!
//! Owns every type that crosses a process border or reaches the store, and the pure functions that
//! decide what may happen: [`plan::plan`] for one ticket, [`decide::decide`] for one build,
//! [`errand::after`] for what belongs to none.
//! Never does I/O, never awaits, never reads a clock, never draws a random number.

#![warn(clippy::wildcard_enum_match_arm)] // a law names every case

pub mod build;
pub mod cache;
pub mod capability;
pub mod config;
pub mod console;
pub mod decide;
pub mod drain;
pub mod errand;
pub mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod id;
pub mod image;
pub mod isolation;
pub mod journal;
pub mod lease;
pub mod lock;
pub mod order;
pub mod outcome;
pub mod past;
pub mod plan;
pub mod pool;
pub mod rerun;
pub mod revision;
pub mod schedule;
pub mod test_report;
pub mod ticket;
pub mod vitals;
pub mod why;
pub mod wire;

/// A point in time, UTC. Only orders and schedules; never decides who owns a ticket.
pub type Timestamp = jiff::Timestamp;
