//! The drivers, as a worker on this machine would set them up.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use distci_isolation::{Bubblewrap, Docker, Groups, Isolation, Lxc, Podman, Process, Qemu};
use distci_model::isolation::Driver;

use super::Bench;

/// The one of that name.
pub(super) fn of(bench: &Bench, driver: Driver) -> anyhow::Result<Box<dyn Isolation>> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_distci"));
    let supervisor: Vec<OsString> = vec![program.clone().into(), "supervise".into()];
    let groups = Groups::find();
    let busybox = PathBuf::from("/bin/busybox");
    Ok(match driver {
        Driver::Process => Box::new(Process { supervisor, groups }),
        Driver::Bubblewrap => Box::new(Bubblewrap {
            supervisor,
            groups,
            program: "bwrap".into(),
        }),
        Driver::Lxc => Box::new(Lxc { supervisor, groups }),
        Driver::Qemu => {
            let agent = (program, "agent".to_owned());
            Box::new(Qemu::new(supervisor, agent, groups, bench.kernel()))
        }
        Driver::Podman => Box::new(Podman {
            supervisor,
            groups: Groups::at_the_top(),
            program: "podman".into(),
            runtime: "runc".to_owned(),
            folder: bench.path("podman"),
            busybox,
        }),
        Driver::Docker => Box::new(Docker {
            supervisor,
            groups: Groups::at_the_top(),
            program: "docker".into(),
            host: bench.docker.as_ref().context("no daemon")?.host(),
            private: None,
            busybox,
        }),
    })
}
