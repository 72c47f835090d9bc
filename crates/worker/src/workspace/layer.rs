//! A layer: what one attempt changed in the workspace, as one file.
//!
//! Owns the format: a zstd stream of a tar archive. Its first entry is the index, JSON, which alone
//! says what is where; the entries after it are the contents of the index's files, in its order.
//! Their names in the archive are for people with `tar --zstd -tf`, and are never believed.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::path::{EntryPath, Name};
use super::snapshot::{Changes, Marks, Moment, Shape};
use super::tree::{Tree, TreeError};

/// The form that this program writes; another one is refused, not guessed.
const VERSION: u32 = 1;
const INDEX_NAME: &str = ".distci-layer.json";
/// Most bytes of an index: some 500,000 entries.
const MAX_INDEX: u64 = 64 * 1024 * 1024;
/// The level that protocol.md §5 was measured with.
const LEVEL: i32 = 3;

/// What a layer holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    /// New or different, directories before what is in them.
    pub(crate) entries: Vec<Entry>,
    /// Gone.
    pub(crate) removed: Vec<EntryPath>,
}

/// One thing that the attempt made or changed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) path: EntryPath,
    pub(crate) mode: u32,
    pub(crate) modified: Moment,
    #[serde(flatten)]
    pub(crate) content: Content,
}

/// What an entry is. Hard links are files of equal content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "kebab-case")]
pub(crate) enum Content {
    /// A regular file.
    File {
        /// Its size.
        bytes: u64,
        /// BLAKE3 of its content, hex.
        digest: String,
    },
    /// A directory; what is in it has entries of its own.
    Directory,
    /// A symbolic link.
    Link {
        /// Where it points: anywhere, for nobody here follows it.
        target: Name,
    },
}

/// Why a layer could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// The bytes are no layer that this program knows.
    #[error("the layer is damaged: {0}")]
    Damaged(String),
    /// It could not be read to its end.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes what changed in `root` to `file`. Blocks.
pub(crate) fn write(root: &Path, changes: &Changes, file: &Path) -> Result<(), TreeError> {
    let mut tree = Tree::open(root).map_err(at_root)?;
    let index = describe(&mut tree, changes)?;
    pack(&mut tree, &index, file)
}

/// The digests come first in the file, so every content is read twice; the second time from
/// memory, mostly.
fn describe(tree: &mut Tree, changes: &Changes) -> Result<Index, TreeError> {
    let mut entries = Vec::with_capacity(changes.written.len());
    for (path, marks) in &changes.written {
        entries.push(Entry {
            path: path.clone(),
            mode: marks.mode,
            modified: marks.modified,
            content: content(tree, path, marks)?,
        });
    }
    Ok(Index {
        version: VERSION,
        entries,
        removed: changes.removed.clone(),
    })
}

fn content(tree: &mut Tree, path: &EntryPath, marks: &Marks) -> Result<Content, TreeError> {
    Ok(match marks.shape {
        Shape::Directory => Content::Directory,
        Shape::Link => Content::Link {
            target: tree.target(path)?,
        },
        Shape::File => {
            let digest = hash(&mut tree.read(path)?);
            let (bytes, digest) = digest.map_err(at(path))?;
            Content::File { bytes, digest }
        }
    })
}

/// Size and digest of everything that can be read.
pub(crate) fn hash(content: &mut impl Read) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(content, &mut hasher)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

/// Copies everything and gives its digest.
pub(crate) fn copy(content: &mut dyn Read, to: &mut impl Write) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().to_hex().to_string()),
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(read);
        to.write_all(read)?;
    }
}

