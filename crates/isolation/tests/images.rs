//! Images from their descriptions to their end, on this machine: as root, with its tools.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in tests a panic is the report"
)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use distci_isolation::{BuildError, Image, Images, Removed};
use distci_model::isolation::ImageName;
use serde_json::json;
use tar::EntryType;
use tempfile::TempDir;

#[path = "images/archives.rs"]
mod archives;
#[path = "contract/image.rs"]
mod image;

use archives::{Tar, archive, oci, saved, through};

/// A folder of images, and one for what they are made from.
struct Stage {
    folder: TempDir,
    images: Images,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::at(folder.path().join("images"));
        Self { folder, images }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn build(&self, description: &serde_json::Value) -> Result<Image, BuildError> {
        image::build(&self.images, &name(), &description.to_string())
    }

    fn tar(&self, tar: Tar) -> Result<Image, BuildError> {
        let path = self.path("root.tar");
        tar.write(&path);
        self.build(&json!({"from": {"tar": path}}))
    }

    /// Everything that lies in the folder of images but the locks and folders that always do.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for folder in ["", ".fresh", ".editions/x"] {
            for entry in fs::read_dir(self.images.folder().join(folder))
                .into_iter()
                .flatten()
            {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if ![".lock", ".fresh", ".editions"].contains(&name.as_str()) {
                    left.push(format!("{folder}/{name}"));
                }
            }
        }
        left
    }
}

fn name() -> ImageName {
    "x".parse().unwrap()
}

/// A real Debian, made once for all work trees: it takes twenty seconds and the network.
fn debian() -> Image {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let folder = cache.unwrap().join("distci/images");
    let from = r#"{"from": {"debian": {"suite": "bookworm"}}}"#;
    image::kept(&folder, "debian-12", from)
}

fn read(image: &Image, path: &str) -> String {
    fs::read_to_string(image.root().join(path)).unwrap()
}

fn refused(built: Result<Image, BuildError>) -> String {
    built.unwrap_err().to_string()
}

#[test]
fn the_machines_busybox_is_an_image() {
    let stage = Stage::new();
    let from = json!({"from": {"busybox": true}, "env": {"A": "b"}});
    let first = stage.build(&from).unwrap();
    assert!(first.root().join("bin/sh").exists());
    assert!(first.root().join("proc").is_dir());
    let machine = fs::read_to_string("/etc/resolv.conf").unwrap();
    assert_eq!(read(&first, "etc/resolv.conf"), machine);
    assert_eq!(first.env(), [("A".to_owned(), "b".to_owned())]);
    let second = stage.build(&from).unwrap();
    assert_eq!(
        first.root(),
        second.root(),
        "the same content is the same build"
    );
    let listed = stage.images.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].source.as_str(), listed[0].cells), ("busybox", 2));
    assert!(listed[0].bytes > 500_000);
}

#[test]
fn an_image_is_known_by_its_folder_too() {
    let image = image::busybox();
    let again = Image::in_folder(image.folder()).unwrap();
    assert_eq!(again.name().as_str(), "busybox");
    assert_eq!(again.root(), image.root());
}

#[test]
fn debian_is_made_from_packages() {
    let image = debian();
    assert!(read(&image, "etc/debian_version").starts_with("12."));
    let shadow = fs::metadata(image.root().join("etc/shadow")).unwrap();
    assert_eq!(
        (shadow.uid(), shadow.gid(), shadow.mode() & 0o777),
        (0, 42, 0o640)
    );
    let mut chroot = Command::new("chroot");
    let said = chroot.arg(image.root()).args(["dpkg", "--audit"]).output();
    assert_eq!(said.unwrap().stdout, b"");
}

