//! From the texts of a job file and its fragments to one document.
//!
//! Owns syntax and keys, file by file; what is laid over what is `merge`'s.

use jsonc_parser::ast::{Object, Value as Ast};
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::ParseError;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::super::files::{Unfit, is_well_formed};
use super::super::merge::{LISTS, MAPS, Merged, shift};
use super::{ConfigProblem, IN_REPOSITORY_KEYS, JOB_KEYS, ROOT_KEYS, Reader, join};

/// What a text says.
pub(in crate::config) fn parse_text(text: &str) -> Result<Option<Ast<'_>>, ParseError> {
    // Comments and a last comma are kind to people; everything else is plain JSON.
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
    };
    Ok(parse_to_ast(text, &CollectOptions::default(), &options)?.value)
}

impl<'a> Reader<'a> {
    /// The document, with everything in it that is included.
    pub(super) fn document(&mut self) -> Option<Ast<'a>> {
        if let Some(message) = self.files.excess() {
            self.note(0, "", message, None);
            return None;
        }
        let (order, unfit) = self.files.order();
        // What is only missing because a file is would be told besides.
        let mut whole = unfit.is_empty();
        for Unfit { at, path, message } in unfit {
            self.note(at, &path, message, None);
        }
        let mut merged = Merged::default();
        for (source, below) in order {
            match self.object(source) {
                Some(object) => merged.lay(source, object, &below),
                None => whole = false,
            }
        }
        let (object, origins) = merged.finish();
        self.origins = origins;
        self.root = object.filter(|_| whole).map(Ast::Object);
        self.root.clone()
    }

    /// What one file says, without its `include`.
    fn object(&mut self, source: usize) -> Option<Object<'a>> {
        let mut value = self.syntax(source)?;
        let start = self.files.sources().get(source)?.base;
        shift(&mut value, start);
        self.duplicate_keys(&value);
        let at = value.start();
        let Ast::Object(mut object) = value else {
            let what = if source == 0 { "job file" } else { "fragment" };
            self.note(at, "", format!("a {what} is a JSON object"), None);
            return None;
        };
        self.check_keys(source, &object);
        if source > 0 {
            self.check_shapes(&object);
        }
        if !is_well_formed(&object) {
            let at = object
                .get("include")
                .map_or(at, |include| include.value.start());
            let message = "expected a list of paths".to_owned();
            self.note(at, "include", message, None);
        }
        drop(object.take("include"));
        Some(object)
    }

    fn check_keys(&mut self, source: usize, object: &Object<'a>) {
        let allowed = |key: &&str| {
            let fits = source == 0 || !ROOT_KEYS.contains(key);
            fits && (self.stored.is_none() || IN_REPOSITORY_KEYS.contains(key))
        };
        let allowed: Vec<&str> = JOB_KEYS.iter().copied().filter(allowed).collect();
        for property in &object.properties {
            let key = property.name.as_str();
            let message = if allowed.contains(&key) {
                continue;
            } else if !JOB_KEYS.contains(&key) {
                self.known_keys("", std::slice::from_ref(property), &allowed);
                continue;
            } else if ROOT_KEYS.contains(&key) {
                "only the job file itself has this key"
            } else {
                "only the stored job has this key: `distci job set`"
            };
            self.note(property.range.start, key, message.to_owned(), None);
        }
    }

    /// What does not fit is hidden when files are laid over each other.
    fn check_shapes(&mut self, object: &Object<'a>) {
        for property in &object.properties {
            let (key, value) = (property.name.as_str(), &property.value);
            let message = if LISTS.contains(&key) && value.as_array().is_none() {
                "expected a list"
            } else if MAPS.contains(&key) && value.as_object().is_none() {
                "expected an object"
            } else {
                continue;
            };
            self.note(value.start(), key, message.to_owned(), None);
        }
    }

    pub(super) fn syntax(&mut self, source: usize) -> Option<Ast<'a>> {
        let text = &self.files.sources().get(source)?.text;
        let (message, line, column) = match parse_text(text) {
            Ok(Some(value)) => return Some(value),
            Ok(None) => ("the file is empty".to_owned(), 1, 1),
            Err(error) => (
                error.kind().to_string(),
                error.line_display(),
                error.column_display(),
            ),
        };
        let problem = ConfigProblem {
            file: self.name(source),
            path: String::new(),
            line,
            column,
            message,
            help: None,
        };
        self.problems.push((source, problem));
        None
    }

    /// JSON readers differ on which of two equal keys counts, so none may be there twice.
    pub(super) fn duplicate_keys(&mut self, value: &Ast<'a>) {
        let mut found = Vec::new();
        find_duplicates(value, "", &mut found);
        for (path, start) in found {
            self.note(start, &path, "the key is there twice".to_owned(), None);
        }
    }
}

fn find_duplicates(value: &Ast<'_>, path: &str, found: &mut Vec<(String, usize)>) {
    match value {
        Ast::Object(object) => {
            let mut seen = std::collections::HashSet::new();
            for property in &object.properties {
                let path = join(path, property.name.as_str());
                if !seen.insert(property.name.as_str()) {
                    found.push((path.clone(), property.range.start));
                }
                find_duplicates(&property.value, &path, found);
            }
        }
        Ast::Array(array) => {
            for (index, element) in array.elements.iter().enumerate() {
                find_duplicates(element, &format!("{path}[{index}]"), found);
            }
        }
        Ast::StringLit(_) | Ast::NumberLit(_) | Ast::BooleanLit(_) | Ast::NullKeyword(_) => {}
    }
}
