//! How an image is made: the description of one.
//!
//! Owns the shape of an image file and what may be said in it. How it is done, and where the image
//! lies then, is the matter of `distci-isolation`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigProblem, document};
use crate::isolation::ImageName;

/// The objects in an image file and the keys that they may have.
const KEYS: [(&str, &[&str]); 3] = [
    ("", &["name", "from", "run", "env"]),
    ("from", &["debian", "tar", "oci", "busybox"]),
    ("from.debian", &["suite", "packages", "mirror"]),
];

/// An image, as its owner describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageDescription {
    /// The name that it gets. The command line may give another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ImageName>,
    /// What it begins as.
    pub from: ImageSource,
    /// Commands that are run in it then, in order, each by `/bin/sh`, as root and with the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<String>,
    /// What commands find in their environment wherever the image is used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// What an image begins as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageSource {
    /// A Debian of these packages, or one of its relatives.
    Debian(Debian),
    /// The root file system in a tar archive, at this path.
    Tar(String),
    /// What container tools export: an OCI image as archive or folder, or what `docker save` writes.
    Oci(String),
    /// The machine's own static busybox and a few folders.
    Busybox(bool),
}

/// A Debian of the smallest kind, and what else is wanted in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// The suite: `bookworm`.
    pub suite: String,
    /// Packages beside those that every system has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Address of the archive. Left out, those that the machine itself has its packages from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
}

impl ImageDescription {
    /// Reads an image file: JSON in which comments are allowed.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigProblem>> {
        document(text, &KEYS, Self::problems)
    }

    /// What cannot be meant, each as a path in the description and what is wrong there.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = self.from.problems();
        for (index, command) in self.run.iter().enumerate() {
            if command.trim().is_empty() || command.contains('\0') {
                found.push((format!("run[{index}]"), "not a command".to_owned()));
            }
        }
        for (name, value) in &self.env {
            if !is_variable(name) || value.contains('\0') {
                let message = format!("{name:?} is no variable of an environment");
                found.push((format!("env.{name}"), message));
            }
        }
        found
    }
}

impl ImageSource {
    fn problems(&self) -> Vec<(String, String)> {
        let wrong = |path: &str, message: &str| vec![(path.to_owned(), message.to_owned())];
        match self {
            Self::Debian(debian) => debian.problems(),
            Self::Tar(path) if path.is_empty() => wrong("from.tar", "the path of an archive"),
            Self::Oci(path) if path.is_empty() => wrong("from.oci", "the path of an image"),
            Self::Busybox(false) => wrong("from.busybox", "it can only be true"),
            Self::Tar(_) | Self::Oci(_) | Self::Busybox(true) => Vec::new(),
        }
    }
}

impl Debian {
    fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if !is_word(&self.suite, "-._/") {
            let message = format!("{:?} is no name of a suite, such as bookworm", self.suite);
            found.push(("from.debian.suite".to_owned(), message));
        }
        for (index, package) in self.packages.iter().enumerate() {
            if !is_word(package, "-+.:=~") {
                let message = format!("{package:?} is no name of a package");
                found.push((format!("from.debian.packages[{index}]"), message));
            }
        }
        let is_address = |mirror: &String| {
            let known = ["http://", "https://", "file:/", "copy:/"];
            known.iter().any(|scheme| mirror.starts_with(scheme))
                && !mirror.contains(char::is_whitespace)
        };
        if self.mirror.as_ref().is_some_and(|it| !is_address(it)) {
            let message = "not the address of an archive: it begins with http, https or file";
            found.push(("from.debian.mirror".to_owned(), message.to_owned()));
        }
        found
    }
}

/// Letters, digits and `also`; a letter or digit first. So it is no option of a tool either.
fn is_word(text: &str, also: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// For people: `debian bookworm with git, make`.
impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian(debian) => {
                write!(f, "debian {}", debian.suite)?;
                if debian.packages.is_empty() {
                    return Ok(());
                }
                write!(f, " with {}", debian.packages.join(", "))
            }
            Self::Tar(path) => write!(f, "tar {path}"),
            Self::Oci(path) => write!(f, "oci {path}"),
            Self::Busybox(_) => f.write_str("busybox"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_manual_shows_is_read() {
        let text = r#"{
            // What all our jobs need.
            "name": "debian-12",
            "from": {"debian": {"suite": "bookworm", "packages": ["git", "g++"]}},
            "run": ["git --version"],
            "env": {"LANG": "C.UTF-8"},
        }"#;
        let image = ImageDescription::parse(text).unwrap();
        assert_eq!(image.from.to_string(), "debian bookworm with git, g++");
        for from in [
            r#"{"tar": "root.tar.zst"}"#,
            r#"{"oci": "image.tar"}"#,
            r#"{"busybox": true}"#,
        ] {
            let text = format!(r#"{{"from": {from}}}"#);
            assert!(ImageDescription::parse(&text).is_ok(), "{from}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        for (text, expected) in [
            ("{}", "1:1: missing field `from`"),
            (
                "{\n \"from\": {\"debain\": {\"suite\": \"x\"}}}", // spelling:ignore-line
                "2:11: from.debain: unknown key (did you mean `debian`?)", // spelling:ignore-line
            ),
            (
                r#"{"from": {"debian": {"suite": "--x"}}}"#,
                "1:31: from.debian.suite: \"--x\" is no name of a suite, such as bookworm",
            ),
            (
                r#"{"from": {"debian": {"suite": "x", "packages": ["a", "-o"]}}}"#,
                "1:54: from.debian.packages[1]: \"-o\" is no name of a package",
            ),
            (
                r#"{"from": {"debian": {"suite": "x", "mirror": "--y"}}}"#,
                "1:46: from.debian.mirror: not the address",
            ),
            (
                r#"{"from": {"busybox": false}}"#,
                "1:22: from.busybox: it can only be true",
            ),
            (
                r#"{"name": "A", "from": {"busybox": true}}"#,
                "1:10: name: \"A\" is no name of an image",
            ),
            (
                r#"{"from": {"busybox": true}, "run": [""]}"#,
                "1:37: run[0]: not a command",
            ),
            (
                r#"{"from": {"busybox": true}, "env": {"A=B": ""}}"#,
                "1:44: env.A=B: \"A=B\" is no variable",
            ),
            (
                r#"{"from": {"busybox": true}, "from": 1}"#,
                "1:29: from: the key is there twice",
            ),
            (r#"{"from": {"tar": "a", "oci": "b"}}"#, "1:10: from: "),
            ("{", "1:1: "),
        ] {
            let problems = ImageDescription::parse(text).unwrap_err();
            let said = problems[0].to_string();
            assert!(said.starts_with(expected), "{text}: {said}");
        }
    }
}
