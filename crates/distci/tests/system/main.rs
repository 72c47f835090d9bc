//! The whole system: the binary as people and scripts meet it, on this machine, in folders that
//! go away. Every step waits for what it needs to see, never for a time.

mod bad_input;
mod cluster;
mod commands;
mod corpus;
mod direct;
mod documents;
mod drains;
mod drill;
mod errands;
mod examples;
mod exec;
mod failover;
mod images;
mod job_files;
mod locks;
#[path = "../common/place.rs"]
mod place;
mod pools;
#[path = "../common/processes.rs"]
mod processes;
#[path = "../common/program.rs"]
mod program;
mod rig;
mod webhooks;
mod worlds;
