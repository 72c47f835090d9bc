//! A TOML document, read key by key.
//!
//! Owns the places of what is wrong, and the collection of all of it instead of the first. Never
//! knows what a key means. Invariant: a key is known because somebody asked for it, so the known
//! keys and the keys that are read cannot drift apart.

use std::cell::RefCell;

use distci_model::config::ConfigProblem;
use toml::de::{DeInteger, DeTable, DeValue};

/// How like a known key an unknown one is, at least, to be taken for a slip.
const LIKENESS: f64 = 0.8;

/// What is wrong with a value, and what to do about it.
pub(crate) struct Wrong {
    message: String,
    help: Option<String>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            message,
            help: None,
        }
    }

    pub(crate) fn with_help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

/// A document in which everything that is wrong is collected.
pub(crate) struct Document<'t> {
    text: &'t str,
    problems: RefCell<Vec<ConfigProblem>>,
}

impl<'t> Document<'t> {
    /// Reads `text` with `read`, which takes the document's top section. Nothing is given as long
    /// as anything is wrong.
    pub(crate) fn read<T>(
        text: &'t str,
        read: impl FnOnce(&Section<'_, 't>) -> Option<T>,
    ) -> Result<T, Vec<ConfigProblem>> {
        let document = Self {
            text,
            problems: RefCell::default(),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            document.complain(at, String::new(), Wrong::new(error.message().trim()));
        }
        let broken = !document.problems.borrow().is_empty();
        let top = Section {
            document: &document,
            path: String::new(),
            at: 0,
            table: table.get_ref(),
            known: RefCell::default(),
        };
        // What is missing from a document that cannot be read says nothing.
        let whole = if broken { None } else { read(&top) };
        if !broken {
            top.refuse_unknown();
        }
        let mut problems = document.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        match whole {
            Some(whole) if problems.is_empty() => Ok(whole),
            Some(_) | None => Err(problems),
        }
    }

    fn complain(&self, at: usize, path: String, wrong: Wrong) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.problems.borrow_mut().push(ConfigProblem {
            file: None,
            path,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: wrong.message,
            help: wrong.help,
        });
    }
}

/// A table of the document.
pub(crate) struct Section<'d, 't> {
    document: &'d Document<'t>,
    path: String,
    at: usize,
    table: &'d DeTable<'t>,
    known: RefCell<Vec<&'static str>>,
}

