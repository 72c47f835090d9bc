//! What it costs when nothing happens.

use std::time::Duration;

use crate::report::Report;
use crate::rig::{Server, Worker, metric, resident, set_job, shell_for, trigger};

const WORKERS: usize = 50;
const FOR: Duration = Duration::from_secs(30);

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    if report.wants("memory") {
        let server = Server::standalone(4).await?;
        settle().await;
        let megabytes = resident(server.id())?;
        let raw = String::from("a `true` process: about 1 MB");
        report.add(
            "memory of standalone, idle",
            format!("{megabytes:.1} MB"),
            "< 60 MB",
            raw,
        );
        let worker = server.worker(&[])?;
        settle().await;
        let megabytes = resident(worker.id())?;
        report.add(
            "memory of a worker, idle",
            format!("{megabytes:.1} MB"),
            "< 15 MB",
            String::new(),
        );
    }
    if report.wants("idle workers") {
        idle_workers(report).await?;
    }
    Ok(())
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

async fn idle_workers(report: &mut Report) -> anyhow::Result<()> {
    let server = Server::frontend().await?;
    let workers: Vec<Worker> = (0..WORKERS)
        .map(|_| server.worker(&["--kind", "execute-shell", "--slots", "1"]))
        .collect::<Result<_, _>>()?;
    // One control worker, so that builds get as far as posting their tasks.
    let control = server.worker(&["--kind", "build-control"])?;
    let raw = String::from("1.7 requests/s: one held 30 s for each");
    let rate = requests(&server).await?;
    report.add(
        "50 idle workers, empty queue",
        rate,
        "(figure only)",
        raw.clone(),
    );
    let tasks = shell_for("nobody-has-this", "true");
    let job = set_job(&server.client, "nobody", tasks).await?;
    futures::future::try_join_all((0..100).map(|_| trigger(&server.client, &job))).await?;
    settle().await;
    let rate = requests(&server).await?;
    report.add(
        "50 idle workers, 100 queued for others",
        rate,
        "(figure only)",
        raw,
    );
    drop((workers, control));
    Ok(())
}

/// Requests a second that the server answers while nobody wants anything.
async fn requests(server: &Server) -> anyhow::Result<String> {
    settle().await;
    let name = "distci_http_request_duration_seconds_count";
    let before = metric(&server.client, name).await?;
    tokio::time::sleep(FOR).await;
    // The first reading of the metrics is among what is counted.
    let count = metric(&server.client, name).await? - before - 1.0;
    Ok(format!("{:.2} requests/s", count / FOR.as_secs_f64()))
}
