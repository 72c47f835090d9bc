//! The cargo tools of the gate, each at a version that we have seen work.
//!
//! A tool already on the path serves if it is of the same line and at least as new, so a machine
//! that ships one does not compile it again.

use anyhow::Result;

use crate::machine::Machine;
use crate::step;

/// A program that cargo installs from its registry.
pub(crate) struct Tool {
    /// The crate to install.
    pub(crate) krate: &'static str,
    /// The version that a bare machine gets.
    pub(crate) version: Version,
    program: &'static str,
    ask: &'static str,
}

/// Everything that the gate calls beyond what the toolchain brings.
pub(crate) const TOOLS: [Tool; 4] = [
    Tool {
        krate: "cargo-nextest",
        version: Version(0, 9, 143),
        program: "cargo-nextest",
        ask: "cargo-nextest nextest --version",
    },
    Tool {
        krate: "cargo-deny",
        version: Version(0, 20, 2),
        program: "cargo-deny",
        ask: "cargo-deny --version",
    },
    Tool {
        krate: "cargo-machete",
        version: Version(0, 9, 2),
        program: "cargo-machete",
        ask: "cargo-machete --version",
    },
    Tool {
        krate: "typos-cli",
        version: Version(1, 52, 0),
        program: "typos",
        ask: "typos --version",
    },
];

impl Tool {
    /// Whether the path holds a version that serves.
    pub(crate) fn is_present(&self, machine: &Machine) -> Result<bool> {
        if !machine.has(self.program) {
            return Ok(false);
        }
        let answer = step::attempt(&mut machine.command(self.ask))?;
        let found = Version::find(&String::from_utf8_lossy(&answer.stdout));
        Ok(found.is_some_and(|found| found.serves(self.version)))
    }

    /// Compiles and installs the pinned version into the tools' folder.
    ///
    /// Optimised lightly and without debug information: the tools run for seconds, and compiling
    /// them is what a bare machine waits for.
    pub(crate) fn install(&self, machine: &Machine) -> Result<()> {
        let mut install = machine.command(
            "cargo install --locked --quiet --force --profile dev \
             --config profile.dev.opt-level=1 --config profile.dev.debug=false",
        );
        install.args(["--version", &self.version.to_string(), self.krate]);
        install.arg("--root").arg(&machine.tools);
        step::run_loudly(install.env("CARGO_TARGET_DIR", machine.tools_target()))
    }
}

/// A released version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u64, u64, u64);

impl Version {
    fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.split('.').map(str::parse);
        let version = Self(
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
        );
        numbers.next().is_none().then_some(version)
    }

    fn serves(self, wanted: Self) -> bool {
        (self.0, self.1) == (wanted.0, wanted.1) && self >= wanted
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_a_tool_says() {
        let said = "cargo-nextest 0.9.143 (60fa45f63 2026-08-04)\nrelease: 0.9.143\n";
        assert_eq!(Version::find(said), Some(Version(0, 9, 143)));
        assert_eq!(Version::find("0.9.2\n"), Some(Version(0, 9, 2)));
        assert_eq!(Version::find("no version here, 1.2 is none"), None);
    }

    #[test]
    fn only_the_same_line_and_no_older_serves() {
        let wanted = Version(0, 9, 143);
        assert!(Version(0, 9, 143).serves(wanted));
        assert!(Version(0, 9, 151).serves(wanted));
        assert!(!Version(0, 9, 142).serves(wanted));
        assert!(!Version(0, 10, 0).serves(wanted));
        assert!(!Version(1, 9, 143).serves(wanted));
    }
}
