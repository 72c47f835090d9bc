//! The file of the embedded store.
//!
//! Owns the form of `coord.redb` and what follows when it cannot be written. Never judges a commit.
//! Invariant: a batch is in the file wholly or not at all, together with its revision, so that
//! after an error in mid-write the file itself tells which of the two it was.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{
    AccessGuard, Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition,
};

use super::{OpenError, file};
use crate::coordination::tree::{Entry, Tree};
use crate::coordination::{Life, Node, NodePath, Outage, Version};

/// The form of the tables below. Raise it with any change to them.
const FORMAT: u64 = 1;

/// The version and the payload of each durable node.
const NODES: TableDefinition<&str, (u32, &[u8])> = TableDefinition::new("nodes");

/// `format`, and `revision`: the number of batches written since the store was made.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Every read is served from our own memory, so the file's cache needs to hold little more than the
/// pages of one batch.
const CACHE_BYTES: usize = 8 << 20;

/// Opens the file; called again after each error, because redb then refuses to go on.
pub(super) type OpenFile = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// The path of each durable node that a batch changes, with what it is to hold.
pub(super) type Writes<'a> = [(&'a NodePath, Option<&'a Node>)];

/// The file of a store in `dir`.
pub(super) fn file_in(dir: &Path) -> OpenFile {
    let path = dir.join("coord.redb");
    Box::new(move || builder().create_with_backend(file::open(&path)?))
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// What became of a batch that could not be written as usual.
#[derive(Debug)]
pub(super) enum WriteError {
    /// It is not in the file and never will be.
    Lost(Outage),
    /// It is in the file wholly or not at all; [`Disk::recover`] will tell.
    InDoubt(Outage),
}

/// What recovery says about the last batch in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovered {
    /// There was nothing to recover from.
    Nothing,
    /// The file can be written again, and the batch is not in it.
    Lost,
    /// The file can be written again, and the batch is in it.
    Durable,
}

/// The file, open or waiting to be opened again.
#[derive(Debug)]
pub(super) struct Disk {
    open_file: Opener,
    state: State,
    // Of the last batch known to be in the file.
    revision: u64,
}

struct Opener(OpenFile);

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

#[derive(Debug)]
enum State {
    Open(Database),
    Shut,
    Broken(Outage),
}

impl Disk {
    /// Opens the file and reads all that is in it.
    pub(super) fn open(open_file: OpenFile) -> Result<(Self, Tree), OpenError> {
        let database = open_file()?;
        let revision = match read_revision(&database)? {
            Some(revision) => revision,
            None => write_first(&database)?,
        };
        let tree = read_tree(&database)?;
        let state = State::Open(database);
        Ok((
            Self {
                open_file: Opener(open_file),
                state,
                revision,
            },
            tree,
        ))
    }

    /// Writes a batch in one transaction with one sync.
    pub(super) fn write(&mut self, writes: &Writes<'_>) -> Result<(), WriteError> {
        let revision = self.revision + 1;
        let cause = match &self.state {
            State::Open(database) => match write_batch(database, revision, writes) {
                Ok(()) => {
                    self.revision = revision;
                    return Ok(());
                }
                Err(error) => outage(error),
            },
            State::Shut => return Err(WriteError::Lost(Outage::Full)),
            State::Broken(outage) => return Err(WriteError::Lost(outage.clone())),
        };
        self.give_up(cause.clone());
        match self.recover() {
            Ok(Recovered::Durable) => Ok(()),
            Ok(Recovered::Lost | Recovered::Nothing) => Err(WriteError::Lost(cause)),
            Err(cause) => Err(WriteError::InDoubt(cause)),
        }
    }

    /// Opens the file again if the last write made that necessary.
    pub(super) fn recover(&mut self) -> Result<Recovered, Outage> {
        match &self.state {
            State::Open(_) => return Ok(Recovered::Nothing),
            State::Broken(outage) => return Err(outage.clone()),
            State::Shut => {}
        }
        match reopen(&self.open_file.0) {
            Ok((database, revision)) => {
                let durable = revision > self.revision;
                self.revision = revision;
                self.state = State::Open(database);
                Ok(if durable {
                    Recovered::Durable
                } else {
                    Recovered::Lost
                })
            }
            Err(error) => {
                let cause = outage(error);
                self.give_up(cause.clone());
                Err(cause)
            }
        }
    }

