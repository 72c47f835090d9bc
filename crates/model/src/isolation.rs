//! How a task is kept apart from the machine that it runs on.
//!
//! Owns the words of it: drivers, images, limits, and what a task asks for. How a driver does it is
//! the matter of `distci-isolation`.

mod size;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::capability::Capability;

pub use size::Size;

/// A way of keeping a task apart.
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
pub enum Driver {
    /// Processes of the machine itself: nothing is left behind, but everything can be reached.
    Process,
    /// Namespaces of its own, one user, a fresh root over an image.
    Bubblewrap,
    /// A fresh Linux container over an image, with users of its own.
    Lxc,
    /// A fresh virtual machine over an image.
    Qemu,
    /// A fresh container by podman.
    Podman,
    /// A fresh container by a docker daemon.
    Docker,
}

impl Driver {
    /// Every driver; those first that a worker prefers when a task names none.
    pub const ALL: [Self; 6] = [
        Self::Lxc,
        Self::Bubblewrap,
        Self::Podman,
        Self::Docker,
        Self::Qemu,
        Self::Process,
    ];

    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Bubblewrap => "bubblewrap",
            Self::Lxc => "lxc",
            Self::Qemu => "qemu",
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// Whether it makes its cells from an image.
    pub fn has_images(self) -> bool {
        self != Self::Process
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no driver: there are process, bubblewrap, lxc, qemu, podman and docker")]
pub struct InvalidDriver(String);

impl FromStr for Driver {
    type Err = InvalidDriver;

    fn from_str(text: &str) -> Result<Self, InvalidDriver> {
        let known = Self::ALL.into_iter().find(|driver| driver.as_str() == text);
        known.ok_or_else(|| InvalidDriver(text.chars().take(80).collect()))
    }
}

/// The name of an image: `debian-12`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
#[schema(value_type = String)]
pub struct ImageName(String);

/// Text that is no name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of an image: 1 to 64 lower case letters, digits, '.', '_' and '-', a letter or digit first"
)]
pub struct InvalidImageName(String);

impl ImageName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = InvalidImageName;

    fn from_str(text: &str) -> Result<Self, InvalidImageName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = |b: u8| plain(b) || b"._-".contains(&b);
        let begins = text.bytes().next().is_some_and(plain);
        if begins && text.len() <= 64 && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidImageName(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ImageName {
    type Error = InvalidImageName;
    fn try_from(text: String) -> Result<Self, InvalidImageName> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> String {
        name.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a task reaches of the network.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// What the machine reaches, and the machine itself.
    #[default]
    Host,
    /// Only itself.
    None,
    /// The world through the machine, but neither the machine's own services nor other tasks.
    Private,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "host",
            Self::None => "none",
            Self::Private => "private",
        })
    }
}

/// A share of the machine's processors, in thousandths of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpus(u32);

impl Cpus {
    /// The least and the most that can be asked for, in thousandths.
    const BOUNDS: std::ops::RangeInclusive<u32> = 10..=1_024_000;

    /// So many thousandths of a processor; `None` if that is no sensible share.
    pub fn from_thousandths(thousandths: u32) -> Option<Self> {
        Self::BOUNDS
            .contains(&thousandths)
            .then_some(Self(thousandths))
    }

    /// Thousandths of a processor.
    pub fn thousandths(self) -> u32 {
        self.0
    }

    /// As many whole processors as this needs.
    pub fn whole(self) -> u32 {
        self.0.div_ceil(1000)
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1000) {
            serializer.serialize_u32(self.0 / 1000)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 1000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || serde::de::Error::custom("expected a number of processors: 2 or 0.5");
        let thousandths = (f64::deserialize(deserializer)? * 1000.0).round();
        let bounds = f64::from(*Self::BOUNDS.start())..=f64::from(*Self::BOUNDS.end());
        if !bounds.contains(&thousandths) {
            return Err(wrong());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a whole number within the bounds"
        )]
        Ok(Self(thousandths as u32))
    }
}

impl JsonSchema for Cpus {
    fn schema_name() -> Cow<'static, str> {
        "Cpus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of processors: `2`, `0.5`.",
            "type": "number",
            "minimum": 0.01,
            "maximum": 1024,
        })
    }
}

/// In what world a task runs, and how much of the machine it may take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub struct Isolation {
    /// The image that the world is made from. Without one the task sees the machine of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How it is kept apart. Left out: the worker's choice among those that know the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// Most memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub memory: Option<Size>,
    /// Most processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub cpus: Option<Cpus>,
    /// Most processes and threads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Most bytes on the disk, the workspace and everything else that it writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub disk: Option<Size>,
    /// What it reaches of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

impl Isolation {
    /// What a worker must offer for it, in a flat job.
    pub fn requires(&self) -> impl Iterator<Item = Capability> {
        // That it is a name is checked when the file is read.
        let image = self.image.iter().filter_map(|image| image.parse().ok());
        let driver = self.driver.iter().copied().map(Capability::Driver);
        image.map(Capability::Image).chain(driver)
    }

    /// What is said here, and where nothing is, what `default` says.
    #[must_use]
    pub fn or(self, default: &Self) -> Self {
        Self {
            image: self.image.or_else(|| default.image.clone()),
            driver: self.driver.or(default.driver),
            memory: self.memory.or(default.memory),
            cpus: self.cpus.or(default.cpus),
            processes: self.processes.or(default.processes),
            disk: self.disk.or(default.disk),
            network: self.network.or(default.network),
        }
    }
}

/// What one attempt took of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory that it had at once, in bytes.
    pub memory_peak: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
}

impl Usage {
    /// Both, one after the other.
    #[must_use]
    pub fn and(self, then: Self) -> Self {
        Self {
            cpu_ms: self.cpu_ms.saturating_add(then.cpu_ms),
            memory_peak: self.memory_peak.max(then.memory_peak),
            read: self.read.saturating_add(then.read),
            written: self.written.saturating_add(then.written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for driver in Driver::ALL {
            assert_eq!(driver.as_str().parse(), Ok(driver));
            assert_eq!(serde_json::to_value(driver).unwrap(), driver.as_str());
        }
        assert!("vmware".parse::<Driver>().is_err());
        assert!("debian-12".parse::<ImageName>().is_ok());
        for wrong in ["", "-x", "Debian", "a/b", "..", &"a".repeat(65)] {
            assert!(wrong.parse::<ImageName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_of_processors_are_numbers() {
        let cpus = |text: &str| serde_json::from_str::<Cpus>(text);
        assert_eq!(cpus("2").unwrap().thousandths(), 2000);
        assert_eq!(cpus("0.5").unwrap().thousandths(), 500);
        assert_eq!(cpus("1.5").unwrap().whole(), 2);
        assert_eq!(serde_json::to_string(&cpus("2.0").unwrap()).unwrap(), "2");
        for wrong in ["0", "-1", "1e9", "\"2\"", "null"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_task_says_goes_before_what_its_job_says() {
        let read = |text: &str| serde_json::from_str::<Isolation>(text).unwrap();
        let own = read(r#"{"image": "a", "cpus": 1}"#);
        let job = read(r#"{"image": "b", "memory": "1 GiB", "network": "none"}"#);
        let both = r#"{"image": "a", "memory": "1 GiB", "cpus": 1, "network": "none"}"#;
        assert_eq!(own.or(&job), read(both));
    }
}
