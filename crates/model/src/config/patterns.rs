//! Patterns of refs, as triggers have them.
//!
//! Owns what a pattern fits: `*` stays within a name, `**` crosses slashes, `!` before excludes. A
//! pattern that cannot be read fits nothing; `check` has refused it before.

use globset::{Glob, GlobBuilder, GlobMatcher};

/// Whether a list of patterns fits a ref, given by its full name, `refs/heads/main`. Each pattern
/// is held against that name and against the short one of branches and tags. Without a pattern that
/// includes, all refs are included.
pub fn ref_fits(patterns: &[String], full: &str) -> bool {
    let short = full
        .strip_prefix("refs/heads/")
        .or_else(|| full.strip_prefix("refs/tags/"));
    let names: Vec<&str> = [Some(full), short].into_iter().flatten().collect();
    let fits = |pattern: &GlobMatcher| names.iter().any(|name| pattern.is_match(name));
    let patterns = Patterns::of(patterns);
    (patterns.wanted.is_empty() || patterns.wanted.iter().any(fits))
        && !patterns.excluded.iter().any(fits)
}

struct Patterns {
    wanted: Vec<GlobMatcher>,
    excluded: Vec<GlobMatcher>,
}

impl Patterns {
    fn of(patterns: &[String]) -> Self {
        let (excluded, wanted): (Vec<&str>, Vec<&str>) = patterns
            .iter()
            .map(String::as_str)
            .partition(|pattern| pattern.starts_with('!'));
        let compile = |patterns: Vec<&str>| {
            let bare = patterns
                .into_iter()
                .map(|p| p.strip_prefix('!').unwrap_or(p));
            bare.filter_map(|pattern| Some(glob(pattern).ok()?.compile_matcher()))
                .collect()
        };
        Self {
            wanted: compile(wanted),
            excluded: compile(excluded),
        }
    }
}

fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    #[test]
    fn refs_fit_by_their_full_and_their_short_name() {
        for (patterns, full, expected) in [
            (&[][..], "refs/heads/main", true),
            (&["main"], "refs/heads/main", true),
            (&["main"], "refs/tags/main", true),
            (&["main"], "refs/heads/maintenance", false),
            (&["refs/heads/main"], "refs/heads/main", true),
            (&["refs/heads/main"], "refs/tags/main", false),
            (&["v*"], "refs/tags/v1.2", true),
            (&["v*"], "refs/tags/v1/2", false),
            (&["release/**"], "refs/heads/release/1/2", true),
            (&["release/*"], "refs/heads/release/1/2", false),
            (&["*", "!wip-*"], "refs/heads/wip-1", false),
            (&["!wip-*"], "refs/heads/main", true),
            (&["!wip-*"], "refs/heads/wip-1", false),
            // The order does not matter.
            (&["!main", "main"], "refs/heads/main", false),
            (&["{main,next}"], "refs/heads/next", true),
            (&["v[0-9]"], "refs/tags/v3", true),
        ] {
            let fits = ref_fits(&list(patterns), full);
            assert_eq!(fits, expected, "{patterns:?} and {full}");
        }
    }
}
