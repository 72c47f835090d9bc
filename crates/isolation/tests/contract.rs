//! One suite of laws that every driver keeps, and the drivers that it is run on.
//!
//! All of it is real: the machine must be able to do what a driver needs, or the test fails.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests a panic is the report"
)]

#[path = "contract/bubblewrap.rs"]
mod bubblewrap;
#[path = "contract/docker.rs"]
mod docker;
#[path = "contract/image.rs"]
mod image;
#[path = "contract/laws.rs"]
mod laws;
#[path = "contract/limits.rs"]
mod limits;
#[path = "contract/lxc.rs"]
mod lxc;
#[path = "contract/podman.rs"]
mod podman;
#[path = "contract/powers.rs"]
mod powers;
#[path = "contract/process.rs"]
mod process;
#[path = "contract/qemu.rs"]
mod qemu;
#[path = "contract/scene.rs"]
mod scene;
#[path = "contract/worker.rs"]
mod worker;
