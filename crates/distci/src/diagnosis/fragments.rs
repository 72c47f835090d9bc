//! The files that a job file includes, read from its folder.
//!
//! Owns the rule that nothing outside of that folder is read, by whatever links.

use std::fs::File;
use std::path::{Path, PathBuf};

use distci_model::config::{Files, MAX_BYTES};

use super::read_limited;

/// The folder of a job file, and its path from there. If that is its path `within` a repository, the
/// folder is the whole repository.
pub(super) fn place(path: &Path, within: Option<&str>) -> (PathBuf, String) {
    let within = within.filter(|within| path.ends_with(within));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = within.or(name).unwrap_or_default();
    let folder = path.ancestors().nth(Path::new(name).components().count());
    let folder = folder.filter(|folder| *folder != Path::new(""));
    (folder.unwrap_or(Path::new(".")).to_owned(), name.to_owned())
}

/// A job file with everything that it includes, as far as it can be had.
pub(super) fn gather((folder, name): (&Path, &str), text: &str) -> Files {
    let mut files = Files::of(name, text);
    while let Some(wanted) = files.wanted().map(ToOwned::to_owned) {
        let text = fragment(folder, &wanted);
        files.add(&wanted, text);
    }
    files
}

fn fragment(folder: &Path, wanted: &str) -> Result<String, String> {
    let told = |error: std::io::Error| format!("{wanted}: {error}");
    let folder = folder.canonicalize().map_err(told)?;
    let path = folder.join(wanted).canonicalize().map_err(told)?;
    if !path.starts_with(&folder) {
        return Err(format!(
            "{wanted} is a link out of the folder of the job file"
        ));
    }
    // Whoever opens a pipe waits for its other end.
    if !path.is_file() {
        return Err(format!("{wanted} is no regular file"));
    }
    let bytes = File::open(&path).and_then(read_limited).map_err(told)?;
    if bytes.len() > MAX_BYTES {
        return Err(format!("{wanted} has more than {MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| format!("{wanted} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn said(folder: &Path, include: &str) -> String {
        let text = format!(
            r#"{{"job_id": "j", "include": ["{include}"],
                "tasks": [{{"type": "execute-shell", "params": {{"script": ""}}}}]}}"#
        );
        let (folder, name) = place(&folder.join("job.json"), None);
        let job = gather((&folder, &name), &text).job();
        let problem = |problems: Vec<_>| problems.first().map(ToString::to_string);
        job.map_or_else(problem, |_| None).unwrap_or_default()
    }

    #[test]
    fn the_folder_is_the_files_or_the_repository() {
        for (path, within, folder, name) in [
            ("job.json", None, ".", "job.json"),
            ("./a/job.json", None, "./a", "job.json"),
            ("/a/ci/x.json", Some("ci/x.json"), "/a", "ci/x.json"),
            ("ci/x.json", Some("ci/x.json"), ".", "ci/x.json"),
            ("ci/y.json", Some("ci/x.json"), "ci", "y.json"),
        ] {
            let (found, named) = place(Path::new(path), within);
            assert_eq!(
                (found.as_path(), &*named),
                (Path::new(folder), name),
                "{path}"
            );
        }
    }

    #[test]
    fn only_regular_files_of_the_folder_are_read() {
        let (room, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = room.path();
        std::fs::create_dir(folder.join("ci")).unwrap();
        std::fs::write(folder.join("ci/a.json"), "{}").unwrap();
        std::fs::write(folder.join("ci/b.json"), [0xff]).unwrap();
        std::fs::write(outside.path().join("secret.json"), "{}").unwrap();
        symlink(outside.path(), folder.join("out")).unwrap();
        symlink("ci/a.json", folder.join("in.json")).unwrap();
        nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (include, expected) in [
            ("ci/a.json", ""),
            ("in.json", ""),
            ("out/secret.json", "link out of the folder"),
            ("ci", "no regular file"),
            ("pipe", "no regular file"),
            ("none.json", "none.json: No such file"),
            ("ci/b.json", "not UTF-8"),
        ] {
            let said = said(folder, include);
            assert_eq!(said.is_empty(), expected.is_empty(), "{include}: {said}");
            assert!(said.contains(expected), "{include}: {said}");
        }
    }
}
