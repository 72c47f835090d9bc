//! The driver that makes a virtual machine for each command, here without the help of a processor.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use distci_isolation::{
    Accelerator, Ended, Error, Groups, Image, Isolation, Qemu, Terms, prepare_kernel,
};
use distci_model::isolation::{Network, Size};

use crate::image::busybox;
use crate::laws::contract;
use crate::scene::{Scene, Subject, never, program, run, supervisor};

/// Made once in the target folder, for all tests and their later runs.
fn kernel() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel");
    prepare_kernel(&folder).unwrap();
    folder
}

fn qemu() -> Qemu {
    let groups = Groups::find();
    assert_eq!(groups.trouble(), None);
    let agent = (program().into(), "agent".to_owned());
    Qemu::new(supervisor(), agent, groups, kernel())
}

fn subject() -> Subject {
    subject_of(qemu().with_accelerator(Accelerator::Tcg), busybox())
}

fn subject_of(qemu: Qemu, image: Image) -> Subject {
    Subject {
        isolation: Box::new(qemu),
        image: Some(image),
        networks: &[Network::None, Network::Host],
        scale: 25,
    }
}

contract!(subject());
