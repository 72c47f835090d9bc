//! Tasks that misbehave in worlds of their own, and images that are no good: what they are told, and
//! that the machine stays as it was.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use distci_components::traces;
use distci_model::outcome::{Failure, Outcome};
use distci_model::wire::BuildView;
use serde_json::json;

use super::{finished, images, outcome, shell};
use crate::rig::{Server, distci, eventually, run};

const DRIVERS: [&str; 4] = ["process", "bubblewrap", "lxc", "podman"];

/// Runs `script` as a task of each of `drivers`, all at once, with these further words on the task;
/// when the build is over, nothing of it may be left on the machine.
fn misbehave(drivers: &[&str], script: &str, more: &serde_json::Value) -> Result<BuildView> {
    let data = tempfile::tempdir()?;
    let images = images(data.path())?;
    let mut arguments = vec!["standalone", "--slots", "4", "--images", &images];
    for driver in DRIVERS {
        arguments.extend(["--driver", driver]);
    }
    let server = Server::start(data.path(), &arguments)?;
    let task = |driver: &&str| {
        let mut task = shell(driver, script, more);
        task["isolation"]["driver"] = json!(driver);
        if *driver != "process" {
            task["isolation"]["image"] = json!("small");
        }
        task
    };
    let tasks: Vec<_> = drivers.iter().map(task).collect();
    server.set_job(&json!({ "job_id": "x", "tasks": tasks }))?;
    server.ask(&["trigger", "x"])?;
    let build = finished(&server, "x#1")?;
    let place = data.path().display().to_string();
    eventually("the machine to be clean", || {
        let mut left = traces(&place);
        left.retain(|one| !one.contains(" standalone "));
        Ok(left.is_empty().then_some(()))
    })?;
    Ok(build)
}

#[test]
fn a_fork_bomb_meets_its_limit() -> Result<()> {
    let bomb = "f() { f | f & }; f; sleep 2; exit 4";
    let limits = json!({ "isolation": { "processes": 60, "memory": "256 MiB" } });
    let build = misbehave(&DRIVERS, bomb, &limits)?;
    for driver in DRIVERS {
        let told = matches!(
            outcome(&build, driver),
            Some(Outcome::Failure {
                reason: Failure::TooManyProcesses { limit: Some(60) } | Failure::OutOfMemory { .. }
            })
        );
        ensure!(told, "{driver}: {build:?}");
    }
    Ok(())
}

#[test]
fn who_detaches_and_is_deaf_ends_with_the_timeout() -> Result<()> {
    let script = "trap '' TERM HUP INT\n\
        (setsid sh -c 'trap \"\" TERM HUP; (sleep 86400 &); sleep 86400' &)\n\
        while :; do sleep 86400; done";
    let build = misbehave(&DRIVERS, script, &json!({ "timeout": 2 }))?;
    for driver in DRIVERS {
        let reason = Failure::TimedOut { seconds: 2 };
        ensure!(
            outcome(&build, driver) == Some(&Outcome::Failure { reason }),
            "{driver}: {build:?}"
        );
    }
    Ok(())
}

#[test]
fn who_reaches_for_the_machine_finds_only_the_own_world() -> Result<()> {
    let outside = tempfile::tempdir()?;
    let file = outside.path().join("file");
    fs::write(&file, "mine")?;
    let name = format!("reached-{}", std::process::id());
    let script = format!(
        "set +e; (mount -t tmpfs {name} /mnt || mount -t tmpfs {name} /tmp) 2>/dev/null\n\
         (echo x > ../../../../../../../..{0}) 2>/dev/null\n\
         test ! -e ../../../../../../../..{0} || exit 5\n\
         echo x > /etc/{name}; echo x > /{name}; (ls -A /home; ls -A /root) | grep -q . && exit 6\n\
         umount -a 2>/dev/null; kill -9 {1} -1 2>/dev/null; exit 0",
        file.display(),
        std::process::id(),
    );
    let [_, drivers @ ..] = DRIVERS;
    let build = misbehave(&drivers, &script, &json!({}))?;
    for driver in drivers {
        let said = outcome(&build, driver);
        ensure!(said == Some(&Outcome::Success), "{driver}: {said:?}");
    }
    ensure!(fs::read_to_string(&file)? == "mine");
    for path in ["/", "/etc"] {
        ensure!(!Path::new(path).join(&name).exists(), "{path} was reached");
    }
    ensure!(traces(&name).is_empty(), "{:?}", traces(&name));
    Ok(())
}

#[test]
fn an_image_in_which_nothing_runs_is_told() -> Result<()> {
    let data = tempfile::tempdir()?;
    let images = images(data.path())?;
    let (tar, root) = (data.path().join("void.tar"), data.path().join("void"));
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/hostname"), "void")?;
    let mut pack = std::process::Command::new("tar");
    run(pack.arg("-cf").arg(&tar).arg("-C").arg(&root).arg("."))?;
    let mut build = distci();
    build.args([
        "image", "build", "--name", "void", "--images", &images, "--tar",
    ]);
    let (code, _, said) = run(build.arg(&tar))?;
    ensure!(code == 0, "{said}");
    let exec = |driver: &str| {
        let isolation = json!({ "isolation": { "image": "void", "driver": driver } });
        let job = json!({ "job_id": "x", "tasks": [shell("a", "true", &isolation)] });
        let file = data.path().join("job.json");
        fs::write(&file, job.to_string())?;
        let mut exec = distci();
        exec.args(["exec", "--driver", driver, "--images", &images]);
        run(exec.arg(file))
    };
    for (driver, wanted, word) in [
        (
            "lxc",
            2,
            "isolation: image void: no /bin/sh there that runs",
        ),
        (
            "bubblewrap",
            1,
            "could not start: sh: No such file or directory, in the image void",
        ),
        (
            "podman",
            1,
            "could not start: sh: no such program, in the image void",
        ),
    ] {
        let (code, stdout, stderr) = exec(driver)?;
        let said = format!("{stdout}{stderr}");
        ensure!(
            code == wanted && said.contains(word),
            "{driver}: {code}: {said}"
        );
    }
    // What virtual machines begin with is the same for all images.
    let kernel = Path::new(&images).join(".kernel");
    fs::create_dir_all(kernel.join("modules"))?;
    fs::write(kernel.join("vmlinux"), "no kernel")?;
    let (code, _, said) = exec("qemu")?;
    ensure!(
        code != 0 && said.contains("qemu: linux kernel"),
        "{code}: {said}"
    );
    Ok(())
}
