//! What a worker offers and a ticket requires.
//!
//! Owns the sets of capabilities and the one rule of matching: a ticket fits a worker if the worker
//! offers everything that the ticket requires.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::ClassId;
use crate::isolation::{Driver, ImageName};

/// What a worker can do.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Decides what a build does next.
    BuildControl,
    /// Brings a revision of a git repository into the workspace.
    GitCheckout,
    /// Runs a script.
    ExecuteShell,
    /// Keeps files of the workspace as artifacts of the build.
    PublishArtifacts,
    /// Brings artifacts of another build into the workspace.
    CopyArtifacts,
    /// Waits until somebody agrees; no worker does it.
    Approve,
    /// Tells forges how commits stand.
    CommitStatus,
    /// Reads the file of a repository that says what a job does.
    JobFile,
}

impl Kind {
    /// Every kind, in the order of the glossary.
    pub const ALL: [Self; 8] = [
        Self::BuildControl,
        Self::GitCheckout,
        Self::ExecuteShell,
        Self::PublishArtifacts,
        Self::CopyArtifacts,
        Self::Approve,
        Self::CommitStatus,
        Self::JobFile,
    ];

    /// The kinds of task that workers do.
    pub const OF_TASKS: [Self; 5] = [
        Self::GitCheckout,
        Self::ExecuteShell,
        Self::PublishArtifacts,
        Self::CopyArtifacts,
        Self::JobFile,
    ];

    /// The kinds that workers do: all but what people do.
    pub fn of_workers() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| *kind != Self::Approve)
    }

    /// The types that tasks may have: all but what a job has by itself.
    pub fn of_tasks() -> impl Iterator<Item = Self> {
        let of_workers = Self::OF_TASKS.into_iter();
        let written = of_workers.filter(|kind| *kind != Self::JobFile);
        written.chain([Self::Approve])
    }

    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuildControl => "build-control",
            Self::GitCheckout => "git-checkout",
            Self::ExecuteShell => "execute-shell",
            Self::PublishArtifacts => "publish-artifacts",
            Self::CopyArtifacts => "copy-artifacts",
            Self::Approve => "approve",
            Self::CommitStatus => "commit-status",
            Self::JobFile => "job-file",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = InvalidCapability;

    fn from_str(text: &str) -> Result<Self, InvalidCapability> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| InvalidCapability(text.chars().take(80).collect()))
    }
}

/// Text that names no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a capability: a kind, label:NAME with letters, digits, '.', '_' and '-', forge:HOST, image:NAME or driver:NAME"
)]
pub struct InvalidCapability(String);

/// One thing that a worker offers.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Capability {
    /// The worker can do this kind of task.
    Kind(Kind),
    /// The worker carries this label.
    Label(Label),
    /// The worker may speak to the forge at this host.
    Forge(Host),
    /// The worker has this image.
    Image(ImageName),
    /// The worker keeps tasks apart in this way.
    Driver(Driver),
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => kind.fmt(f),
            Self::Label(label) => write!(f, "label:{label}"),
            Self::Forge(host) => write!(f, "forge:{host}"),
            Self::Image(image) => write!(f, "image:{image}"),
            Self::Driver(driver) => write!(f, "driver:{driver}"),
        }
    }
}

impl FromStr for Capability {
    type Err = InvalidCapability;

    fn from_str(text: &str) -> Result<Self, InvalidCapability> {
        let invalid = || InvalidCapability(text.chars().take(80).collect());
        match text.split_once(':') {
            Some(("label", label)) => label.parse().map(Self::Label).map_err(|_| invalid()),
            Some(("forge", host)) => host.parse().map(Self::Forge).map_err(|_| invalid()),
            Some(("image", image)) => image.parse().map(Self::Image).map_err(|_| invalid()),
            Some(("driver", driver)) => driver.parse().map(Self::Driver).map_err(|_| invalid()),
            Some(_) | None => text.parse().map(Self::Kind),
        }
    }
}

