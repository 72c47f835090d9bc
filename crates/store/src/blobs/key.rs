//! Keys of blobs.
//!
//! Owns their form. Never knows what a key means (`keys.rs` does). Invariant: each segment is a
//! plain name in every store: no traversal, and nothing that a directory store takes for itself.

use std::fmt;

use object_store::path::Path;

/// Where a blob is, `a/b/c`; also the prefix of all keys below it. No key is the prefix of another
/// blob's key: a directory cannot hold a file and a directory of one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey(String);

/// Why a text is not the key of a blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("blob key {text:?} has a segment that is not a plain name")]
pub struct InvalidBlobKey {
    text: String,
}

impl BlobKey {
    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, InvalidBlobKey> {
        if text.split('/').all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            // The message must stay readable when somebody sends a megabyte.
            Err(InvalidBlobKey {
                text: text.chars().take(80).collect(),
            })
        }
    }

    /// The key of one segment, spelled as [`join`](Self::join) spells it.
    pub fn top(name: &str) -> Self {
        let below = Self(String::new()).join(name);
        Self(below.0.trim_start_matches('/').to_owned())
    }

    /// The key one segment below. Any name makes exactly one segment of its own: what not every
    /// store can hold is spelled `%` and its bytes in hexadecimal.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let mut key = format!("{}/", self.0);
        match name {
            "" => key.push('%'),
            "." | ".." => push_escaped(&mut key, name.bytes(), |_| false),
            _ => push_escaped(&mut key, name.bytes(), |byte| {
                byte != b'%' && is_plain_byte(byte)
            }),
        }
        Self(key)
    }

    /// The text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as the stores know it. A plain name needs no encoding, so it keeps its text.
    pub(super) fn location(&self) -> Result<Path, object_store::Error> {
        Ok(Path::parse(&self.0)?)
    }
}

impl AsRef<str> for BlobKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.bytes().all(is_plain_byte)
}

/// What every file system and every object store takes as it is. '#' is not among them: a directory
/// marks unfinished files with it.
const fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'=' | b'+' | b'%')
}

fn push_escaped(key: &mut String, name: impl Iterator<Item = u8>, keep: impl Fn(u8) -> bool) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in name {
        if keep(byte) {
            key.push(char::from(byte));
        } else {
            key.extend([
                '%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_segments_are_taken() {
        for good in ["a", "b/abc/12/log/t.1/00ff", "a/%2E"] {
            assert_eq!(good, BlobKey::parse(good).unwrap().as_str());
        }
        for bad in [
            "", "/a", "a/", "a//b", "a/../b", ".", "a#1", "a b", "ä", "a\\b", "a\0",
        ] {
            assert!(BlobKey::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn any_name_makes_one_plain_segment_of_its_own() {
        let dir = BlobKey::parse("a").unwrap();
        let names = [
            "", "%", "%25", ".", "..", "../b", "b", "x#1", "ä", "a b", "a\0",
        ];
        let keys: std::collections::BTreeSet<_> = names.iter().map(|name| dir.join(name)).collect();
        assert_eq!(names.len(), keys.len());
        for key in keys {
            assert_eq!(Ok(&key), BlobKey::parse(key.as_str()).as_ref());
            assert_eq!(2, key.as_str().split('/').count());
        }
    }
}
