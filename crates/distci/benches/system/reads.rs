//! How fast one build's state is read by many at once.

use std::time::{Duration, Instant};

use crate::raw::Limits;
use crate::report::{Report, Times};
use crate::rig::{Server, set_job, shell, trigger};

const CLIENTS: usize = 200;
const FOR: Duration = Duration::from_secs(5);

pub(crate) async fn measure(report: &mut Report, limits: &Limits) -> anyhow::Result<()> {
    if !report.wants("state read by 200 clients") {
        return Ok(());
    }
    let server = Server::standalone(1).await?;
    let job = set_job(&server.client, "state", shell("sleep 60", 1)).await?;
    let build = trigger(&server.client, &job).await?;
    let number = build.number.to_string();
    let state = hammer(async || server.client.build(&job, &number).await.map(drop)).await?;
    let nothing = hammer(async || server.client.version().await.map(drop)).await?;
    server.client.cancel(&build).await?;
    let raw = format!(
        "GET /version the same way: {nothing}; echo {:.3} ms",
        limits.echo
    );
    report.add("state read by 200 clients", state, "(figure only)", raw);
    Ok(())
}

/// Calls again and again from many clients at once; gives rate and times.
async fn hammer(
    call: impl AsyncFn() -> Result<(), distci_client::ClientError>,
) -> anyhow::Result<String> {
    let end = Instant::now() + FOR;
    let one = async || {
        let mut took = Vec::new();
        while Instant::now() < end {
            let start = Instant::now();
            call().await?;
            took.push(start.elapsed());
        }
        Ok::<_, distci_client::ClientError>(took)
    };
    let all = futures::future::try_join_all((0..CLIENTS).map(|_| one())).await?;
    let mut times = Times::new()?;
    let mut count = 0_u32;
    for took in all.into_iter().flatten() {
        times.add(took);
        count += 1;
    }
    Ok(format!(
        "{:.0} requests/s, {times}",
        f64::from(count) / FOR.as_secs_f64()
    ))
}
