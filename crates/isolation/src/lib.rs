//! Isolation: a fresh place for the commands of a task, and nothing of it left afterwards.
//!
//! Owns the drivers, the supervisor between a worker and a script, control groups and images. Knows
//! nothing of tickets, consoles or frontends: it is given folders, a command, a sink for the output
//! and a word when to stop.
//!
//! Whatever is made on the machine for a cell (groups, mounts, containers) is noted in its folder
//! before it is made, so that whoever comes later can undo it: see [`sweep`].

pub mod agent;
mod bridge;
mod bubblewrap;
mod cell;
mod disk;
mod docker;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group;
mod heard;
mod image;
mod journal;
mod launch;
mod lxc;
pub mod machine;
mod oci;
mod parcel;
mod podman;
mod probe;
mod process;
mod processes;
mod qemu;
mod stage;
pub mod supervisor;
mod view;

pub use bubblewrap::Bubblewrap;
pub use cell::{
    Account, Cell, Command, Ended, Excess, Finished, Isolation, Output, Place, Shared, Site, Stop,
    Terms,
};
pub use disk::{is_full, make_disk};
pub use docker::Docker;
pub use error::Error;
pub use group::Groups;
pub use image::{BuildError, Builder, Image, Images, Listed, Progress, Removed};
pub use journal::sweep;
pub use lxc::Lxc;
pub use machine::Machine;
pub use podman::Podman;
pub use process::Process;
pub use processes::{KEY_VARIABLE, kill_bearers};
pub use qemu::{Accelerator, Qemu, prepare_kernel};
