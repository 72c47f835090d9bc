//! Patterns of artifacts: `*` and `?` within a name, `**` across directories, `[…]`, `{a,b}`.

use distci_model::outcome::Failure;
use globset::{GlobBuilder, GlobMatcher};

/// One pattern of a task, ready to use.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    matcher: GlobMatcher,
}

impl Pattern {
    /// Reads each of `texts`.
    pub(super) fn all(texts: &[String]) -> Result<Vec<Self>, Failure> {
        texts.iter().map(|text| Self::new(text)).collect()
    }

    fn new(text: &str) -> Result<Self, Failure> {
        // People write "./dist/*"; paths are compared without the dot.
        let plain = text.strip_prefix("./").unwrap_or(text);
        let glob = GlobBuilder::new(plain)
            .literal_separator(true)
            .backslash_escape(true)
            .build();
        match glob {
            Ok(glob) => Ok(Self {
                text: text.to_owned(),
                matcher: glob.compile_matcher(),
            }),
            Err(error) => Err(Failure::Configuration {
                detail: format!("the pattern {text:?}: {}", error.kind()),
            }),
        }
    }

    /// Whether `path`, relative and with `/`, is meant.
    pub(super) fn matches(&self, path: &std::path::Path) -> bool {
        self.matcher.is_match(path)
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_in_its_directory() {
        let cases = [
            ("dist/*.egg", "dist/a.egg", true),
            ("dist/*.egg", "dist/sub/a.egg", false),
            ("**/*.log", "a/b/c.log", true),
            ("**/*.log", "c.log", true),
            ("./out/{a,b}", "out/b", true),
            ("**", "any/depth", true),
            ("*.txt", ".hidden.txt", true),
        ];
        for (pattern, path, expected) in cases {
            let pattern = Pattern::new(pattern).unwrap();
            assert_eq!(
                pattern.matches(path.as_ref()),
                expected,
                "{pattern:?} {path}"
            );
        }
    }

    #[test]
    fn a_pattern_without_meaning_is_the_configurations_fault() {
        assert!(matches!(
            Pattern::new("[a"),
            Err(Failure::Configuration { .. })
        ));
    }
}
