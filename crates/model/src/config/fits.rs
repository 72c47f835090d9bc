//! Patterns in a job file, and whether something fits them.
//!
//! `*` stands for anything but `/`, `**` for anything. A list of patterns is fitted by what fits one
//! of them and none of those with `!` before. Patterns are of bounded size and compile to automata
//! that read their text once: none can take long.

use globset::{GlobBuilder, GlobMatcher};

/// Most bytes of one pattern.
pub(super) const MAX_PATTERN: usize = 256;

/// Compiles one pattern, without its `!`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn pattern(text: &str) -> Result<GlobMatcher, String> {
    let bare = text.strip_prefix('!').unwrap_or(text);
    if bare.is_empty() || bare.len() > MAX_PATTERN {
        return Err(format!("must have between 1 and {MAX_PATTERN} bytes"));
    }
    let glob = GlobBuilder::new(bare).literal_separator(true).build();
    let glob = glob.map_err(|error| format!("not a pattern: {}", error.kind()))?;
    Ok(glob.compile_matcher())
}

/// Whether one of the names of a thing fits the patterns. No pattern asks for anything; patterns
/// that only exclude take what they do not exclude.
pub fn fits(patterns: &[String], names: &[&str]) -> bool {
    let matches = |text: &String| {
        pattern(text).is_ok_and(|pattern| names.iter().any(|name| pattern.is_match(name)))
    };
    let (excluding, asking): (Vec<_>, Vec<_>) =
        patterns.iter().partition(|text| text.starts_with('!'));
    !excluding.into_iter().any(matches) && (asking.is_empty() || asking.into_iter().any(matches))
}

/// Whether any of the files fits. Where it is not known which there are, one might.
pub fn any_fits(patterns: &[String], files: Option<&[String]>) -> bool {
    let Some(files) = files else { return true };
    patterns.is_empty() || files.iter().any(|file| fits(patterns, &[file]))
}

/// The names that a ref goes by: in full, and without `refs/heads/` or `refs/tags/`.
pub fn names_of_ref(full: &str) -> Vec<&str> {
    let short = ["refs/heads/", "refs/tags/"]
        .iter()
        .find_map(|prefix| full.strip_prefix(prefix));
    std::iter::once(full).chain(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_fit_by_either_name() {
        let fit = |patterns: &[&str], full: &str| {
            let patterns: Vec<_> = patterns.iter().map(|text| (*text).to_owned()).collect();
            fits(&patterns, &names_of_ref(full))
        };
        assert!(fit(&["main"], "refs/heads/main"));
        assert!(fit(&["refs/heads/main"], "refs/heads/main"));
        assert!(!fit(&["refs/tags/main"], "refs/heads/main"));
        assert!(!fit(&["release/*"], "refs/heads/release/1/fix"));
        assert!(fit(&["release/**"], "refs/heads/release/1/fix"));
        assert!(fit(&["v*", "!v0*"], "refs/tags/v1"));
        assert!(!fit(&["v*", "!v0*"], "refs/tags/v0.9"));
        assert!(fit(&["!gh-pages"], "refs/heads/main"));
        assert!(!fit(&["!gh-pages"], "refs/heads/gh-pages"));
        assert!(fit(&[], "refs/heads/main"));
    }

    #[test]
    fn one_file_that_fits_is_enough() {
        let texts = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| (*text).to_owned()).collect()
        };
        let patterns = texts(&["src/**", "!**/*.md"]);
        assert!(any_fits(
            &patterns,
            Some(&texts(&["README.md", "src/a/b.rs"]))
        ));
        assert!(!any_fits(
            &patterns,
            Some(&texts(&["src/README.md", "doc.rs"]))
        ));
        assert!(any_fits(&patterns, None));
        assert!(!any_fits(&patterns, Some(&[])));
    }
}
