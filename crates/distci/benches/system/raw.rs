//! What the machine itself allows: the limits beside which the figures stand.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use redb::{Database, TableDefinition};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::report::Times;

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("raw");

/// Raw limits, as medians.
pub(crate) struct Limits {
    /// One durable commit of 200 bytes in redb, in milliseconds.
    pub(crate) commit: f64,
    /// Fork, exec and wait of `sh -c true`, in milliseconds.
    pub(crate) shell: f64,
    /// 64 bytes there and back over loopback TCP, in milliseconds.
    pub(crate) echo: f64,
    /// `sh -c true` a minute, four at a time.
    pub(crate) shells_a_minute: f64,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "commit {:.2} ms, sh {:.2} ms, echo {:.3} ms, {:.0} sh a minute",
            self.commit, self.shell, self.echo, self.shells_a_minute
        )
    }
}

pub(crate) async fn measure() -> anyhow::Result<Limits> {
    Ok(Limits {
        commit: commit()?,
        shell: shell()?,
        echo: echo().await?,
        shells_a_minute: shells_a_minute().await?,
    })
}

fn commit() -> anyhow::Result<f64> {
    let dir = tempfile::tempdir()?;
    let database = Database::create(dir.path().join("raw.redb"))?;
    let mut times = Times::new()?;
    for key in 0..300 {
        let start = Instant::now();
        let transaction = database.begin_write()?;
        transaction
            .open_table(TABLE)?
            .insert(key, [0_u8; 200].as_slice())?;
        transaction.commit()?;
        times.add(start.elapsed());
    }
    Ok(times.at(50.0))
}

fn sh() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "true"]).stdin(Stdio::null());
    command
}

fn shell() -> anyhow::Result<f64> {
    let mut times = Times::new()?;
    for _ in 0..200 {
        let start = Instant::now();
        sh().status().context("running sh")?;
        times.add(start.elapsed());
    }
    Ok(times.at(50.0))
}

async fn shells_a_minute() -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..4 {
        running.spawn_blocking(|| (0..100).try_for_each(|_| sh().status().map(drop)));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(400.0 / start.elapsed().as_secs_f64() * 60.0)
}

async fn echo() -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut bytes = [0; 64];
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut times, mut bytes) = (Vec::new(), [0; 64]);
    for _ in 0..1000 {
        let start = Instant::now();
        stream.write_all(&bytes).await?;
        stream.read_exact(&mut bytes).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times
        .get(times.len() / 2)
        .map_or(0.0, Duration::as_secs_f64)
        * 1000.0)
}
