//! A job file and the fragments that it includes, as texts.
//!
//! Owns which files there must be, in which order they are laid over each other, and where in which
//! file a byte of their texts is. Never opens a file: whoever has them asks what is wanted, and adds it.

use std::collections::{BTreeMap, BTreeSet};

use jsonc_parser::ast::{Object, Value as Ast};
use jsonc_parser::common::Ranged;

use super::JobConfig;
use super::parse::{ConfigProblem, MAX_BYTES, parse, parse_text};

/// Most files that a job file includes, directly or not.
pub const MAX_FRAGMENTS: usize = 50;
/// Most files that include each other in a row.
const MAX_DEPTH: usize = 10;
const MAX_PATH: usize = 1024;

/// A job file with its fragments, as far as they have been read.
#[derive(Debug, Clone)]
pub struct Files {
    sources: Vec<Source>,
    /// Where each file is among the sources, or why it is not there.
    known: BTreeMap<String, Result<usize, String>>,
    bytes: usize,
}

/// One file.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// From the folder that no file may leave.
    pub(super) path: String,
    pub(super) text: String,
    /// Its first byte, if all texts are counted on.
    pub(super) base: usize,
    includes: Vec<Include>,
}

/// One entry of an `include`.
#[derive(Debug, Clone)]
struct Include {
    path: Result<String, &'static str>,
    start: usize,
}

/// Something that is wrong with an `include`: the byte of all texts, where in its file, and what.
pub(super) struct Unfit {
    pub(super) at: usize,
    pub(super) path: String,
    pub(super) message: String,
}

/// The files in the order in which they are laid over each other, with all that each includes.
pub(super) type Order = Vec<(usize, BTreeSet<usize>)>;

impl Files {
    /// A job file that is at `path`, seen from the folder that no file may leave.
    pub fn of(path: &str, text: &str) -> Self {
        let mut files = Self {
            sources: Vec::new(),
            known: BTreeMap::new(),
            bytes: 0,
        };
        files.add(path, Ok(text.to_owned()));
        files
    }

    /// A file that has to be added before these are whole, if there is one.
    pub fn wanted(&self) -> Option<&str> {
        if self.excess().is_some() {
            return None;
        }
        let includes = self.sources.iter().flat_map(|source| &source.includes);
        let mut paths = includes.filter_map(|include| include.path.as_deref().ok());
        paths.find(|path| !self.known.contains_key(*path))
    }

    /// Adds a file that was wanted, or why it cannot be had.
    pub fn add(&mut self, path: &str, text: Result<String, String>) {
        let source = text.map(|text| {
            // Some editors begin a file with a mark that is no part of JSON.
            let text = text
                .strip_prefix('\u{feff}')
                .map_or(text.clone(), str::to_owned);
            let base = self.sources.last();
            let base = base.map_or(0, |last| last.base + last.text.len() + 1);
            self.bytes += text.len();
            let includes = if text.len() > MAX_BYTES {
                Vec::new()
            } else {
                includes(path, &text)
            };
            self.sources.push(Source {
                path: path.to_owned(),
                text,
                base,
                includes,
            });
            self.sources.len() - 1
        });
        self.known.insert(path.to_owned(), source);
    }

    /// The text of a fragment; without a path, that of the job file itself.
    pub fn text(&self, path: Option<&str>) -> &str {
        let source = match path {
            None => self.sources.first(),
            Some(path) => self.sources.iter().find(|source| source.path == path),
        };
        source.map_or("", |source| &source.text)
    }

    /// Whether the job file includes anything.
    pub fn has_fragments(&self) -> bool {
        self.sources
            .first()
            .is_some_and(|root| !root.includes.is_empty())
    }

    /// The job, and the one text that says the same without including anything.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files, those of the job file itself first; never
    /// empty.
    pub fn job(&self) -> Result<(JobConfig, String), Vec<ConfigProblem>> {
        parse(self, None).map(|(job, whole)| (job, whole.to_string()))
    }

    /// The same for a file that a `stored` job reads from a repository: that job with what the file
    /// says, and the one text of the file.
    ///
    /// # Errors
    /// As for [`job`](Self::job), and whatever the job does not let the file say.
    pub fn job_of(&self, stored: &JobConfig) -> Result<(JobConfig, String), Vec<ConfigProblem>> {
        parse(self, Some(stored)).map(|(job, whole)| (job, whole.to_string()))
    }

    pub(super) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The source that a byte of all texts is in.
    pub(super) fn source_of(&self, at: usize) -> usize {
        let after = self.sources.partition_point(|source| source.base <= at);
        after.saturating_sub(1)
    }

    /// Why no more is read, if that is so.
    pub(super) fn excess(&self) -> Option<String> {
        if self.bytes > MAX_BYTES {
            let what = match self.sources.len() {
                1 => "the file has",
                _ => "the files have together",
            };
            return Some(format!(
                "{what} {} bytes; the limit is {MAX_BYTES}",
                self.bytes
            ));
        }
        let fragments = self.known.len().saturating_sub(1);
        (fragments > MAX_FRAGMENTS).then(|| format!("more than {MAX_FRAGMENTS} files are included"))
    }

