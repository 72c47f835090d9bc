use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::workspace::path::Name;
use crate::workspace::snapshot::Snapshot;

/// A workspace in which one task after the other works.
struct Bench {
    folder: TempDir,
}

type Layer = (TaskName, Vec<TaskName>, Vec<u8>);

fn task(name: &str) -> TaskName {
    name.parse().unwrap()
}

fn path(text: &str) -> EntryPath {
    EntryPath::new(text.as_bytes()).unwrap()
}

impl Bench {
    /// A workspace with `layers` restored.
    fn new(layers: &[&Layer]) -> Result<Self, RestoreError> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("workspace");
        fs::create_dir(&root).unwrap();
        let mut restoring = Restoring::begin(&root).unwrap();
        for (task, on, bytes) in layers {
            restoring.lay(task, on, bytes.as_slice())?;
        }
        restoring.finish()?;
        Ok(Self { folder })
    }

    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("workspace")
    }

    /// The layer of a task that does `work` here.
    fn layer(&self, name: &str, on: &[&str], work: impl FnOnce(&Path)) -> Layer {
        let mut before = Snapshot::take(&self.root()).unwrap();
        before.outwait(&self.folder.path().join("probe")).unwrap();
        work(&self.root());
        let changes = before.changes(&Snapshot::take(&self.root()).unwrap());
        let file = self.folder.path().join("layer");
        layer::write(&self.root(), &changes, &file).unwrap();
        let on = on.iter().map(|name| task(name)).collect();
        (task(name), on, fs::read(file).unwrap())
    }
}

#[test]
fn everything_that_people_notice_is_kept() {
    let odd = OsStr::from_bytes(b"caf\xe9 \n%41");
    let time =
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let layer = Bench::new(&[]).unwrap().layer("a", &[], |root| {
        fs::create_dir(root.join("empty")).unwrap();
        fs::create_dir(root.join("closed")).unwrap();
        fs::write(root.join("closed/in"), "in").unwrap();
        fs::write(root.join(odd), "odd").unwrap();
        fs::write(root.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("run"), Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(root.join("run"), root.join("twin")).unwrap();
        symlink("../no/such place", root.join("dangling")).unwrap();
        fs::set_permissions(root.join("closed"), Permissions::from_mode(0o555)).unwrap();
        for name in ["run", "closed"] {
            File::open(root.join(name))
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
    });
    let bench = Bench::new(&[&layer]).unwrap();
    let root = bench.root();
    assert!(root.join("empty").is_dir());
    assert_eq!(fs::read(root.join(odd)).unwrap(), b"odd");
    assert_eq!(fs::read(root.join("twin")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(
        fs::read_link(root.join("dangling")).unwrap(),
        Path::new("../no/such place")
    );
    let (run, closed) = (
        fs::metadata(root.join("run")).unwrap(),
        fs::metadata(root.join("closed")).unwrap(),
    );
    assert_eq!(
        (run.mode() & 0o7777, closed.mode() & 0o7777),
        (0o4751, 0o555)
    );
    assert_eq!(
        (run.modified().unwrap(), closed.modified().unwrap()),
        (time, time)
    );
}

#[test]
fn no_work_makes_no_layer() {
    let base = Bench::new(&[]).unwrap().layer("a", &[], |root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "x").unwrap();
    });
    let bench = Bench::new(&[&base]).unwrap();
    let before = Snapshot::take(&bench.root()).unwrap();
    assert!(
        before
            .changes(&Snapshot::take(&bench.root()).unwrap())
            .is_empty()
    );
}

#[test]
fn a_removal_travels() {
    let base = Bench::new(&[]).unwrap().layer("a", &[], |root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/e/f"), "x").unwrap();
        fs::write(root.join("g"), "x").unwrap();
    });
    let gone = Bench::new(&[&base]).unwrap().layer("b", &["a"], |root| {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::remove_file(root.join("g")).unwrap();
        fs::create_dir(root.join("g")).unwrap();
    });
    let root = Bench::new(&[&base, &gone]).unwrap();
    assert!(!root.root().join("d").exists());
    assert!(root.root().join("g").is_dir());
}

#[test]
fn a_layer_holds_only_what_changed() {
    let base = Bench::new(&[]).unwrap().layer("a", &[], |root| {
        let noise: Vec<u8> = (0..1_000_000_u32)
            .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..1].to_vec())
            .collect();
        fs::write(root.join("large"), noise).unwrap();
    });
    let small = Bench::new(&[&base]).unwrap().layer("b", &["a"], |root| {
        fs::write(root.join("small"), "x").unwrap();
    });
    assert!(base.2.len() > 900_000);
    assert!(small.2.len() < 2_000);
}

/// `base`, and two tasks on it that do not know of each other.
fn diamond(left: impl FnOnce(&Path), right: impl FnOnce(&Path)) -> Result<Bench, RestoreError> {
    let base = Bench::new(&[])?.layer("base", &[], |root| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("shared"), "base").unwrap();
    });
    let left = Bench::new(&[&base])?.layer("left", &["base"], left);
    let right = Bench::new(&[&base])?.layer("right", &["base"], right);
    Bench::new(&[&base, &left, &right])
}

