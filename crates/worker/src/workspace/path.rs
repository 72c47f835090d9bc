//! Names of things in a workspace: any bytes, but never a place outside.
//!
//! Owns their spelling in text: percent-encoding wherever a name is not UTF-8, so that every name
//! that a file system can hold survives JSON.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Any bytes, written as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Name(Vec<u8>);

impl Name {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        encode(&name.0)
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        decode(&text).map(Self).ok_or(InvalidName(text))
    }
}

/// A relative path of plain segments, at least one: never absolute, no `.`, no `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct EntryPath(Vec<u8>);

/// Text that names nothing inside a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names nothing inside the workspace")]
pub(crate) struct InvalidName(String);

impl EntryPath {
    /// Longest path that Linux opens.
    const MAX: usize = 4096;

    pub(crate) fn new(bytes: &[u8]) -> Result<Self, InvalidName> {
        let plain = |segment: &[u8]| {
            !matches!(segment, b"" | b"." | b"..") && !segment.contains(&0) && segment.len() <= 255
        };
        if bytes.len() < Self::MAX && bytes.split(|&b| b == b'/').all(plain) {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(InvalidName(encode(bytes)))
        }
    }

    /// The path of `name` in this directory.
    pub(crate) fn join(&self, name: &OsStr) -> Result<Self, InvalidName> {
        Self::new(&[&self.0, b"/".as_slice(), name.as_bytes()].concat())
    }

    pub(crate) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The directory that it is in, unless that is the workspace itself, and its last segment.
    pub(crate) fn split(&self) -> (Option<Self>, &OsStr) {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => {
                let (parent, name) = self.0.split_at(slash);
                let name = name.get(1..).unwrap_or_default();
                (Some(Self(parent.to_vec())), OsStr::from_bytes(name))
            }
            None => (None, OsStr::from_bytes(&self.0)),
        }
    }

    /// The segments from the workspace down.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &OsStr> {
        self.0.split(|&b| b == b'/').map(OsStr::from_bytes)
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", encode(&self.0))
    }
}

impl From<EntryPath> for String {
    fn from(path: EntryPath) -> Self {
        encode(&path.0)
    }
}

impl TryFrom<String> for EntryPath {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        let bytes = decode(&text).ok_or(InvalidName(text))?;
        Self::new(&bytes)
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        let invalid = chunk.invalid().iter();
        text.extend(invalid.map(|byte| format!("%{byte:02X}")));
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(2..)?;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_text() {
        for name in [
            &b"a b\nc"[..],
            b"100%",
            b"\xff\xfe",
            "ä/ö".as_bytes(),
            b"%41",
            b"a\xc3",
        ] {
            let path = EntryPath::new(name).unwrap();
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<EntryPath>(&json).unwrap(), path);
        }
    }

    #[test]
    fn no_path_leaves_the_workspace() {
        for bad in [
            "", "/etc", "..", "a/../b", "a//b", "a/", "./a", "%2e%2e/x", "a%00b", "%zz", "%4",
        ] {
            assert!(
                EntryPath::try_from(bad.to_owned()).is_err(),
                "{bad:?} was accepted"
            );
        }
    }
}
