//! Where this machine has its packages from, read from what apt is configured with.
//!
//! Owns both forms of apt's sources: one line each, and paragraphs of fields. Entries of other
//! archives, and those that are switched off, are passed over.

use std::fs;
use std::path::{Path, PathBuf};

/// One archive with some of its suites.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Source {
    addresses: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// The sources of `suite` as lines of a `sources.list`: those of this machine that have it, with its
/// updates and security fixes. If none has it, the archive of the machine's own suite is asked for
/// it. Empty, if the machine has no such thing.
pub(super) fn lines(suite: &str, apt: &Path, own: Option<&str>) -> Vec<String> {
    let sources = read(apt);
    let lines: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            let fits = |name: &&String| {
                let rest = name.strip_prefix(suite);
                rest.is_some_and(|rest| matches!(rest, "" | "-updates" | "-security"))
            };
            let suites = source.suites.iter().filter(fits);
            suites
                .flat_map(|suite| source.lines(suite))
                .collect::<Vec<_>>()
        })
        .collect();
    let is_there = |line: &String| line.split(' ').any(|word| word == suite);
    if lines.iter().any(is_there) {
        return lines;
    }
    let has_own = |source: &&Source| source.suites.iter().any(|name| Some(name.as_str()) == own);
    let related = sources.iter().find(has_own);
    // Another suite may be signed by other keys: the tool knows them by itself.
    let related = related.map(|source| Source {
        signed_by: None,
        ..source.clone()
    });
    related.map_or_else(Vec::new, |source| source.lines(suite))
}

/// The suite of this machine, as `/etc/os-release` has it.
pub(super) fn own_suite() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let mut lines = text.lines();
    let name = lines.find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

fn read(apt: &Path) -> Vec<Source> {
    let mut files = vec![apt.join("sources.list")];
    let folder = fs::read_dir(apt.join("sources.list.d"));
    let mut more: Vec<PathBuf> = folder
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    more.sort();
    files.extend(more);
    let mut sources = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|end| end.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(line)),
            Some("sources") => sources.extend(paragraphs(&text)),
            _ => {}
        }
    }
    sources
}

/// `deb [signed-by=…] ADDRESS SUITE COMPONENT…`
fn line(text: &str) -> Option<Source> {
    let text = text.split('#').next()?.trim();
    let mut rest = text.strip_prefix("deb ")?.trim_start();
    let mut source = Source::default();
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        let mut options = options.split_whitespace();
        source.signed_by =
            options.find_map(|option| Some(option.strip_prefix("signed-by=")?.into()));
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.addresses = vec![words.next()?];
    source.suites = vec![words.next()?];
    source.components = words.collect();
    Some(source)
}

/// Paragraphs of `Field: value`; a line that begins with a space continues the one above.
fn paragraphs(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let paragraphs = lines.split(|line| line.trim().is_empty());
    paragraphs.filter_map(paragraph).collect()
}

fn paragraph(lines: &[&str]) -> Option<Source> {
    let field = |name: &str| {
        let mut wanted = false;
        let mut value = String::new();
        for line in lines {
            let begins = line
                .split_once(':')
                .filter(|_| !line.starts_with([' ', '\t']));
            let part = match begins {
                Some((found, part)) => {
                    wanted = found.eq_ignore_ascii_case(name);
                    part
                }
                None => line,
            };
            if wanted {
                value.push_str(part.trim());
                value.push('\n');
            }
        }
        value.trim().to_owned()
    };
    let words = |name: &str| -> Vec<String> {
        let value = field(name);
        value.split_whitespace().map(str::to_owned).collect()
    };
    let off = field("Enabled").eq_ignore_ascii_case("no");
    if off || !words("Types").iter().any(|kind| kind == "deb") {
        return None;
    }
    // A key may be spelt out in the field, and then it is no path.
    let signed_by = Some(field("Signed-By")).filter(|path| path.starts_with('/'));
    Some(Source {
        addresses: words("URIs"),
        suites: words("Suites"),
        components: words("Components"),
        signed_by: signed_by.filter(|path| !path.contains(char::is_whitespace)),
    })
}

impl Source {
    fn lines(&self, suite: &str) -> Vec<String> {
        let key = self.signed_by.as_ref();
        let key = key.map_or(String::new(), |key| format!("[signed-by={key}] "));
        let components = self.components.join(" ");
        let line = |address| format!("deb {key}{address} {suite} {components}");
        self.addresses.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAGRAPHS: &str = "\
# A comment
Types: deb deb-src
URIs: http://a.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /k.gpg

Types: deb
URIs: http://b.example/security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://c.example/other
Suites: nodistro
Components: main

Types: deb
Enabled: no
URIs: http://d.example/debian
Suites: bookworm
Components: main
";

    fn apt(list: &str, sources: &str) -> tempfile::TempDir {
        let apt = tempfile::tempdir().unwrap();
        fs::create_dir(apt.path().join("sources.list.d")).unwrap();
        fs::write(apt.path().join("sources.list"), list).unwrap();
        fs::write(apt.path().join("sources.list.d/x.sources"), sources).unwrap();
        apt
    }

    #[test]
    fn the_sources_of_a_suite_are_found_in_both_forms() {
        let list = "deb [arch=amd64 signed-by=/l.gpg] http://l.example/debian bookworm main # x\n\
                    deb-src http://l.example/debian bookworm main\n";
        let apt = apt(list, PARAGRAPHS);
        assert_eq!(
            lines("bookworm", apt.path(), None),
            [
                "deb [signed-by=/l.gpg] http://l.example/debian bookworm main",
                "deb [signed-by=/k.gpg] http://a.example/debian bookworm main contrib",
                "deb [signed-by=/k.gpg] http://a.example/debian bookworm-updates main contrib",
                "deb http://b.example/security bookworm-security main",
            ]
        );
    }

    #[test]
    fn another_suite_is_asked_of_the_same_archive() {
        let apt = apt("", PARAGRAPHS);
        assert_eq!(
            lines("trixie", apt.path(), Some("bookworm")),
            ["deb http://a.example/debian trixie main contrib"]
        );
        assert!(lines("trixie", apt.path(), Some("noble")).is_empty());
        assert!(lines("trixie", Path::new("/nowhere"), None).is_empty());
    }
}
