//! The promise: any process of a cluster may die, hang or be cut off at any moment, and no build is
//! lost, no console has a hole, and nothing counts twice.
//!
//! Real servers, the real binary, and a workload that never stops while it happens. Each test has a
//! cluster of its own and hurts it in several ways, one after the other; then everything is judged
//! from the public API ([`verdict`]). How long recovery took is printed beside its bound.

mod blobs;
mod cluster;
mod coordination;
mod follower;
mod frontends;
mod http;
mod jobs;
mod pipelines;
#[path = "../common/processes.rs"]
mod processes;
#[path = "../common/program.rs"]
mod program;
mod proxy;
mod report;
mod scene;
mod schedules;
mod verdict;
mod workers;
mod workload;