#[test]
fn parallel_tasks_that_keep_apart_are_merged() {
    let bench = diamond(
        |root| fs::write(root.join("dir/left"), "l").unwrap(),
        |root| fs::write(root.join("dir/right"), "r").unwrap(),
    );
    let root = bench.unwrap().root();
    drop(root);
}

#[test]
fn parallel_tasks_that_agree_are_merged() {
    let work = |root: &Path| fs::write(root.join("shared"), "same").unwrap();
    let bench = diamond(work, work).unwrap();
    assert_eq!(fs::read(bench.root().join("shared")).unwrap(), b"same");
}

#[test]
fn parallel_tasks_that_differ_are_refused() {
    let conflict = |result: Result<Bench, RestoreError>| match result {
        Err(RestoreError::Conflict(path)) => path.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("there was no conflict"),
    };
    let write =
        |text: &'static str| move |root: &Path| fs::write(root.join("shared"), text).unwrap();
    assert_eq!(conflict(diamond(write("l"), write("r"))), "shared");
    let remove = |root: &Path| fs::remove_file(root.join("shared")).unwrap();
    assert_eq!(conflict(diamond(write("l"), remove)), "shared");
    let fill = |root: &Path| fs::write(root.join("dir/x"), "").unwrap();
    let empty = |root: &Path| fs::remove_dir(root.join("dir")).unwrap();
    assert_eq!(conflict(diamond(fill, empty)), "dir");
}

#[test]
fn a_task_may_settle_what_it_was_made_on() {
    let write = |text: &'static str| move |root: &Path| fs::write(root.join("f"), text).unwrap();
    let left = Bench::new(&[]).unwrap().layer("left", &[], write("l"));
    let after = Bench::new(&[&left])
        .unwrap()
        .layer("after", &["left"], write("final"));
    let bench = Bench::new(&[&left, &after]).unwrap();
    assert_eq!(fs::read(bench.root().join("f")).unwrap(), b"final");
    // An equal writing by somebody whom the settler does not know is still a conflict.
    let right = Bench::new(&[]).unwrap().layer("right", &[], write("l"));
    let merged = Bench::new(&[&left, &right, &after]);
    assert!(matches!(merged, Err(RestoreError::Conflict(_))));
}

fn forged(entries: Vec<(Entry, &[u8])>, removed: Vec<EntryPath>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let contents: Vec<Vec<u8>> = entries.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    let files: Vec<bool> = entries
        .iter()
        .map(|(entry, _)| matches!(entry.content, Content::File { .. }))
        .collect();
    let index = Index::forged(
        entries.into_iter().map(|(entry, _)| entry).collect(),
        removed,
    );
    let mut append = |bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive
            .append_data(&mut header, ".distci-layer.json", bytes)
            .unwrap();
    };
    append(&serde_json::to_vec(&index).unwrap());
    for (bytes, _) in contents.iter().zip(files).filter(|(_, is_file)| *is_file) {
        append(bytes);
    }
    zstd::encode_all(archive.into_inner().unwrap().as_slice(), 0).unwrap()
}

fn entry(name: &str, content: Content) -> Entry {
    Entry {
        path: path(name),
        mode: 0o644,
        modified: Moment(0, 0),
        content,
    }
}

fn file(bytes: u64) -> Content {
    Content::File {
        bytes,
        digest: blake3::hash(b"evil").to_hex().to_string(),
    }
}

#[test]
fn an_evil_layer_cannot_leave_the_workspace() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "").unwrap();
    let target = Name::new(outside.path().as_os_str().as_bytes());
    let door = || {
        entry(
            "door",
            Content::Link {
                target: target.clone(),
            },
        )
    };
    let written = forged(
        vec![(door(), b""), (entry("door/x", file(4)), b"evil")],
        vec![],
    );
    let made = forged(
        vec![(door(), b""), (entry("door/x", Content::Directory), b"")],
        vec![],
    );
    let first = forged(vec![(door(), b"")], vec![]);
    let removed = forged(vec![], vec![path("door/precious")]);
    for layers in [vec![written], vec![made], vec![first, removed]] {
        let layers: Vec<Layer> = layers
            .into_iter()
            .map(|bytes| (task("a"), vec![], bytes))
            .collect();
        let result = Bench::new(&layers.iter().collect::<Vec<_>>());
        assert!(matches!(
            result.err(),
            Some(RestoreError::Tree(TreeError::Escapes(_)))
        ));
    }
    let left: Vec<_> = fs::read_dir(outside.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["precious"]);
}

#[test]
fn a_damaged_layer_is_refused() {
    let good = forged(vec![(entry("f", file(4)), b"evil")], vec![]);
    let wrong = [
        forged(vec![(entry("f", file(4)), b"evi")], vec![]),
        forged(vec![(entry("f", file(4)), b"live")], vec![]),
        good[..good.len() - 3].to_vec(),
        b"no layer".to_vec(),
        vec![],
    ];
    assert!(Bench::new(&[&(task("a"), vec![], good)]).is_ok());
    for bytes in wrong {
        let result = Bench::new(&[&(task("a"), vec![], bytes)]);
        assert!(matches!(result.err(), Some(RestoreError::Layer(_))));
    }
}
