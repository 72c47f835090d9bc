//! Frontends over a real cluster, as its operators meet them.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::place::Cluster;
use crate::rig::{Process, distci, eventually, run};

fn build_in(data: &Path, work: &Path) -> Result<()> {
    let job = work.join("hello.json");
    std::fs::write(
        &job,
        r#"{ "job_id": "hello", "tasks": [
            { "type": "execute-shell", "params": { "script": "echo hello there" } } ] }"#,
    )?;
    let (code, _, said) = run(distci().arg("exec").arg(job).arg("--data").arg(data))?;
    ensure!(code == 0, "{said}");
    Ok(())
}

#[test]
fn a_check_says_what_is_there_and_what_is_wrong() -> Result<()> {
    let cluster = Cluster::new("check")?;
    let text = cluster.text();
    let check = |text: &str| run(&mut cluster.distci(&["frontend", "--check"], text)?);
    let (code, said, errors) = check(&text)?;
    ensure!(
        code == 0 && said.contains("everything is fine"),
        "{said}{errors}"
    );
    let bucket = text.replace("bucket = '", "bucket = 'no-such-");
    let (code, _, errors) = check(&bucket)?;
    ensure!(
        code == 2 && errors.contains("there is no bucket \"no-such-"),
        "{errors}"
    );
    cluster.secret("wrong", "wrong")?;
    let (code, _, errors) = check(&text.replace("'s3-secret'", "'wrong'"))?;
    ensure!(
        code == 2 && errors.contains("the secret key is not the one"),
        "{errors}"
    );
    let (code, _, errors) = check(&text.replace("chroot =", "chrot ="))?;
    ensure!(
        code == 2 && errors.contains("did you mean `chroot`?"),
        "{errors}"
    );
    Ok(())
}

#[test]
fn a_standalone_moves_into_a_cluster() -> Result<()> {
    let cluster = Cluster::new("migrate")?;
    let text = cluster.text();
    let data = cluster.folder().join("data");
    build_in(&data, cluster.folder())?;
    let mut migrate = cluster.distci(&["migrate"], &text)?;
    migrate.arg("--from").arg(&data);
    let (code, said, errors) = run(&mut migrate)?;
    ensure!(code == 0 && said.contains("1 jobs"), "{said}{errors}");
    let (code, said, errors) = run(&mut migrate)?;
    ensure!(
        code == 0 && said.contains("nothing was to be done"),
        "{said}{errors}"
    );
    let (code, said, errors) = run(&mut cluster.distci(&["fsck"], &text)?)?;
    ensure!(
        code == 0 && said.contains("as it should be"),
        "{said}{errors}"
    );
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut frontend = cluster.distci(&["frontend", "--listen", &port.to_string()], &text)?;
    let _frontend = Process::start(&mut frontend)?;
    let url = format!("http://{port}");
    let logs = eventually("the console", || {
        let mut logs = distci();
        logs.args(["logs", "hello#1", "--url", &url])
            .env("DISTCI_TOKEN", "t0ken");
        let (code, said, _) = run(&mut logs)?;
        Ok((code == 0).then_some(said))
    })?;
    ensure!(logs.contains("hello there"), "{logs}");
    Ok(())
}