    /// Included files come before those that include them.
    pub(super) fn order(&self) -> (Order, Vec<Unfit>) {
        let mut walk = Walk {
            files: self,
            way: Vec::new(),
            done: BTreeMap::new(),
            order: Vec::new(),
            unfit: Vec::new(),
        };
        walk.visit(0);
        (walk.order, walk.unfit)
    }
}

/// A walk through all files, deepest first.
struct Walk<'a> {
    files: &'a Files,
    way: Vec<usize>,
    /// The files that were left, and all that each includes.
    done: BTreeMap<usize, BTreeSet<usize>>,
    order: Order,
    unfit: Vec<Unfit>,
}

impl Walk<'_> {
    fn visit(&mut self, source: usize) {
        self.way.push(source);
        let files = self.files;
        let mut below = BTreeSet::new();
        for (position, include) in files.sources[source].includes.iter().enumerate() {
            let found = self.find(include).and_then(|found| {
                if !self.done.contains_key(&found) {
                    self.check_way(found)?;
                    self.visit(found);
                }
                Ok(found)
            });
            match found {
                Ok(found) => {
                    below.insert(found);
                    below.extend(self.done.get(&found).into_iter().flatten());
                }
                Err(message) => self.unfit.push(Unfit {
                    at: files.sources[source].base + include.start,
                    path: format!("include[{position}]"),
                    message,
                }),
            }
        }
        self.way.pop();
        self.done.insert(source, below.clone());
        self.order.push((source, below));
    }

    fn find(&self, include: &Include) -> Result<usize, String> {
        let path = include.path.as_ref().map_err(|why| (*why).to_owned())?;
        match self.files.known.get(path) {
            Some(found) => found.clone(),
            None => Err(self.files.excess().unwrap_or_else(|| {
                "not resolved: files are included by the program that has them, `distci job set`"
                    .to_owned()
            })),
        }
    }

    fn check_way(&self, next: usize) -> Result<(), String> {
        if let Some(first) = self.way.iter().position(|&source| source == next) {
            let round = self.way[first..].iter().chain([&next]);
            let names: Vec<&str> = round
                .map(|&source| self.files.sources[source].path.as_str())
                .collect();
            let round = names.join(" includes ");
            return Err(format!("files include each other: {round}"));
        }
        if self.way.len() > MAX_DEPTH {
            return Err(format!(
                "more than {MAX_DEPTH} files include each other in a row"
            ));
        }
        Ok(())
    }
}

/// What a text includes. What is wrong with the text itself is told when it is read.
fn includes(path: &str, text: &str) -> Vec<Include> {
    let Ok(Some(Ast::Object(object))) = parse_text(text) else {
        return Vec::new();
    };
    let written = texts(&object).unwrap_or_default();
    let include = |(start, written): (usize, &str)| Include {
        path: beside(path, written),
        start,
    };
    written.into_iter().map(include).collect()
}

/// The texts of `include`, and where they are; `None` if it is no list of texts.
fn texts<'v>(object: &'v Object<'_>) -> Option<Vec<(usize, &'v str)>> {
    let Some(include) = object.get("include") else {
        return Some(Vec::new());
    };
    let elements = include.value.as_array()?.elements.iter();
    elements
        .map(|element| Some((element.start(), &*element.as_string_lit()?.value)))
        .collect()
}

/// Whether `include` is what it must be.
pub(super) fn is_well_formed(object: &Object<'_>) -> bool {
    texts(object).is_some()
}

/// The path of a file that another names, from the folder that neither may leave.
fn beside(including: &str, written: &str) -> Result<String, &'static str> {
    if written.contains("://") {
        return Err("is an address; only files are included");
    }
    if written.starts_with('/') {
        return Err("is absolute; paths are relative to the file that includes");
    }
    if written.len() > MAX_PATH || written.chars().any(char::is_control) {
        return Err("is longer than 1024 bytes or not printable");
    }
    let folder = including.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut steps: Vec<&str> = Vec::new();
    for step in folder.split('/').chain(written.split('/')) {
        match step {
            "" | "." => {}
            ".." => {
                steps
                    .pop()
                    .ok_or("leaves the folder of the job file by '..'")?;
            }
            step => steps.push(step),
        }
    }
    if written.is_empty() || written.ends_with('/') || steps.is_empty() {
        return Err("names no file");
    }
    Ok(steps.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_and_stay_inside() {
        for (including, written, expected) in [
            ("job.json", "ci/rust.json", Some("ci/rust.json")),
            ("ci/rust.json", "env.json", Some("ci/env.json")),
            ("ci/rust.json", "../env.json", Some("env.json")),
            ("ci/rust.json", "./a//b.json", Some("ci/a/b.json")),
            ("job.json", "../env.json", None),
            ("ci/rust.json", "../../env.json", None),
            ("ci/rust.json", "x/../../../env.json", None),
            ("job.json", "/etc/passwd", None),
            ("job.json", "https://example.org/a.json", None),
            ("job.json", "", None),
            ("job.json", "ci/", None),
            ("job.json", "a\nb", None),
        ] {
            let found = beside(including, written).ok();
            assert_eq!(found.as_deref(), expected, "{including} {written}");
        }
    }
}