#[test]
fn a_tar_keeps_owners_modes_and_links_whatever_compresses_it() {
    let stage = Stage::new();
    let tar = || {
        Tar::new()
            .folder("./")
            .entry(EntryType::Regular, "./bin/su", (0o4755, 0, "#!"))
            .entry(EntryType::Regular, "home/user/f", (0o600, 1234, "mine"))
            .symlink("absolute", "/etc/passwd")
            .hard_link("bin/again", "bin/su")
            .entry(EntryType::Char, "dev/null", (0o666, 0, ""))
    };
    let first = stage.tar(tar()).unwrap();
    let found = |path: &str| fs::symlink_metadata(first.root().join(path)).unwrap();
    assert_eq!(found("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!(
        (found("home/user/f").uid(), found("home/user/f").gid()),
        (1234, 1234)
    );
    assert_eq!(found("home/user/f").mtime(), 1_000_000_000);
    assert_eq!(found("bin/again").ino(), found("bin/su").ino());
    let link = fs::read_link(first.root().join("absolute")).unwrap();
    assert_eq!(link, Path::new("/etc/passwd"));
    assert!(
        !first.root().join("dev/null").exists(),
        "cells have their own devices"
    );
    assert!(!found("dev").file_type().is_char_device());
    let plain = tar().bytes();
    let zstd = zstd::encode_all(plain.as_slice(), 0).unwrap();
    for packed in [through("gzip", &plain), through("xz", &plain), zstd] {
        let path = stage.path("packed");
        fs::write(&path, packed).unwrap();
        let image = stage.build(&json!({"from": {"tar": path}})).unwrap();
        assert_eq!(image.root(), first.root());
    }
}

#[test]
fn no_archive_gets_out_of_its_image() {
    let stage = Stage::new();
    let outside = stage.path("outside");
    fs::write(&outside, "secret").unwrap();
    let target = outside.to_str().unwrap();
    let said = refused(stage.tar(Tar::new().file("../../x", "")));
    assert!(said.contains("../../x leads out of the image"), "{said}");
    let said = refused(stage.tar(Tar::new().hard_link("mine", target)));
    assert!(said.contains("a link to"), "{said}");
    let said = refused(stage.tar(Tar::new().hard_link("mine", "../../../etc/passwd")));
    assert!(said.contains("leads out of the image"), "{said}");
    assert_eq!(stage.left(), [""; 0], "what was refused leaves nothing");
    // Links lead on, but the root that they begin at is the image's.
    let away = stage.folder.path().to_str().unwrap();
    let escape = Tar::new()
        .symlink("up", "../../../../../../../..")
        .symlink("away", away)
        .file("up/up-there", "1")
        .file("away/outside", "2");
    let image = stage.tar(escape).unwrap();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
    assert!(!Path::new("/up-there").exists());
    assert_eq!(read(&image, "up-there"), "1");
}

#[test]
fn what_is_no_archive_is_told() {
    let stage = Stage::new();
    let path = stage.path("file");
    let plain = Tar::new().file("a", &"a".repeat(100_000)).bytes();
    let mut cut = through("gzip", &plain);
    cut.truncate(cut.len() / 2);
    for (content, expected) in [
        (
            b"not a tar, only text that is long enough".repeat(40),
            "no tar archive",
        ),
        (Vec::new(), "no tar archive"),
        (plain[..20_000].to_vec(), "unexpected EOF"),
        (cut, "damaged"),
    ] {
        fs::write(&path, content).unwrap();
        let said = refused(stage.build(&json!({"from": {"tar": path}})));
        assert!(said.starts_with(path.to_str().unwrap()), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let said = refused(stage.build(&json!({"from": {"tar": "/nowhere"}})));
    assert!(
        said.contains("/nowhere") && said.contains("No such file"),
        "{said}"
    );
    let said = refused(stage.build(&json!({"from": {"oci": stage.folder.path()}})));
    assert!(said.contains("it is no image"), "{said}");
    assert_eq!(stage.left(), [""; 0]);
}

/// Layers in which each later one hides some of what was there.
fn layers() -> Vec<Vec<u8>> {
    let base = Tar::new()
        .file("etc/gone", "1")
        .file("etc/kept", "1")
        .folder("opaque/inner")
        .file("opaque/old", "1")
        .file("opaque/inner/old", "1")
        .folder("becomes-file")
        .file("replaced", "1");
    let second = Tar::new()
        .file("etc/.wh.gone", "")
        // After and before what is new: neither may hide that.
        .file("opaque/inner/new", "2")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "2")
        .file("becomes-file", "2")
        .file("replaced", "2");
    let third = Tar::new()
        .symlink("etc/link", "/etc/kept")
        .file("never/.wh.was", "")
        .file(".wh..wh.plnk", "");
    vec![base.bytes(), second.bytes(), third.bytes()]
}

fn assert_layered(image: &Image) {
    let there = |path: &str| fs::symlink_metadata(image.root().join(path)).is_ok();
    for gone in [
        "etc/gone",
        "etc/.wh.gone",
        "opaque/old",
        "opaque/inner/old",
        ".wh..wh.plnk",
    ] {
        assert!(!there(gone), "{gone}");
    }
    assert!(there("etc/kept") && there("etc/link"));
    for new in ["opaque/inner/new", "opaque/new", "becomes-file", "replaced"] {
        assert_eq!(read(image, new), "2", "{new}");
    }
    let env = image
        .env()
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let env: Vec<_> = env.collect();
    assert_eq!(env, ["PATH=/opt/bin:/bin", "LANG=C"]);
}

#[test]
fn layers_hide_what_is_below_them() {
    let stage = Stage::new();
    let layout = oci(stage.folder.path(), &layers());
    let saved = saved(stage.folder.path(), &layers());
    for path in [layout.clone(), archive(&layout), saved] {
        let from = json!({"from": {"oci": path}, "env": {"LANG": "C"}});
        assert_layered(&stage.build(&from).unwrap());
    }
}

#[test]
fn layers_that_are_damaged_or_hostile_are_refused() {
    let stage = Stage::new();
    let hostile = Tar::new().file("../../x", "").bytes();
    let layout = oci(&stage.path("a"), &[hostile]);
    let said = refused(stage.build(&json!({"from": {"oci": layout}})));
    assert!(said.contains("leads out of the image"), "{said}");

    let layout = oci(&stage.path("b"), &layers());
    for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut content = fs::read(&path).unwrap();
        if content.starts_with(b"etc/gone") {
            // The content of the first file, not the structure.
            content[512] = b'2';
            fs::write(path, content).unwrap();
        }
    }
    let said = refused(stage.build(&json!({"from": {"oci": layout}})));
    assert!(said.contains("it is damaged"), "{said}");
    assert_eq!(stage.left(), [""; 0]);
}

#[test]
fn commands_run_in_the_image_and_leave_only_files() {
    let stage = Stage::new();
    let run = [
        "echo \"$A $(id -u) $PWD\" > /made; test -e /proc/self && test -w /dev/null",
        "sleep 1000 & echo $(cat /made) again > /made-too",
    ];
    let from = json!({"from": {"busybox": true}, "env": {"A": "b"}, "run": run});
    let image = stage.build(&from).unwrap();
    assert_eq!(read(&image, "made-too"), "b 0 / again\n");
    let left = |folder: &str| fs::read_dir(image.root().join(folder)).unwrap().count();
    assert_eq!((left("dev"), left("proc"), left("tmp")), (0, 0, 0));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(stage.folder.path().to_str().unwrap()));
    let from = json!({"from": {"busybox": true}, "run": ["true", "echo sorry >&2; exit 7"]});
    assert_eq!(refused(stage.build(&from)), "run[1] ended with 7: sorry");
    assert_eq!(
        read(&stage.images.get(&name()).unwrap(), "made-too"),
        "b 0 / again\n"
    );
}

