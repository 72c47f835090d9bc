//! Patterns of refs, of files and of values.
//!
//! Owns what a pattern fits: `*` stays within a name, `**` crosses slashes, `!` before excludes. A
//! pattern that cannot be read fits nothing; `check` has refused it before.

use globset::{Glob, GlobBuilder, GlobMatcher};

/// Most patterns of one list.
pub(super) const MAX_PATTERNS: usize = 64;
/// Most bytes of one pattern.
pub(super) const MAX_PATTERN: usize = 256;

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

/// Whether a list of patterns fits a value.
pub(super) fn value_fits(patterns: &[String], value: &str) -> bool {
    any_path_fits(patterns, &[value.to_owned()])
}

/// Whether a list of patterns fits any of the files that changed.
pub(super) fn any_path_fits(patterns: &[String], changed: &[String]) -> bool {
    let patterns = Patterns::of(patterns);
    let fits = |list: &[GlobMatcher], path: &String| list.iter().any(|p| p.is_match(path));
    changed.iter().any(|path| {
        (patterns.wanted.is_empty() || fits(&patterns.wanted, path))
            && !fits(&patterns.excluded, path)
    })
}

/// What is wrong with a pattern.
pub(super) fn complaint(pattern: &str) -> Option<String> {
    let bare = pattern.strip_prefix('!').unwrap_or(pattern);
    if bare.is_empty() || pattern.len() > MAX_PATTERN {
        return Some(format!("must have between 1 and {MAX_PATTERN} bytes"));
    }
    let error = glob(bare).err()?;
    Some(format!("not a pattern: {}", error.kind()))
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

    #[test]
    fn files_fit_unless_all_are_excluded() {
        for (patterns, changed, expected) in [
            (&["src/**"][..], &["src/a/b.rs"][..], true),
            (&["src/*"], &["src/a/b.rs"], false),
            (&["**/*.rs"], &["a.rs"], true),
            (&["*.rs"], &["src/a.rs"], false),
            (&["!docs/**"], &["docs/a.md"], false),
            (&["!docs/**"], &["docs/a.md", "src/a.rs"], true),
            (&["src/**", "!src/gen/**"], &["src/gen/a"], false),
            (&["src/**"], &[], false),
        ] {
            let fits = any_path_fits(&list(patterns), &list(changed));
            assert_eq!(fits, expected, "{patterns:?} and {changed:?}");
        }
    }

    #[test]
    fn a_pattern_that_would_take_long_takes_no_time() {
        // Globs become automata without backtracking.
        let pattern = format!("{}b", "*a".repeat(100));
        assert_eq!(complaint(&pattern), None);
        assert!(!ref_fits(&[pattern], &"a".repeat(4000)));
        assert!(complaint(&"a".repeat(257)).is_some());
        assert!(complaint("!").is_some());
        assert!(complaint("[").is_some());
        assert!(complaint("!{a").is_some());
    }
}
