//! What the servers of the cluster themselves allow, asked without DistCI in between.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use distci_store::blobs::{BlobKey, Blobs};
use distci_store::coordination::zookeeper::ZooKeeper;
use distci_store::coordination::{Coordination, Expect, Life, NodePath, Op};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::rig::Cluster;
use crate::raw;
use crate::report::Times;

const MULTIS: u32 = 300;
/// Multis for the rate, and how many of them are on their way at a time.
const PIPELINED: u32 = 4000;
const AT_ONCE: usize = 64;
const OBJECTS: usize = 200;
/// What large bytes are measured with.
pub(super) const LARGE: usize = 100_000_000;

/// Raw limits, in milliseconds, as medians.
pub(super) struct Limits {
    /// A write and its sync to the disk of the servers.
    pub(super) fsync: f64,
    /// A multi of three steps, as a claim is one.
    pub(super) multi: f64,
    /// Such multis a second, 64 on their way at a time.
    pub(super) multis_a_second: f64,
    /// An object of 4 KiB written, and read.
    pub(super) put: f64,
    pub(super) get: f64,
    /// 100 MB written by one request, and read, in MB/s.
    pub(super) write_rate: f64,
    pub(super) read_rate: f64,
    /// Of the machine: a shell, and bytes there and back over loopback.
    pub(super) shell: f64,
    pub(super) echo: f64,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "fsync {:.2} ms, multi {:.2} ms, {:.0} multis/s, PUT {:.2} ms, GET {:.2} ms, \
             100 MB: PUT {:.0} MB/s, GET {:.0} MB/s",
            self.fsync,
            self.multi,
            self.multis_a_second,
            self.put,
            self.get,
            self.write_rate,
            self.read_rate
        )
    }
}

impl Limits {
    pub(super) async fn measure(cluster: &Cluster, machine: &raw::Limits) -> anyhow::Result<Self> {
        let session = cluster.session("/raw").await?;
        let node = NodePath::root().join("anchor");
        let create = Op::Create {
            path: node.clone(),
            data: Bytes::from_static(&[0; 400]),
            life: Life::Durable,
        };
        session.commit(vec![create]).await?;
        let multi = multi(&session, &node).await?;
        let multis_a_second = multis_a_second(&session, &node).await?;
        let blobs = cluster.blobs()?;
        let (put, get) = objects(&blobs).await?;
        let (write_rate, read_rate) = large(&blobs).await?;
        Ok(Self {
            fsync: fsync(&cluster.path("fsync"))?,
            multi,
            multis_a_second,
            put,
            get,
            write_rate,
            read_rate,
            shell: machine.shell,
            echo: machine.echo,
        })
    }

    /// So many multis one after the other, in milliseconds.
    pub(super) fn multis(&self, count: u32) -> f64 {
        f64::from(count) * self.multi
    }
}

fn fsync(file: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(file)?;
    let mut times = Times::new()?;
    for _ in 0..200 {
        let start = Instant::now();
        file.write_all(&[0; 600])?;
        file.sync_data()?;
        times.add(start.elapsed());
    }
    Ok(times.at(50.0))
}

/// Sets the anchor, takes an entry away and makes the next one, as a claim does.
fn steps(node: &NodePath, round: u32) -> Vec<Op> {
    let entry = |round: u32| NodePath::root().join(&format!("entry-{round}"));
    let mut steps = vec![
        Op::Set {
            path: node.clone(),
            data: Bytes::from_static(&[0; 400]),
            expect: Expect::Any,
        },
        Op::Create {
            path: entry(round),
            data: Bytes::new(),
            life: Life::Durable,
        },
    ];
    if let Some(last) = round.checked_sub(1) {
        steps.push(Op::Delete {
            path: entry(last),
            expect: Expect::Any,
        });
    }
    steps
}

async fn multi(session: &ZooKeeper, node: &NodePath) -> anyhow::Result<f64> {
    let mut times = Times::new()?;
    for round in 0..MULTIS {
        let start = Instant::now();
        session.commit(steps(node, round)).await?;
        times.add(start.elapsed());
    }
    Ok(times.at(50.0))
}

async fn multis_a_second(session: &ZooKeeper, node: &NodePath) -> anyhow::Result<f64> {
    let start = Instant::now();
    // A session's requests are served in their order, so each finds the entry of the one before.
    stream::iter(MULTIS..MULTIS + PIPELINED)
        .map(|round| session.commit(steps(node, round)))
        .buffered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(f64::from(PIPELINED) / start.elapsed().as_secs_f64())
}

async fn objects(blobs: &Blobs) -> anyhow::Result<(f64, f64)> {
    let (mut puts, mut gets) = (Times::new()?, Times::new()?);
    let dir = BlobKey::top("small");
    for number in 0..OBJECTS {
        let key = dir.join(&number.to_string());
        let start = Instant::now();
        blobs.put(&key, Bytes::from_static(&[7; 4096])).await?;
        puts.add(start.elapsed());
        let start = Instant::now();
        blobs.get(&key, 4096).await?;
        gets.add(start.elapsed());
    }
    Ok((puts.at(50.0), gets.at(50.0)))
}

/// In MB/s, the best of three: whoever else uses the machine only makes it slower.
async fn large(blobs: &Blobs) -> anyhow::Result<(f64, f64)> {
    let bytes = Bytes::from(noise());
    let (mut write, mut read) = (0.0_f64, 0.0_f64);
    for number in 0..3 {
        let key = BlobKey::top("large").join(&number.to_string());
        let start = Instant::now();
        blobs.put(&key, bytes.clone()).await?;
        write = write.max(rate(start));
        let start = Instant::now();
        if let Some((_, mut pieces)) = blobs.get_stream(&key, 0).await? {
            while pieces.try_next().await?.is_some() {}
        }
        read = read.max(rate(start));
    }
    Ok((write, read))
}

/// [`LARGE`] bytes since then, in MB/s.
pub(super) fn rate(start: Instant) -> f64 {
    100.0 / start.elapsed().as_secs_f64()
}

/// Bytes that nothing makes smaller, by the generator of Marsaglia.
pub(super) fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(LARGE).collect()
}