    /// Closes the file, so that the next process need not repair it.
    pub(super) fn close(self) {
        if let State::Open(database) = self.state
            && let Err(error) = database.close()
        {
            tracing::warn!(%error, "the store's file was not closed cleanly and will be repaired");
        }
    }

    fn give_up(&mut self, cause: Outage) {
        // A full disk loses nothing that was written before. After any other error, a failed sync
        // among them, what we read may not be what the disk holds: stop for good.
        self.state = match cause {
            Outage::Full => State::Shut,
            cause => State::Broken(cause),
        };
    }
}

fn write_batch(database: &Database, revision: u64, writes: &Writes<'_>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut nodes = transaction.open_table(NODES)?;
        for (path, node) in writes {
            match node {
                Some(node) => {
                    nodes.insert(path.as_str(), (node.version.0, &*node.data))?;
                }
                None => {
                    nodes.remove(path.as_str())?;
                }
            }
        }
        transaction.open_table(META)?.insert("revision", revision)?;
    }
    Ok(transaction.commit()?)
}

fn write_first(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.open_table(META)?.insert("revision", 0)?;
    drop(transaction.open_table(NODES)?);
    transaction.commit()?;
    Ok(0)
}

/// The revision of the store, or nothing if the file is a new one.
fn read_revision(database: &Database) -> Result<Option<u64>, OpenError> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    if transaction
        .list_tables()
        .map_err(redb::Error::from)?
        .next()
        .is_none()
    {
        return Ok(None);
    }
    let meta = transaction.open_table(META).map_err(redb::Error::from)?;
    let read = |key| match meta.get(key) {
        Ok(Some(value)) => Ok(value.value()),
        Ok(None) => Err(OpenError::Corrupt {
            what: format!("no {key}"),
        }),
        Err(error) => Err(OpenError::from(redb::Error::from(error))),
    };
    match read("format")? {
        FORMAT => read("revision").map(Some),
        found => Err(OpenError::Format {
            found,
            known: FORMAT,
        }),
    }
}

fn read_tree(database: &Database) -> Result<Tree, OpenError> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let nodes = transaction.open_table(NODES).map_err(redb::Error::from)?;
    let entries = nodes.iter().map_err(redb::Error::from)?;
    let read = |entry| {
        let (path, node): (AccessGuard<'_, &str>, AccessGuard<'_, (u32, &[u8])>) = entry?;
        read_node(path.value(), node.value())
    };
    entries
        .map(|entry| read(entry.map_err(redb::Error::from)))
        .collect()
}

fn read_node(path: &str, (version, data): (u32, &[u8])) -> Result<(NodePath, Entry), OpenError> {
    let corrupt = |error| OpenError::Corrupt {
        what: format!("a node whose {error}"),
    };
    let path = NodePath::parse(path).map_err(corrupt)?;
    let node = Node {
        data: Bytes::copy_from_slice(data),
        version: Version(version),
    };
    Ok((
        path,
        Entry {
            node,
            life: Life::Durable,
        },
    ))
}

fn reopen(open_file: &OpenFile) -> Result<(Database, u64), OpenError> {
    let database = open_file()?;
    let revision = read_revision(&database)?;
    let missing = || OpenError::Corrupt {
        what: "nothing".to_owned(),
    };
    Ok((database, revision.ok_or_else(missing)?))
}

impl From<redb::Error> for OpenError {
    fn from(error: redb::Error) -> Self {
        Self::File(Box::new(error))
    }
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        redb::Error::from(error).into()
    }
}

fn outage(error: impl Into<OpenError>) -> Outage {
    match error.into() {
        OpenError::File(error) if matches!(&*error, redb::Error::Io(error) if is_full(error)) => {
            Outage::Full
        }
        error => Outage::Broken(Arc::new(error)),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