#[test]
fn who_uses_an_image_keeps_it_whatever_becomes_of_its_name() {
    let stage = Stage::new();
    let used = stage.tar(Tar::new().file("a", "1")).unwrap();
    let newer = stage.tar(Tar::new().file("a", "2")).unwrap();
    assert_eq!(
        (read(&used, "a"), read(&newer, "a")),
        ("1".to_owned(), "2".to_owned())
    );
    let also = newer.clone();
    drop(newer);
    assert_eq!(stage.images.remove(&name()).unwrap(), Removed::Later(1));
    assert!(stage.images.get(&name()).is_err(), "no new cell gets it");
    assert_eq!(read(&also, "a"), "2");
    drop((used, also));
    stage.images.collect().unwrap();
    assert_eq!(stage.left(), [""; 0]);
    drop(stage.tar(Tar::new().file("a", "3")).unwrap());
    assert_eq!(stage.images.remove(&name()).unwrap(), Removed::Gone);
    assert!(stage.images.remove(&name()).is_err());
}

#[test]
fn two_builds_of_one_name_do_not_meet() {
    let stage = Stage::new();
    let from = |content: &str| {
        let run = [format!("echo {content} > a; sleep 1; echo {content} > b")];
        json!({"from": {"busybox": true}, "run": run})
    };
    std::thread::scope(|scope| {
        for content in ["1", "2", "1"] {
            let stage = &stage;
            scope.spawn(move || {
                let image = stage.build(&from(content)).unwrap();
                assert_eq!(read(&image, "a"), read(&image, "b"));
            });
        }
    });
    stage.images.collect().unwrap();
    assert_eq!(
        stage.left().len(),
        2,
        "the name and one build: {:?}",
        stage.left()
    );
}

#[test]
fn a_full_disk_is_told_and_left_empty() {
    let stage = Stage::new();
    fs::create_dir(stage.images.folder()).unwrap();
    let mount = |arguments: &[&str]| {
        let folder = stage.images.folder();
        let mut tool = Command::new(arguments[0]);
        tool.args(&arguments[1..]).arg(folder);
        assert!(tool.status().unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "none"]);
    let busybox = json!({"from": {"busybox": true}, "run": ["head -c 9999999 /dev/zero > /x"]});
    let large = Tar::new().file("x", &"x".repeat(9_999_999));
    let built = [stage.build(&busybox), stage.tar(large)];
    let left = stage.left();
    mount(&["umount"]);
    for built in built {
        let said = refused(built);
        assert!(
            said.starts_with("the disk of") && said.ends_with("is full"),
            "{said}"
        );
    }
    assert_eq!(left, [""; 0]);
}
