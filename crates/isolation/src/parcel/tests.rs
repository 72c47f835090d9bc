use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn carried(from: &Path) -> tempfile::TempDir {
    let (mut parcel, to) = (Vec::new(), folder());
    pack(&[from.to_owned()], &mut parcel, u64::MAX).unwrap();
    unpack(parcel.as_slice(), &[to.path().to_owned()]).unwrap();
    to
}

#[test]
fn modes_links_and_times_arrive() {
    let from = folder();
    let long = "x".repeat(200);
    let deep = from.path().join("a").join(&long);
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "content").unwrap();
    fs::set_permissions(deep.join("file"), Permissions::from_mode(0o4640)).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_hours(1_000);
    File::open(deep.join("file"))
        .unwrap()
        .set_modified(then)
        .unwrap();
    symlink("/etc/passwd", from.path().join("link")).unwrap();
    fs::hard_link(deep.join("file"), from.path().join("second")).unwrap();
    fs::set_permissions(from.path().join("a"), Permissions::from_mode(0o500)).unwrap();
    let to = carried(from.path());
    let file = fs::metadata(to.path().join("a").join(&long).join("file")).unwrap();
    assert_eq!(file.mode() & 0o7777, 0o640);
    assert_eq!(file.modified().unwrap(), then);
    assert_eq!(file.nlink(), 2);
    assert_eq!(fs::read(to.path().join("second")).unwrap(), b"content");
    let link = fs::read_link(to.path().join("link")).unwrap();
    assert_eq!(link, Path::new("/etc/passwd"));
    assert_eq!(
        fs::metadata(to.path().join("a")).unwrap().mode() & 0o777,
        0o500
    );
    clear(to.path()).unwrap();
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
}

/// An archive with one entry before the one of interest.
fn forged(link: Option<(&str, &str)>, path: &str) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    if let Some((name, to)) = link {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_mtime(0);
        archive.append_link(&mut header, name, to).unwrap();
    }
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(1);
    // Past the checks of whoever writes archives in good faith.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    archive.append(&header, b"x".as_slice()).unwrap();
    archive.into_inner().unwrap()
}

#[test]
fn nothing_gets_out_of_its_folder() {
    let around = folder();
    let (inner, outside) = (around.path().join("inner"), around.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    let to = outside.to_str().unwrap();
    for (link, path) in [
        (None, "0/../outside/file"),
        (None, "../outside/file"),
        (None, "/tmp/file"),
        (None, "1/file"),
        (None, "file"),
        (None, "0"),
        (Some(("0/link", to)), "0/link/file"),
        (Some(("0/link", "../outside")), "0/link/file"),
        (Some(("0/link", "../outside/file")), "0/link"),
    ] {
        fs::create_dir(&inner).unwrap();
        let archive = forged(link, path);
        let unpacked = unpack(archive.as_slice(), std::slice::from_ref(&inner));
        assert!(unpacked.is_err(), "{path}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{path}");
        fs::remove_dir_all(&inner).unwrap();
    }
}

#[test]
fn a_parcel_is_no_larger_than_it_may_be() {
    let from = folder();
    fs::write(from.path().join("file"), vec![1; 100]).unwrap();
    // Twice the same, so it counts once.
    fs::hard_link(from.path().join("file"), from.path().join("second")).unwrap();
    let folders = [from.path().to_owned()];
    pack(&folders, io::sink(), 100).unwrap();
    let error = pack(&folders, io::sink(), 99).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}
