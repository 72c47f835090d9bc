//! The file of a pool: groups of workers, how many, and how each is started.
//!
//! Owns the file's form and its defaults. Everything that is wrong is told at once, with its place.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use distci_model::capability::{Capability, Kind, Label};
use distci_model::config::ConfigProblem;
use distci_model::isolation::{Cpus, Driver, ImageName, Isolation, Network};
use distci_model::pool::MAX_POOL;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

use crate::cli;
use crate::config::{endpoint, filled, wrong_file};
use crate::document::{Document, Section, Wrong};
use crate::worker;

/// The commented sample: a file with everything that can be said.
pub(crate) const SAMPLE: &str = include_str!("sample.toml");

/// How long a worker waits for its ticket.
const IDLE: Duration = Duration::from_mins(1);
/// How long it may take to start.
const BOOT: Duration = Duration::from_mins(5);
/// Longest name of a pool and of a group: both are in the names of workers.
const NAME: usize = 24;

/// What a pool is to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) url: Option<Vec<String>>,
    pub(crate) images: Option<PathBuf>,
    pub(crate) groups: Vec<Group>,
}

/// `[[group]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) labels: Vec<Label>,
    /// Beside kinds and labels.
    pub(crate) offers: Vec<Capability>,
    pub(crate) idle: Duration,
    pub(crate) boot: Duration,
    pub(crate) how: How,
}

/// How a worker is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    Machine { drivers: Vec<Driver> },
    Cell(Isolation),
    Command(Vec<String>),
}

impl File {
    /// Reads the file.
    ///
    /// # Errors
    /// One line for each thing that is wrong.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("the pool's file {}", path.display()))?;
        Self::parse(&text).map_err(|problems| wrong_file(path, &problems))
    }

    fn parse(text: &str) -> Result<Self, Vec<ConfigProblem>> {
        Document::read(text, |top| Some(file(top)))
    }
}

fn file(top: &Section<'_, '_>) -> File {
    let name = top.text("name", name);
    let url = top.texts("url", endpoint);
    let images = top.text("images", |text| filled(text).map(PathBuf::from));
    let groups = top.sections("group", group);
    if !top.has("group") {
        top.complain_of(
            "group",
            Wrong::new("is missing: a pool needs a `[[group]]`"),
        );
    }
    let names: Vec<&String> = groups.iter().map(|group| &group.name).collect();
    let twice = names.iter().enumerate();
    let twice = twice.filter(|(at, name)| names.iter().take(*at).any(|other| other == *name));
    for (_, name) in twice {
        let wrong = Wrong::new(format!("two groups are named {name}"));
        top.complain_of("group", wrong);
    }
    File {
        name: name.unwrap_or_else(machine_name),
        url,
        images,
        groups,
    }
}

fn group(section: &Section<'_, '_>) -> Option<Group> {
    const MOST: u64 = MAX_POOL as u64;
    let name = section.needed("name", name);
    let min = section.number("min", 0..=MOST).unwrap_or(0);
    let max = section.number("max", 1..=MOST);
    if !section.has("max") {
        let wrong = Wrong::new("is missing: how many workers may there be?");
        section.complain_of("max", wrong);
    }
    if max.is_some_and(|max| max < min) {
        section.complain_of("min", Wrong::new("is more than `max`"));
    }
    let kinds = section.texts("kinds", kind);
    let labels = section.texts("labels", parsed::<Label>);
    let offers = section.texts("offers", parsed::<Capability>);
    let idle = section.text("idle", duration);
    let boot = section.text("boot", duration);
    let how = how(section);
    let count = |number: u64| usize::try_from(number).unwrap_or(MAX_POOL);
    Some(Group {
        name: name?,
        min: count(min),
        max: count(max?),
        kinds: kinds.unwrap_or_default(),
        labels: labels.unwrap_or_default(),
        offers: offers.unwrap_or_default(),
        idle: idle.unwrap_or(IDLE),
        boot: boot.unwrap_or(BOOT),
        how: how?,
    })
}

/// By a command, in a cell, or on the machine: whose keys there are, and of the others none.
fn how(section: &Section<'_, '_>) -> Option<How> {
    const CELL: [&str; 7] = [
        "image",
        "driver",
        "memory",
        "cpus",
        "processes",
        "disk",
        "network",
    ];
    let command = section.texts("command", filled);
    let drivers = section.texts("drivers", parsed::<Driver>);
    let cell = cell(section);
    let of_cell = CELL.into_iter().find(|key| section.has(key));
    let whose = [Some("command").filter(|key| section.has(key)), of_cell];
    let whose = whose
        .into_iter()
        .chain([Some("drivers").filter(|key| section.has(key))]);
    let whose: Vec<&'static str> = whose.flatten().collect();
    if let [first, other, ..] = whose.as_slice() {
        let wrong = Wrong::new(format!("`{first}` and `{other}` exclude each other"));
        let advice = "a worker is started by a `command`, in a cell of its own (`image`), or on \
                      this machine (`drivers`)";
        section.complain_of(other, wrong.with_help(advice));
        return None;
    }
    match whose.first() {
        Some(&"command") => command.map(How::Command),
        Some(&"drivers") => drivers.map(|drivers| How::Machine { drivers }),
        Some(_) => cell.map(How::Cell),
        None => Some(How::Machine {
            drivers: vec![Driver::Process],
        }),
    }
}