fn pack(tree: &mut Tree, index: &Index, file: &Path) -> Result<(), TreeError> {
    let file = BufWriter::new(File::create(file).map_err(at_root)?);
    let mut encoder = zstd::Encoder::new(file, LEVEL).map_err(at_root)?;
    encoder.include_checksum(true).map_err(at_root)?;
    let mut archive = tar::Builder::new(encoder);
    let json = serde_json::to_vec(index).map_err(|error| at_root(error.into()))?;
    let mut header = header(json.len() as u64, 0o644, 0);
    archive
        .append_data(&mut header, INDEX_NAME, json.as_slice())
        .map_err(at_root)?;
    for entry in &index.entries {
        if let Content::File { bytes, .. } = entry.content {
            let mut header = self::header(bytes, entry.mode, entry.modified.0);
            // Exactly the size that the header promises, or the archive were damaged.
            let content = Exactly {
                inner: tree.read(&entry.path)?,
                left: bytes,
            };
            let appended = archive.append_data(&mut header, entry.path.as_path(), content);
            appended.map_err(at(&entry.path))?;
        }
    }
    let encoder = archive.into_inner().map_err(at_root)?;
    let mut file = encoder.finish().map_err(at_root)?;
    file.flush().map_err(at_root)
}

fn header(bytes: u64, mode: u32, modified: i64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(mode);
    header.set_mtime(u64::try_from(modified).unwrap_or_default());
    header
}

/// So many bytes, and an error if there are fewer.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file was cut meanwhile",
            ));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// A part of a layer, as [`read`] comes by it.
pub(crate) enum Part<'a> {
    /// The first: what there is.
    Index(&'a Index),
    /// The content of a file, in the order of the index.
    Content(&'a Entry, &'a mut dyn Read),
}

/// Reads a layer from beginning to end, part by part. Blocks.
pub(crate) fn read<E>(
    source: impl Read,
    mut take: impl FnMut(Part<'_>) -> Result<(), E>,
) -> Result<(), E>
where
    E: From<LayerError>,
{
    let decoder = zstd::Decoder::new(source).map_err(LayerError::Io)?;
    let mut archive = tar::Archive::new(decoder);
    let mut contents = archive.entries().map_err(LayerError::Io)?;
    let index = read_index(contents.next())?;
    take(Part::Index(&index))?;
    for entry in &index.entries {
        let Content::File { bytes, .. } = entry.content else {
            continue;
        };
        let mut content = contents
            .next()
            .ok_or_else(|| damaged("a content is missing"))?
            .map_err(LayerError::Io)?;
        if content.size() != bytes {
            return Err(damaged("a content has the wrong size").into());
        }
        take(Part::Content(entry, &mut content))?;
    }
    // To the end, so that the checksum is compared too.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(LayerError::Io)?;
    Ok(())
}

fn read_index<R: Read>(first: Option<io::Result<tar::Entry<'_, R>>>) -> Result<Index, LayerError> {
    let mut first = first.ok_or_else(|| damaged("it is empty"))??;
    if first.path_bytes().as_ref() != INDEX_NAME.as_bytes() || first.size() > MAX_INDEX {
        return Err(damaged("there is no index of a bearable size"));
    }
    let mut json = Vec::new();
    first.read_to_end(&mut json)?;
    let index: Index =
        serde_json::from_slice(&json).map_err(|error| damaged(&error.to_string()))?;
    if index.version != VERSION {
        return Err(damaged(&format!("version {} is unknown", index.version)));
    }
    Ok(index)
}

fn damaged(why: &str) -> LayerError {
    LayerError::Damaged(why.to_owned())
}

fn at(path: &EntryPath) -> impl FnOnce(io::Error) -> TreeError + '_ {
    |source| TreeError::Io {
        path: path.clone(),
        source,
    }
}

/// Trouble with the layer itself rather than with anything in the workspace.
fn at_root(source: io::Error) -> TreeError {
    TreeError::Layer(source)
}

#[cfg(test)]
impl Index {
    /// An index that no honest worker would write.
    pub(crate) fn forged(entries: Vec<Entry>, removed: Vec<EntryPath>) -> Self {
        Self {
            version: VERSION,
            entries,
            removed,
        }
    }
}
