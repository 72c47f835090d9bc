//! The workspace of a build, as it travels from task to task.
//!
//! Owns the hand-over: layers in, a look before the task, a look after it, one layer out with what
//! is different. Never holds a layer or a file in memory.

pub(crate) mod layer;
pub(crate) mod path;
pub(crate) mod restore;
pub(crate) mod snapshot;
pub(crate) mod tree;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use distci_client::{Client, ClientError, Download};
use distci_model::id::{BuildKey, TaskName};
use distci_model::order::LayerInput;
use distci_model::outcome::{Failure, LayerRef};
use distci_model::wire::{Held, MAX_BLOB};
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::room::Room;
use crate::trouble::{Trouble, blocking, doing};
use restore::Restoring;
use snapshot::{Changes, Snapshot};

/// Pieces between the network and the disk: enough that neither waits for the other's turn.
const PIECES: usize = 8;
/// The file of the layer that a task leaves.
const LAYER: &str = "layer";

/// Lays `layers` of `build` over each other in the empty directory `workspace`.
///
/// # Cancel safety
/// The workspace is then incomplete and must be thrown away.
pub(crate) async fn restore(
    client: &Client,
    build: &BuildKey,
    layers: &[LayerInput],
    workspace: &Path,
) -> Result<(), Trouble> {
    let mut restoring = Restoring::begin(workspace).map_err(doing("workspace"))?;
    for input in layers {
        let download = client.get_layer(build, &input.layer).await?;
        restoring = lay(restoring, input.task.clone(), input.on.clone(), download).await?;
    }
    blocking(move || restoring.finish()).await
}

/// Lays one layer, which the task `by` made, as it arrives.
async fn lay(
    mut restoring: Restoring,
    by: TaskName,
    on: Vec<TaskName>,
    download: Download,
) -> Result<Restoring, Trouble> {
    let (pieces, source) = mpsc::channel(PIECES);
    let laying = blocking(move || {
        let source = Pieces {
            source,
            current: Bytes::new(),
        };
        let laid = restoring.lay(&by, &on, source);
        laid.map(|()| restoring)
    });
    let (received, laid) = tokio::join!(receive(download, pieces), laying);
    // If the stream broke off, the layer is called damaged only because of that.
    received?;
    laid
}

/// Lays the one layer `download`, made by the task `by`, into the empty directory `folder`.
///
/// # Cancel safety
/// The folder is then incomplete and must be thrown away.
pub(crate) async fn unpack(
    download: Download,
    by: &TaskName,
    folder: &Path,
) -> Result<(), Trouble> {
    let restoring = Restoring::begin(folder).map_err(doing("workspace"))?;
    let restoring = lay(restoring, by.clone(), Vec::new(), download).await?;
    blocking(move || restoring.finish()).await
}

/// Packs all of `folder` into `file`, if it is not as it was when `before` was taken. Gives the
/// size; `None` if it is.
pub(crate) async fn pack_whole(
    before: Snapshot,
    folder: PathBuf,
    file: PathBuf,
) -> Result<Option<u64>, Trouble> {
    blocking(move || -> Result<Option<u64>, Trouble> {
        let now = Snapshot::take(&folder).map_err(doing("cache"))?;
        if before.changes(&now).is_empty() {
            return Ok(None);
        }
        layer::write(&folder, &Snapshot::default().changes(&now), &file)?;
        let file = std::fs::metadata(&file).map_err(doing("cache"))?;
        Ok(Some(file.len()))
    })
    .await
}

async fn receive(mut download: Download, pieces: mpsc::Sender<Bytes>) -> Result<(), ClientError> {
    while let Some(piece) = download.stream.next().await {
        if pieces.send(piece?).await.is_err() {
            // The reader has stopped, and says why itself.
            break;
        }
    }
    Ok(())
}

/// What comes through a channel, for a thread that blocks.
struct Pieces {
    source: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.source.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let most = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..most]);
        Ok(most)
    }
}

/// Looks at the workspace before the task begins.
pub(crate) async fn look(room: &Room) -> Result<Snapshot, Trouble> {
    look_at(room.workspace(), room.file("probe")).await
}

/// The same of any folder; `probe` is a file to touch, on the same file system.
pub(crate) async fn look_at(workspace: PathBuf, probe: PathBuf) -> Result<Snapshot, Trouble> {
    let look = move || {
        let mut snapshot = Snapshot::take(&workspace)?;
        snapshot.outwait(&probe)?;
        snapshot.close()?;
        Ok(snapshot)
    };
    blocking(move || look().map_err(doing("workspace"))).await
}

/// What the task left behind, in a file of the room.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The size of the layer with everything that is different; 0 if nothing is.
    pub(crate) bytes: u64,
    /// How many sockets, pipes and devices stay behind.
    pub(crate) skipped: usize,
}

/// Packs what is different since `before`. The workspace is not needed afterwards.
pub(crate) async fn pack(before: Snapshot, room: &Room) -> Result<Packed, Trouble> {
    let (workspace, file) = (room.workspace(), room.file(LAYER));
    let target = file.clone();
    let (changes, skipped) = blocking(move || -> Result<(Changes, usize), Trouble> {
        let now = Snapshot::take(&workspace).map_err(doing("workspace"))?;
        let changes = before.changes(&now);
        if !changes.is_empty() {
            layer::write(&workspace, &changes, &target)?;
        }
        Ok((changes, now.skipped.len()))
    })
    .await?;
    if changes.is_empty() {
        return Ok(Packed { bytes: 0, skipped });
    }
    let file = tokio::fs::metadata(&file).await.map_err(doing("layer"))?;
    let bytes = file.len();
    if bytes > MAX_BLOB {
        let detail = format!("the task changed {bytes} bytes of the workspace, over {MAX_BLOB}");
        return Err(Failure::LimitExceeded { detail }.into());
    }
    Ok(Packed { bytes, skipped })
}

/// Stores what was packed; `None` if nothing is different.
pub(crate) async fn store(
    client: &Client,
    held: &Held,
    room: &Room,
    packed: &Packed,
) -> Result<Option<LayerRef>, Trouble> {
    if packed.bytes == 0 {
        return Ok(None);
    }
    let bytes = client.put_layer(held, &room.file(LAYER)).await?;
    let (ticket, attempt) = (held.ticket.ticket.clone(), held.attempt);
    Ok(Some(LayerRef {
        ticket,
        attempt,
        build: None,
        bytes,
    }))
}