fn cell(section: &Section<'_, '_>) -> Option<Isolation> {
    let image = section.text("image", parsed::<ImageName>);
    let isolation = Isolation {
        image: image.map(|image| image.to_string()),
        driver: section.text("driver", parsed),
        memory: section.text("memory", parsed),
        cpus: section.decimal("cpus", cpus),
        processes: section
            .number("processes", 1..=u64::from(u32::MAX))
            .and_then(|number| u32::try_from(number).ok()),
        disk: section.text("disk", parsed),
        network: section.text("network", network),
    };
    if isolation.driver.is_some_and(Driver::has_images) && !section.has("image") {
        section.complain_of("driver", Wrong::new("it needs an `image`"));
        return None;
    }
    Some(isolation)
}

fn cpus(number: f64) -> Result<Cpus, Wrong> {
    let read: Result<Cpus, ValueError> = Cpus::deserialize(number.into_deserializer());
    read.map_err(|error| Wrong::new(error.to_string()))
}

fn network(text: &str) -> Result<Network, Wrong> {
    let read: Result<Network, ValueError> = Network::deserialize(text.into_deserializer());
    read.map_err(|_| Wrong::new("expected \"host\", \"none\" or \"private\""))
}

fn kind(text: &str) -> Result<Kind, Wrong> {
    let known = Kind::of_workers().find(|kind| kind.as_str() == text);
    known.ok_or_else(|| {
        let all: Vec<&str> = Kind::of_workers().map(Kind::as_str).collect();
        Wrong::new(format!("{text:?} is no kind that workers do")).with_help(all.join(", "))
    })
}

fn parsed<T: FromStr<Err: ToString>>(text: &str) -> Result<T, Wrong> {
    text.parse()
        .map_err(|error: T::Err| Wrong::new(error.to_string()))
}

fn duration(text: &str) -> Result<Duration, Wrong> {
    match cli::duration(text) {
        Ok(time) if time >= Duration::from_secs(1) => Ok(time),
        Ok(_) => Err(Wrong::new("expected at least a second")),
        Err(error) => Err(Wrong::new(error)),
    }
}

fn name(text: &str) -> Result<String, Wrong> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=NAME).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new(format!(
            "expected 1 to {NAME} lower case letters, digits and '-', a letter or digit first"
        )))
    }
}

/// As much of this machine's name as can be a pool's.
fn machine_name() -> String {
    let host = worker::host().to_ascii_lowercase().replace(['.', '_'], "-");
    host.chars().take(NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = File::parse(text).unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_sample_says_everything() {
        let file = File::parse(SAMPLE).unwrap();
        assert_eq!(file.name, "east");
        let [here, debian, cloud] = file.groups.as_slice() else {
            panic!("{file:?}");
        };
        assert_eq!(
            (here.min, here.max, here.idle),
            (1, 4, Duration::from_mins(1))
        );
        let drivers = vec![Driver::Process];
        assert_eq!(here.how, How::Machine { drivers });
        let How::Cell(isolation) = &debian.how else {
            panic!("{debian:?}");
        };
        assert_eq!(isolation.image.as_deref(), Some("debian-12"));
        assert_eq!(isolation.cpus.map(Cpus::thousandths), Some(1500));
        assert_eq!(isolation.network, Some(Network::Private));
        assert_eq!(cloud.boot, Duration::from_mins(10));
        assert!(matches!(&cloud.how, How::Command(argv) if argv.len() == 3));
        let uncommented = SAMPLE.replace("\n#", "\n# ").replace("\n# url", "\nurl");
        let uncommented = uncommented
            .replace("\n# images", "\nimages")
            .replace("\n# disk", "\ndisk");
        let uncommented = uncommented.replace("\n# kinds", "\nkinds");
        let file = File::parse(&uncommented).unwrap();
        assert_eq!(file.url, Some(vec!["https://ci.example.org".to_owned()]));
        assert_eq!(file.groups[0].kinds.len(), 5);
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let whole = [
            ("", "1:1: group: is missing: a pool needs a `[[group]]`"),
            (
                "[group]\nmax = 1",
                "1:2: group: expected sections, each begun by `[[group]]`",
            ),
            (
                "[[group]]\nname = 'a'",
                "1:1: group.max: is missing: how many workers may there be?",
            ),
            (
                "[[group]]\nname = 'A b'\nmax = 1",
                "2:1: group.name: expected 1 to 24",
            ),
            (
                "[[group]]\nname = 'a'\nmax = 6000",
                "3:1: group.max: expected a number from 1 to 5000",
            ),
        ];
        let further = [
            ("min = 2", "4:1: group.min: is more than `max`"),
            ("kinds = ['approve']", "is no kind that workers do"),
            ("image = 'Ab'", "is no name of an image"),
            ("cpus = 0", "expected a number of processors"),
            ("network = 'x'", "expected \"host\""),
            ("idle = '0'", "expected at least a second"),
            ("driver = 'lxc'", "it needs an `image`"),
            (
                "image = 'x'\ncommand = ['y']",
                "4:1: group.image: `command` and `image` exclude",
            ),
            ("[[group]]\nname = 'a'\nmax = 1", "two groups are named a"),
            ("lable = ['x']", "did you mean `labels`?"), // spelling:ignore-line
        ];
        let further = further.map(|(more, expected)| {
            let text = format!("[[group]]\nname = 'a'\nmax = 1\n{more}");
            (text, expected)
        });
        let whole = whole.map(|(text, expected)| (text.to_owned(), expected));
        for (text, expected) in whole.into_iter().chain(further) {
            let problems = problems(&text);
            let told = problems.iter().any(|one| one.contains(expected));
            assert!(told, "{text}: {problems:?}");
        }
    }
}
