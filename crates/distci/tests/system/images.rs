//! `distci image`: images as people make and remove them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::processes::processes_with;
use crate::program::Process;
use crate::rig::{distci, eventually, run};

/// `distci image …` on a folder of images.
fn image(images: &Path, arguments: &[&str]) -> Command {
    let mut command = distci();
    command
        .arg("image")
        .args(arguments)
        .arg("--images")
        .arg(images);
    command
}

fn ask(images: &Path, arguments: &[&str]) -> Result<Value> {
    let (code, stdout, stderr) = run(image(images, arguments).arg("--json"))?;
    ensure!(code == 0, "{arguments:?} ended with {code}: {stderr}");
    Ok(serde_json::from_str(&stdout)?)
}

fn refused(images: &Path, arguments: &[&str], wanted: i32) -> Result<String> {
    let (code, _, stderr) = run(&mut image(images, arguments))?;
    ensure!(code == wanted, "{arguments:?} ended with {code}: {stderr}");
    Ok(stderr)
}

/// Everything below the folder but the locks and the folders that always are there.
fn left(images: &Path) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for folder in [images.to_owned(), images.join(".fresh")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().context("a name")?;
            if ![".lock", ".fresh", ".editions"]
                .iter()
                .any(|own| name == *own)
            {
                left.push(path);
            }
        }
    }
    Ok(left)
}

#[test]
fn an_image_goes_from_its_description_to_its_removal() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let images = folder.path().join("images");
    let file = folder.path().join("tiny.json");
    let text = r#"{
        "name": "tiny", // as tasks call it
        "from": {"busybox": true},
        "run": ["echo made > /made"],
        "env": {"LANG": "C"},
    }"#;
    fs::write(&file, text)?;
    let file = file.to_str().context("odd path")?;
    let built = ask(&images, &["build", file])?;
    assert_eq!(
        (&built["name"], &built["source"]),
        (&"tiny".into(), &"busybox".into())
    );
    assert_eq!(fs::read_to_string(images.join("tiny/root/made"))?, "made\n");
    let again = ask(
        &images,
        &[
            "build",
            "--busybox",
            "--name",
            "tiny",
            "--run",
            "echo 2 > /made",
        ],
    )?;
    ensure!(again["id"] != built["id"]);
    assert_eq!(fs::read_to_string(images.join("tiny/root/made"))?, "2\n");
    let listed = ask(&images, &["ls"])?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(listed[0]["id"], again["id"]);
    assert_eq!(ask(&images, &["show", "tiny"])?["cells"], 0);
    let (_, shown, _) = run(&mut image(&images, &["ls"]))?;
    ensure!(
        shown.contains("tiny") && shown.contains("busybox"),
        "{shown}"
    );
    let (_, shown, _) = run(&mut image(&images, &["show", "tiny"]))?;
    ensure!(shown.contains("root   "), "{shown}");
    assert_eq!(ask(&images, &["rm", "tiny"])?[0]["cells"], 0);
    assert_eq!(ask(&images, &["ls"])?, Value::Array(Vec::new()));
    refused(&images, &["rm", "tiny"], 5)?;
    refused(&images, &["show", "tiny"], 5)?;
    assert_eq!(left(&images)?, Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn a_wrong_description_is_shown_where_it_is_wrong() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let images = folder.path().join("images");
    let file = folder.path().join("x.json");
    let path = file.to_str().context("odd path")?;
    fs::write(&file, "{\n  \"form\": {\"busybox\": true}\n}")?;
    let said = refused(&images, &["build", path], 1)?;
    ensure!(
        said.contains("x.json:2:3") && said.contains("did you mean `from`"),
        "{said}"
    );
    fs::write(&file, r#"{"from": {"tar": "none.tar"}}"#)?;
    let said = refused(&images, &["build", path], 1)?;
    ensure!(said.contains("--name"), "{said}");
    // Its paths are those of its folder, wherever one types.
    let said = refused(&images, &["build", path, "--name", "x"], 1)?;
    let expected = folder.path().join("none.tar");
    ensure!(
        said.contains(expected.to_str().context("odd path")?),
        "{said}"
    );
    let said = refused(
        &images,
        &["build", "--debian", "book worm", "--name", "x"],
        1,
    )?;
    ensure!(said.contains("no name of a suite"), "{said}");
    let fails = [
        "build",
        "--busybox",
        "--name",
        "x",
        "--run",
        "echo sorry; exit 3",
    ];
    let said = refused(&images, &fails, 1)?;
    ensure!(said.contains("run[0] ended with 3: sorry"), "{said}");
    assert_eq!(left(&images)?, Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn only_root_makes_images() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = Path::new(env!("CARGO_BIN_EXE_distci"));
    // Somebody else cannot pass through our folders.
    let reachable = folder.path().join("distci");
    fs::copy(program, &reachable)?;
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&reachable)
        .args(["image", "build", "--busybox", "--name", "x", "--images"])
        .arg(folder.path().join("images"));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let (code, _, stderr) = run(&mut command)?;
    ensure!(
        code == 2 && stderr.contains("run it as root"),
        "{code}: {stderr}"
    );
    Ok(())
}

/// What a killed build leaves is found by the next one; nothing of it goes on.
#[test]
fn a_build_that_is_killed_leaves_nothing_that_stays() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let images = folder.path().join("images");
    ask(&images, &["build", "--busybox", "--name", "x"])?;
    let hangs = "echo half > /half; trap '' TERM; setsid sleep 86400 & sleep 86400";
    let start = || {
        Process::start(&mut image(
            &images,
            &["build", "--busybox", "--name", "x", "--run", hangs],
        ))
    };
    let half = || {
        eventually("the command in the image", || {
            let left = left(&images)?;
            Ok(left
                .iter()
                .any(|path| path.join("root/half").exists())
                .then_some(()))
        })
    };
    let text = images.to_str().context("odd path")?;
    let ends = || {
        eventually("the end of what it ran", || {
            Ok(processes_with(text)?.is_empty().then_some(()))
        })
    };

    let killed = start()?;
    half()?;
    killed.kill()?;
    ends()?;
    ensure!(
        !images.join("x/root/half").exists(),
        "the name is the old image's"
    );
    ask(&images, &["rm", "x"])?;
    assert_eq!(left(&images)?, Vec::<PathBuf>::new());

    // Told to stop, it needs nobody to clean up.
    let mut stopped = start()?;
    half()?;
    let pid = i32::try_from(stopped.0.id())?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGINT,
    )?;
    eventually("the end of the build", || {
        Ok((!stopped.runs()?).then_some(()))
    })?;
    assert_eq!(stopped.0.wait()?.code(), Some(130));
    ends()?;
    assert_eq!(left(&images)?, Vec::<PathBuf>::new());
    Ok(())
}