impl<'d, 't> Section<'d, 't> {
    /// Reads the section below, if it is there, and refuses what it does not ask for.
    pub(crate) fn section<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Section<'d, 't>) -> Option<T>,
    ) -> Option<T> {
        let (at, value) = self.find(key)?;
        let Some(table) = value.as_table() else {
            let wrong = Wrong::new(format!("expected a section, `[{}]`", self.name(key)));
            self.complain(at, key, wrong);
            return None;
        };
        self.below(key, (at, table), read)
    }

    /// Reads a table that stands below a key, and refuses what is not asked for.
    fn below<T>(
        &self,
        key: &'static str,
        (at, table): (usize, &'d DeTable<'t>),
        read: impl FnOnce(&Section<'d, 't>) -> Option<T>,
    ) -> Option<T> {
        let section = Section {
            document: self.document,
            path: self.name(key),
            at,
            table,
            known: RefCell::default(),
        };
        let read = read(&section);
        section.refuse_unknown();
        read
    }

    /// Reads each section of a list of them, and refuses what it does not ask for. Those that are
    /// wrong are left out, and told of.
    pub(crate) fn sections<T>(
        &self,
        key: &'static str,
        mut read: impl FnMut(&Section<'d, 't>) -> Option<T>,
    ) -> Vec<T> {
        let Some((at, value)) = self.find(key) else {
            return Vec::new();
        };
        let tables = value.as_array().map(|list| {
            let tables = list.iter();
            tables.filter_map(|element| Some((element.span().start, element.get_ref().as_table()?)))
        });
        let tables: Vec<(usize, &DeTable<'t>)> = tables.into_iter().flatten().collect();
        if tables.is_empty()
            || value
                .as_array()
                .is_some_and(|list| list.len() > tables.len())
        {
            let wrong = Wrong::new(format!(
                "expected sections, each begun by `[[{}]]`",
                self.name(key)
            ));
            self.complain(at, key, wrong);
            return Vec::new();
        }
        let tables = tables.into_iter();
        let read = tables.filter_map(|table| self.below(key, table, &mut read));
        read.collect()
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// A text, as `parse` understands it, if it is there.
    pub(crate) fn text<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.value(key, |value| match value.as_str() {
            Some(text) => parse(text),
            None => Err(expected("a text in quotes", value)),
        })
    }

    /// The same, and it is wrong to leave it out.
    pub(crate) fn needed<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.need(key);
        self.text(key, parse)
    }

    /// A list of texts that is not empty, each as `parse` understands it, if it is there.
    pub(crate) fn texts<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let (at, value) = self.find(key)?;
        let Some(list) = value.as_array().filter(|list| list.iter().count() > 0) else {
            let wrong = expected("a list of texts, such as [\"…\", \"…\"]", value);
            self.complain(at, key, wrong);
            return None;
        };
        let parsed = list.iter().map(|element| {
            let value = element.get_ref();
            let parsed = match value.as_str() {
                Some(text) => parse(text),
                None => Err(expected("a text in quotes", value)),
            };
            let complain = |wrong| self.complain(element.span().start, key, wrong);
            parsed.map_err(complain).ok()
        });
        // Collected before it is judged, so that every wrong element is told.
        let parsed: Vec<Option<T>> = parsed.collect();
        parsed.into_iter().collect()
    }

    /// The same, and it is wrong to leave it out.
    pub(crate) fn needed_texts<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        self.need(key);
        self.texts(key, parse)
    }

    /// A number of `range`, if it is there.
    pub(crate) fn number(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        self.value(key, |value| {
            let number = value
                .as_integer()
                .and_then(|integer| u64::from_str_radix(integer.as_str(), integer.radix()).ok());
            number
                .filter(|number| range.contains(number))
                .ok_or_else(|| {
                    let (least, most) = (range.start(), range.end());
                    Wrong::new(format!("expected a number from {least} to {most}"))
                })
        })
    }

    /// A number that may have a fraction, as `parse` understands it, if it is there.
    pub(crate) fn decimal<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(f64) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.value(key, |value| {
            let whole = value.as_integer().map(DeInteger::as_str);
            let text = whole.or_else(|| Some(value.as_float()?.as_str()));
            match text.and_then(|text| text.parse().ok()) {
                Some(number) => parse(number),
                None => Err(expected("a number", value)),
            }
        })
    }

    /// `true` or `false`, if it is there.
    pub(crate) fn flag(&self, key: &'static str) -> Option<bool> {
        self.value(key, |value| {
            value
                .as_bool()
                .ok_or_else(|| expected("true or false", value))
        })
    }

    /// Refuses a secret that is written into the document.
    pub(crate) fn refuse_secret(&self, key: &'static str, advice: &str) {
        if let Some((at, _)) = self.present(key) {
            let wrong = Wrong::new("a secret does not belong into the configuration");
            self.known.borrow_mut().push(key);
            self.complain(at, key, wrong.with_help(advice));
        }
    }

    /// Complains of the section, or of one of its keys if that is there.
    pub(crate) fn complain_of(&self, key: &'static str, wrong: Wrong) {
        let at = self.present(key).map_or(self.at, |(at, _)| at);
        self.complain(at, key, wrong);
    }

    fn value<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let (at, value) = self.find(key)?;
        parse(value)
            .map_err(|wrong| self.complain(at, key, wrong))
            .ok()
    }

    fn need(&self, key: &'static str) {
        if self.find(key).is_none() {
            self.complain(self.at, key, Wrong::new("is missing"));
        }
    }

    fn find(&self, key: &'static str) -> Option<(usize, &'d DeValue<'t>)> {
        self.known.borrow_mut().push(key);
        self.present(key)
    }

    fn present(&self, key: &str) -> Option<(usize, &'d DeValue<'t>)> {
        let mut entries = self.table.iter();
        let (name, value) = entries.find(|(name, _)| name.get_ref() == key)?;
        Some((name.span().start, value.get_ref()))
    }

    fn refuse_unknown(&self) {
        let known = self.known.borrow();
        for name in self.table.keys() {
            let written: &str = name.get_ref();
            if known.contains(&written) {
                continue;
            }
            let wrong = Wrong {
                message: "unknown key".to_owned(),
                help: meant(written, &known),
            };
            self.document
                .complain(name.span().start, self.name(written), wrong);
        }
    }

    fn complain(&self, at: usize, key: &str, wrong: Wrong) {
        self.document.complain(at, self.name(key), wrong);
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

fn expected(what: &str, value: &DeValue<'_>) -> Wrong {
    Wrong::new(format!("expected {what}, found {}", value.type_str()))
}

/// "did you mean", if one of `known` is near enough to what was written.
fn meant(written: &str, known: &[&str]) -> Option<String> {
    let written = written.to_lowercase().replace('_', "-");
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&written, candidate), candidate))
        .filter(|(likeness, _)| *likeness > LIKENESS)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}
