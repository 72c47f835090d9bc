//! Paths of nodes.
//!
//! Owns their form. Never knows what any path means. Invariant: a path is `/`, or a sequence of
//! `/name` whose names are neither empty nor relative and hold no control characters.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The absolute path of a node, `/a/b/c`, or `/` for the root. Cheap to clone.
///
/// Paths order as their text does, so all nodes below one directory are neighbours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePath(Arc<str>);

/// Why a text is not the path of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node path {text:?} {reason}")]
pub struct InvalidPath {
    text: String,
    reason: &'static str,
}

impl NodePath {
    /// The directory that holds everything.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        match text.strip_prefix('/') {
            None => Err(InvalidPath::new(text, "is not absolute")),
            Some("") => Ok(Self::root()),
            Some(names) => match names.split('/').find_map(fault_of_name) {
                Some(reason) => Err(InvalidPath::new(text, reason)),
                None => Ok(Self(text.into())),
            },
        }
    }

    /// The path of the child called `name`.
    ///
    /// The name must be one that [`NodePath::parse`] takes as one segment: callers build it from
    /// ids, which hold nothing else.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        debug_assert_eq!(None, fault_of_name(name), "{name:?} is not one name");
        Self(format!("{}/{name}", self.stem()).into())
    }

    /// The text of the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(_, name)| name)
    }

    /// The directory that holds the node; nothing for the root.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rsplit_once('/')? {
            (_, "") => None,
            ("", _) => Some(Self::root()),
            (parent, _) => Some(Self(parent.into())),
        }
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// Whether the node is strictly below `dir`, at any depth.
    pub fn is_below(&self, dir: &Self) -> bool {
        let below = self
            .0
            .strip_prefix(dir.stem())
            .and_then(|rest| rest.strip_prefix('/'));
        below.is_some_and(|rest| !rest.is_empty())
    }

    /// What the path of everything below begins with: the path and a slash.
    pub(crate) fn prefix(&self) -> String {
        format!("{}/", self.stem())
    }

    /// The text before the slash of a child.
    fn stem(&self) -> &str {
        if self.is_root() { "" } else { &self.0 }
    }
}

impl AsRef<str> for NodePath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Paths order and compare as their text, so a map of paths can be searched by text.
impl Borrow<str> for NodePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl InvalidPath {
    fn new(text: &str, reason: &'static str) -> Self {
        // The message must stay readable when somebody sends a megabyte.
        let text = text.chars().take(80).collect();
        Self { text, reason }
    }
}

fn fault_of_name(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("has an empty name"),
        "." | ".." => Some("has a relative name"),
        _ if name.contains('/') => Some("has a name with a slash"),
        _ if name.chars().any(char::is_control) => Some("has a control character"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NodePath {
        NodePath::parse(text).unwrap()
    }

    #[test]
    fn only_absolute_paths_of_plain_names_are_taken() {
        for good in ["/", "/a", "/a/b", "/q/00/5.abc", "/c/!x.y", "/ä"] {
            assert_eq!(good, path(good).as_str());
        }
        for bad in [
            "", "a", "a/b", "//", "/a/", "/a//b", "/.", "/a/..", "/a\0b", "/a\nb",
        ] {
            assert!(NodePath::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_path_is_its_parent_joined_with_its_name() {
        for text in ["/a", "/a/b", "/a/b/c"] {
            let path = path(text);
            assert_eq!(path, path.parent().unwrap().join(path.name()));
        }
        assert_eq!(None, NodePath::root().parent());
        assert_eq!("", NodePath::root().name());
    }

    #[test]
    fn below_means_strictly_below() {
        assert!(path("/a/b").is_below(&path("/a")));
        assert!(path("/a/b/c").is_below(&path("/a")));
        assert!(path("/a").is_below(&NodePath::root()));
        assert!(!path("/a").is_below(&path("/a")));
        assert!(!path("/ab").is_below(&path("/a")));
        assert!(!NodePath::root().is_below(&NodePath::root()));
    }

    #[test]
    fn a_refusal_stays_short() {
        let error = NodePath::parse(&"x".repeat(1 << 20)).unwrap_err();
        assert!(error.to_string().len() < 200);
    }
}
