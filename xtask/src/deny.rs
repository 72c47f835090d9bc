//! What cargo-deny knows: the direction of imports, licences, sources, advisories.
//!
//! The rules are in `deny.toml` and always hold. The advisory database is a repository on the open
//! internet, and no package registry carries it: where it can be had, an advisory fails the gate;
//! where it cannot, the caller gets a remark to print. Silence would read as a clean bill.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::machine::Machine;
use crate::step::{attempt, run_quietly, text_of};

/// A network that answers nothing would otherwise hold the gate for minutes.
const PATIENCE_SECONDS: u32 = 60;

/// Holds the dependencies against the rules, and names those that come in two versions.
pub(crate) fn check_rules(machine: &Machine) -> Result<()> {
    let rules = "cargo-deny --color never --locked check bans licenses sources";
    let said = run_quietly(&mut machine.command(rules))?;
    let twice = duplicates(&said);
    if !twice.is_empty() {
        println!(
            "    in more than one version: {}",
            Vec::from_iter(twice).join(", ")
        );
    }
    Ok(())
}

/// Holds the dependencies against the advisory database, or says why not.
pub(crate) fn check_advisories(machine: &Machine) -> Result<Option<String>> {
    let fetch = format!("timeout {PATIENCE_SECONDS} cargo-deny --color never fetch db");
    let fetched = attempt(machine.command(&fetch).env("GIT_TERMINAL_PROMPT", "0"))?;
    if !fetched.status.success() {
        let said = text_of(&fetched);
        let remark = format!(
            "advisories and yanked crates NOT checked: {}",
            reason_in(&said)
        );
        println!("    !!! {remark}");
        return Ok(Some(remark));
    }
    run_quietly(&mut machine.command("cargo-deny --locked check advisories"))?;
    Ok(None)
}

fn duplicates(output: &str) -> BTreeSet<&str> {
    let found = output
        .lines()
        .filter(|line| line.starts_with("warning[duplicate]"));
    found.filter_map(|line| line.rsplit('\'').nth(1)).collect()
}

/// The line that says most: git's own complaint, else the last one.
fn reason_in(output: &str) -> &str {
    let lines = || {
        output
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    lines()
        .find_map(|line| line.strip_prefix("fatal: "))
        .or_else(|| lines().next_back())
        .unwrap_or("no answer in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_git_complains_of() {
        let output = "[ERROR] no database: clone\nCloning into 'x'...\nfatal: no such host\n\n";
        assert_eq!(reason_in(output), "no such host");
        assert_eq!(reason_in("one\ntwo\n"), "two");
        assert_eq!(reason_in(""), "no answer in time");
    }

    #[test]
    fn crates_in_two_versions_are_named() {
        let output = "warning[duplicate]: found 2 duplicate entries for crate 'syn'\n   | syn 2\n\
            warning[unused-wrapper]: wrapper for banned crate was not encountered\n";
        assert_eq!(duplicates(output), BTreeSet::from(["syn"]));
    }
}
