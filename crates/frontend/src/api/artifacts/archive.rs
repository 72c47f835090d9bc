//! The artifacts of a build as one archive: a tar, packed with zstd.
//!
//! Owns its making while it is read: one piece of one artifact is in memory at a time, and nothing on
//! disk. What is missing or shorter than it should be breaks the answer off, so that no client takes
//! the archive for whole.

use std::io::{self, Write};
use std::vec;

use axum::body::Bytes;
use distci_model::Timestamp;
use distci_store::blobs::BlobError;
use distci_store::{Store, StoreError, StoredArtifact};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

use crate::error::ApiError;

/// How hard it is packed: the least, as much of what builds publish is packed already, and a frontend
/// has other things to do.
const LEVEL: i32 = 1;
/// Bytes that are worth to be sent.
const ENOUGH: usize = 64 * 1024;
/// What the content of a tar is a multiple of.
const BLOCK: u64 = 512;

/// The archive in pieces. All files are of the time `made`, and readable by all.
pub(super) fn pieces(
    store: Store,
    artifacts: Vec<StoredArtifact>,
    made: Timestamp,
) -> Result<impl Stream<Item = Result<Bytes, io::Error>>, ApiError> {
    let packer = packer().map_err(StoreError::Interrupted)?;
    let making = Making {
        store,
        rest: artifacts.into_iter(),
        made: u64::try_from(made.as_second()).unwrap_or_default(),
        open: None,
        packer: Some(packer),
    };
    Ok(futures::stream::try_unfold(making, Making::next))
}

type Packer = zstd::Encoder<'static, Vec<u8>>;

fn packer() -> io::Result<Packer> {
    let mut packer = zstd::Encoder::new(Vec::new(), LEVEL)?;
    packer.include_checksum(true)?;
    Ok(packer)
}

/// An archive at work.
struct Making {
    store: Store,
    rest: vec::IntoIter<StoredArtifact>,
    /// Seconds since 1970.
    made: u64,
    open: Option<Open>,
    /// None at the end.
    packer: Option<Packer>,
}

/// An artifact whose beginning is in the archive.
struct Open {
    path: String,
    bytes: u64,
    left: u64,
    pieces: BoxStream<'static, Result<Bytes, BlobError>>,
}

impl Making {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        while let Some(packer) = &mut self.packer {
            if packer.get_ref().len() >= ENOUGH {
                let piece = std::mem::take(packer.get_mut());
                return Ok(Some((piece.into(), self)));
            }
            if self.open.is_some() {
                self.go_on().await?;
            } else if let Some(artifact) = self.rest.next() {
                self.begin(artifact).await?;
            } else if let Some(mut packer) = self.packer.take() {
                // Two empty blocks are the end of a tar.
                packer.write_all(&[0; 2 * BLOCK as usize])?;
                return Ok(Some((packer.finish()?.into(), self)));
            }
        }
        Ok(None)
    }

    async fn begin(&mut self, artifact: StoredArtifact) -> io::Result<()> {
        let (path, bytes) = (artifact.artifact.path.clone(), artifact.artifact.bytes);
        let header = header(&path, bytes, self.made)?;
        self.pack(&header)?;
        let opened = self.store.open_artifact(&artifact, 0).await;
        let (_, pieces) = opened.map_err(io::Error::other)?;
        self.open = Some(Open {
            path,
            bytes,
            left: bytes,
            pieces,
        });
        Ok(())
    }

    /// Packs one more piece of the artifact that is open; what is more than was said of it is left
    /// out, as it is where it is read by itself.
    async fn go_on(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        if open.left == 0 {
            let padding = [0; BLOCK as usize];
            let short = open.bytes.next_multiple_of(BLOCK) - open.bytes;
            self.open = None;
            return self.pack(&padding[..usize::try_from(short).unwrap_or_default()]);
        }
        let Some(piece) = open.pieces.next().await else {
            let (path, left) = (&open.path, open.left);
            let why = format!("artifact {path:?} lacks {left} bytes");
            return Err(io::Error::other(why));
        };
        let mut piece = piece.map_err(io::Error::other)?;
        piece.truncate(usize::try_from(open.left).unwrap_or(usize::MAX));
        open.left -= piece.len() as u64;
        self.pack(&piece)
    }

    fn pack(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.packer {
            Some(packer) => packer.write_all(bytes),
            None => Ok(()),
        }
    }
}

/// What stands before the content of a file, also of one with a long path.
fn header(path: &str, bytes: u64, made: u64) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(made);
    header.set_size(bytes);
    let mut tar = tar::Builder::new(Vec::new());
    // The content follows by itself: here there is none of it.
    tar.append_data(&mut header, path, io::empty())?;
    Ok(std::mem::take(tar.get_mut()))
}
