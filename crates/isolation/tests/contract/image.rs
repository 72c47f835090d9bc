//! The images of these tests, made by the product itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use distci_isolation::{BuildError, Builder, Image, Images};
use distci_model::image::ImageDescription;
use distci_model::isolation::ImageName;
use nix::fcntl::{Flock, FlockArg};
use tokio_util::sync::CancellationToken;

/// Made once in the target folder, for all tests and their later runs.
pub(crate) fn busybox() -> Image {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    kept(&folder, "busybox", r#"{"from": {"busybox": true}}"#)
}

/// The image of that name in that folder, made if it is not there yet.
pub(crate) fn kept(folder: &Path, name: &str, description: &str) -> Image {
    fs::create_dir_all(folder).unwrap();
    let lock = File::create(folder.join(format!(".{name}.lock"))).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let images = Images::at(folder.to_owned());
    let name: ImageName = name.parse().unwrap();
    images
        .get(&name)
        .unwrap_or_else(|_| build(&images, &name, description).expect("an image for these tests"))
}

/// Makes an image, on a thread of its own: tests may have a runtime already.
pub(crate) fn build(
    images: &Images,
    name: &ImageName,
    description: &str,
) -> Result<Image, BuildError> {
    let description = ImageDescription::parse(description).unwrap();
    let builder = builder(images);
    std::thread::scope(|scope| {
        let building = scope.spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(builder.build(name, &description, &mut |_| {}))
        });
        building.join().unwrap()
    })
}

fn builder(images: &Images) -> Builder {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_distci-isolation-test"));
    Builder {
        images: images.clone(),
        supervisor: vec![program.into(), "supervise".into()],
        now: distci_model::Timestamp::UNIX_EPOCH,
        stop: CancellationToken::new(),
    }
}
