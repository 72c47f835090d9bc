//! Blobs in a directory.
//!
//! Owns the choice of a durable directory store and what crashes leave behind in it. Never runs
//! while somebody else writes there: the coordination store's lock file keeps others out.

use std::fs;
use std::io;
use std::path::Path;

use object_store::local::LocalFileSystem;

use super::BlobError;

/// The store in `dir`, made if need be and swept of what interrupted writes have left.
pub(super) fn open(dir: &Path) -> Result<LocalFileSystem, BlobError> {
    fs::create_dir_all(dir).map_err(BlobError::from_io)?;
    sweep(dir).map_err(BlobError::from_io)?;
    let store = LocalFileSystem::new_with_prefix(dir)?;
    // What is acknowledged survives a loss of power, and a deleted prefix leaves no directories.
    Ok(store.with_fsync(true).with_automatic_cleanup(true))
}

/// Removes the files that were never given their names, at any depth.
fn sweep(dir: &Path) -> io::Result<()> {
    let mut unvisited = vec![dir.to_owned()];
    while let Some(dir) = unvisited.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                unvisited.push(entry.path());
            } else if entry.file_name().to_str().is_some_and(is_unfinished) {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// `object_store` writes a blob as `<name>#<number>` and renames it. No key holds a '#'.
fn is_unfinished(name: &str) -> bool {
    let number = name.rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_sweeps_unfinished_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        for name in ["done", "half#1", "half#27", "odd#", "odd#x"] {
            fs::write(deep.join(name), "x").unwrap();
        }
        drop(open(dir.path()).unwrap());
        let mut left: Vec<_> = fs::read_dir(&deep)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(
            ["done", "odd#", "odd#x"]
                .map(std::ffi::OsString::from)
                .to_vec(),
            left
        );
    }
}