impl TryFrom<String> for Capability {
    type Error = InvalidCapability;
    fn try_from(text: String) -> Result<Self, InvalidCapability> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> String {
        capability.to_string()
    }
}

/// A name that chooses workers: `linux`, `arm64`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
#[schema(value_type = String)]
pub struct Label(String);

/// Text that is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a label: 1 to 64 letters, digits, '.', '_' and '-'")]
pub struct InvalidLabel(String);

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidLabel(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Label {
    type Error = InvalidLabel;
    fn try_from(text: String) -> Result<Self, InvalidLabel> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The host of a forge, with its port if it has one: `github.com`, `localhost:3000`. Lower case.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Host(String);

/// Text that is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host: up to 255 lower case letters, digits, '.', '-', with a port or not")]
pub struct InvalidHost(String);

impl Host {
    /// The host of a repository that is called `host/path`.
    pub(crate) fn of_repository(repository: &str) -> Self {
        let host = repository.split('/').next().unwrap_or_default();
        Self(host.to_owned())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_name = begins && text.len() <= 255 && name.bytes().all(fits);
        if is_name && port.is_none_or(|port| port.parse::<u16>().is_ok()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidHost(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Host {
    type Error = InvalidHost;
    fn try_from(text: String) -> Result<Self, InvalidHost> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> String {
        host.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A set of capabilities: what a worker offers, or what a ticket requires.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Vec<String>)]
pub struct Capabilities(BTreeSet<Capability>);

impl Capabilities {
    /// What a control ticket requires.
    pub fn control() -> Self {
        Self::task(Kind::BuildControl, &[])
    }

    /// What a task of `kind` with these labels requires.
    pub fn task(kind: Kind, labels: &[Label]) -> Self {
        let labels = labels.iter().cloned().map(Capability::Label);
        labels.chain([Capability::Kind(kind)]).collect()
    }

    /// What telling the forge at `host` requires.
    pub fn report(host: &Host) -> Self {
        let forge = Capability::Forge(host.clone());
        [Capability::Kind(Kind::CommitStatus), forge]
            .into_iter()
            .collect()
    }

    /// Whether everything in `required` is offered here.
    pub fn satisfy(&self, required: &Self) -> bool {
        required.0.is_subset(&self.0)
    }

    /// The class of this set: equal sets have equal classes.
    pub fn class(&self) -> ClassId {
        ClassId::derive(self.to_string().as_bytes())
    }

    /// The members in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = &Capability> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(members: I) -> Self {
        Self(members.into_iter().collect())
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, capability) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(" ")?;
            }
            capability.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(members: &[&str]) -> Capabilities {
        members
            .iter()
            .map(|member| member.parse::<Capability>().unwrap())
            .collect()
    }

    #[test]
    fn a_worker_fits_if_it_offers_everything_required() {
        let required = set(&["execute-shell", "label:linux"]);
        assert!(set(&["execute-shell", "label:linux", "label:big"]).satisfy(&required));
        assert!(!set(&["execute-shell"]).satisfy(&required));
        assert!(!set(&["git-checkout", "label:linux"]).satisfy(&required));
    }

    #[test]
    fn the_class_ignores_the_order_of_writing() {
        assert_eq!(
            set(&["label:b", "label:a"]).class(),
            set(&["label:a", "label:b"]).class()
        );
        assert_ne!(set(&["label:a"]).class(), set(&["label:b"]).class());
    }

    #[test]
    fn capabilities_read_what_they_write() {
        for text in [
            "build-control",
            "label:arm64",
            "forge:git.example.org:3000",
            "image:debian-12",
            "driver:lxc",
        ] {
            assert_eq!(text.parse::<Capability>().unwrap().to_string(), text);
        }
        for bad in [
            "execute_shell",
            "label:",
            "label:a b",
            "label:a/b",
            "forge:",
            "forge:A",
            "forge:a:x",
            "",
        ] {
            assert!(bad.parse::<Capability>().is_err(), "{bad:?} was accepted");
        }
    }
}
