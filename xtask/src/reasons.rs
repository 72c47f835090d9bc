//! The page that gives a reason for each dependency, held against the root manifest.
//!
//! A dependency costs a sentence: one without it fails the gate, and so does a sentence that has
//! outlived its dependency.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::machine::Machine;

const MANIFEST: &str = "Cargo.toml";
const PAGE: &str = "docs/dependencies.md";

/// Compares the manifest's dependencies with the rows of the page.
pub(crate) fn check(machine: &Machine) -> Result<()> {
    let manifest = fs::read_to_string(machine.root.join(MANIFEST)).context(MANIFEST)?;
    let page = fs::read_to_string(machine.root.join(PAGE)).context(PAGE)?;
    compare(&manifest, &page)
}

fn compare(manifest: &str, page: &str) -> Result<()> {
    let used = dependencies(manifest);
    let explained = rows(page);
    if used.is_empty() {
        bail!("{MANIFEST} has no section [workspace.dependencies] that I can read");
    }
    let unexplained: Vec<_> = used.difference(&explained).copied().collect();
    let unused: Vec<_> = explained.difference(&used).copied().collect();
    if !unexplained.is_empty() {
        bail!("{PAGE} gives no reason for {}", unexplained.join(", "));
    }
    if !unused.is_empty() {
        bail!(
            "{PAGE} gives a reason for {}, which {MANIFEST} does not have",
            unused.join(", ")
        );
    }
    Ok(())
}

/// The names in `[workspace.dependencies]`, without our own crates.
///
/// Reads lines, not TOML: the section has one entry a line, which the gate's purpose does not
/// justify a parser for. An entry as a table of its own is read too.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            inside = header.starts_with("workspace.dependencies]");
            let table = header.strip_prefix("workspace.dependencies.");
            names.extend(table.and_then(|rest| rest.split(']').next()));
        } else if inside && !line.starts_with([' ', '#']) && !line.contains("path = ") {
            names.extend(line.split_once('=').map(|(name, _)| name.trim()));
        }
    }
    names
}

/// The names that begin the rows of the page's tables.
fn rows(page: &str) -> BTreeSet<&str> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained = cells.filter_map(|row| {
        let (name, reason) = row.split_once("` |")?;
        // A row counts only with a sentence in it.
        (!reason.trim_matches([' ', '|']).is_empty()).then_some(name)
    });
    explained.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST_TEXT: &str = "[workspace.dependencies]\n\
        our-own = { path = \"crates/own\" }\n\
        # a remark = 1\n\
        bytes = \"1\"\n\
        tokio = { version = \"1\", features = [\"rt\"] }\n\
        \n\
        [workspace.dependencies.tar]\n\
        version = \"0.4\"\n\
        \n\
        [workspace.lints.rust]\n\
        unsafe_code = \"forbid\"\n";

    fn page(names: &[&str]) -> String {
        let row = |name| format!("| `{name}` | It does a thing. |");
        names.iter().map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_page_with_every_dependency_is_accepted() {
        compare(MANIFEST_TEXT, &page(&["bytes", "tokio", "tar"])).unwrap();
    }

    #[test]
    fn a_dependency_without_reason_is_named() {
        let refused = compare(MANIFEST_TEXT, &page(&["bytes", "tar"])).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "docs/dependencies.md gives no reason for tokio"
        );
    }

    #[test]
    fn an_empty_reason_is_no_reason() {
        let rows = page(&["bytes", "tar"]) + "\n| `tokio` |  |\n";
        assert!(compare(MANIFEST_TEXT, &rows).is_err());
    }

    #[test]
    fn a_reason_that_outlived_its_dependency_is_named() {
        let refused =
            compare(MANIFEST_TEXT, &page(&["bytes", "tar", "tokio", "rand"])).unwrap_err();
        assert!(
            refused.to_string().contains("a reason for rand"),
            "{refused}"
        );
    }

    #[test]
    fn a_manifest_without_dependencies_is_refused() {
        assert!(compare("[workspace]\n", "").is_err());
    }
}
