//! The revisions of a job, and how two texts differ.
//!
//! Owns the form of a difference: runs of lines with a little of what stays around them. Never says
//! what a line means.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};
use utoipa::ToSchema;

/// Lines that stay, shown around those that do not.
const AROUND: usize = 3;

/// One revision of a job's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionView {
    /// Its number.
    pub revision: u32,
    /// The hash of its text.
    pub hash: String,
    /// When it was set, if that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Kept,
    /// It is no more.
    Gone,
    /// It was not there.
    New,
}

impl Fate {
    /// The character that stands before such a line.
    pub const fn sign(self) -> char {
        match self {
            Self::Kept => ' ',
            Self::Gone => '-',
            Self::New => '+',
        }
    }
}

/// A line of one text or of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedLine {
    /// What became of it.
    pub fate: Fate,
    /// Its number in the text before, from 1.
    pub before: Option<usize>,
    /// Its number in the text after.
    pub after: Option<usize>,
    /// The line, without its end.
    pub text: String,
}

/// Lines that differ, with those around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunk(pub Vec<ComparedLine>);

/// Where two texts differ, from the top; nowhere if they are the same.
pub fn compare(before: &str, after: &str) -> Vec<Hunk> {
    let compared = TextDiff::from_lines(before, after);
    let groups = compared.grouped_ops(AROUND);
    let hunk = |group: &Vec<similar::DiffOp>| {
        let changes = group.iter().flat_map(|op| compared.iter_changes(op));
        let line = |change: similar::Change<&str>| ComparedLine {
            fate: match change.tag() {
                ChangeTag::Equal => Fate::Kept,
                ChangeTag::Delete => Fate::Gone,
                ChangeTag::Insert => Fate::New,
            },
            before: change.old_index().map(|index| index + 1),
            after: change.new_index().map(|index| index + 1),
            text: change.value().trim_end_matches(['\n', '\r']).to_owned(),
        };
        Hunk(changes.map(line).collect())
    };
    groups.iter().map(hunk).collect()
}

/// The heading of a hunk as patches have it: `@@ -1,3 +1,4 @@`.
impl fmt::Display for Hunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |numbers: &mut dyn Iterator<Item = usize>| {
            let first = numbers.next();
            (
                first.unwrap_or_default(),
                first.iter().count() + numbers.count(),
            )
        };
        let (from, before) = span(&mut self.0.iter().filter_map(|line| line.before));
        let (to, after) = span(&mut self.0.iter().filter_map(|line| line.after));
        write!(f, "@@ -{from},{before} +{to},{after} @@")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(before: &str, after: &str) -> Vec<String> {
        let hunks = compare(before, after);
        let lines = hunks.iter().flat_map(|hunk| {
            let lines = hunk.0.iter();
            let lines = lines.map(|line| format!("{}{}", line.fate.sign(), line.text));
            [hunk.to_string()].into_iter().chain(lines)
        });
        lines.collect()
    }

    #[test]
    fn what_changed_is_shown_with_three_lines_around_it() {
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n";
        let after = before.replace("5\n6\n", "5\nnew\n").replace("14\n", "");
        let expected = [
            "@@ -3,7 +3,7 @@",
            " 3",
            " 4",
            " 5",
            "-6",
            "+new",
            " 7",
            " 8",
            " 9",
            "@@ -11,4 +11,3 @@",
            " 11",
            " 12",
            " 13",
            "-14",
        ];
        assert_eq!(told(before, &after), expected);
        assert_eq!(told(before, before), Vec::<String>::new());
        assert_eq!(told("", "a\n"), ["@@ -0,0 +1,1 @@", "+a"]);
    }

    #[test]
    fn texts_without_a_common_line_are_compared_all_the_same() {
        let lines = |word: &str| {
            let lines: Vec<String> = (0..20_000).map(|n| format!("{word} {n}")).collect();
            lines.join("\n")
        };
        let hunks = compare(&lines("a"), &lines("b"));
        assert_eq!(hunks.iter().map(|hunk| hunk.0.len()).sum::<usize>(), 40_000);
    }
}
