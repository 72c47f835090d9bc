//! What a worker and the agent in a virtual machine say to each other over one port.
//!
//! The worker says one [`Order`], and from then on only what a supervisor's lifeline says. The agent
//! says [`Frame`]s. Files take another way: on disks, which are faster.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;

use distci_model::isolation::Size;
use serde::{Deserialize, Serialize};

use crate::cell::Excess;
use crate::supervisor::Report;

/// The name of the port.
pub(crate) const PORT: &str = "distci";
/// The disk with the image, a squashfs.
pub(crate) const IMAGE: &str = "image";
/// The disk for everything that is written, an ext4.
pub(crate) const SCRATCH: &str = "scratch";
/// The disk that holds what goes in, a tar.
pub(crate) const IN: &str = "in";
/// The disk for what comes out, a tar in the end.
pub(crate) const OUT: &str = "out";
/// Most bytes of a message.
const MOST: usize = 16 << 20;

/// What the agent is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The program and its arguments.
    pub(crate) argv: Vec<OsString>,
    /// Where.
    pub(crate) directory: PathBuf,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Where the folders of the tars are to be.
    pub(crate) places: Vec<PathBuf>,
    /// Most memory.
    pub(crate) memory: Option<Size>,
    /// Most processes.
    pub(crate) processes: Option<u32>,
    /// Whether the machine has a network to be set up.
    pub(crate) network: bool,
}

/// What the agent says.
#[derive(Debug)]
pub(crate) enum Frame {
    /// The kernel runs, and the agent in it.
    Hello,
    /// The world is made, and the command about to begin.
    Started,
    /// What the command printed.
    Output(Vec<u8>),
    /// All is over, and on its disk.
    Ended(Report),
    /// The agent could not do its part.
    Fault(Fault),
}

/// What the agent could not do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// What it was doing.
    pub(crate) doing: String,
    /// Why it could not.
    pub(crate) why: String,
    /// Whose fault it is.
    pub(crate) blame: Blame,
}

/// Whose fault it is that an agent cannot do its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Blame {
    /// Ours.
    Worker,
    /// The image's.
    Image,
    /// The task's, which ran into these limits.
    Task(Excess),
}

/// What stands before a message: its kind and its length.
pub(crate) type Head = [u8; 5];

impl Frame {
    /// As it is sent.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let (kind, body) = match self {
            Self::Hello => (b'h', Vec::new()),
            Self::Started => (b's', Vec::new()),
            Self::Output(bytes) => (b'o', bytes.clone()),
            Self::Ended(report) => (b'e', serde_json::to_vec(report)?),
            Self::Fault(fault) => (b'f', serde_json::to_vec(fault)?),
        };
        message(kind, &body)
    }

    /// What was sent with this head and body.
    pub(crate) fn from_bytes(head: Head, body: Vec<u8>) -> io::Result<Self> {
        Ok(match head[0] {
            b'h' => Self::Hello,
            b's' => Self::Started,
            b'o' => Self::Output(body),
            b'e' => Self::Ended(serde_json::from_slice(&body)?),
            b'f' => Self::Fault(serde_json::from_slice(&body)?),
            _ => return Err(strange()),
        })
    }
}

impl Order {
    /// As it is sent.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        message(b'r', &serde_json::to_vec(self)?)
    }

    /// The one that is sent next.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = Head::default();
        from.read_exact(&mut head)?;
        let mut body = vec![0; length(head)?];
        from.read_exact(&mut body)?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// How long the body is that follows.
pub(crate) fn length(head: Head) -> io::Result<usize> {
    let [_, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > MOST {
        return Err(strange());
    }
    Ok(length)
}

fn message(kind: u8, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut message = vec![kind];
    message.extend(length.to_be_bytes());
    message.extend(body);
    Ok(message)
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "that is no message of an agent")
}
