//! What `${…}` stands for in a job file.
//!
//! Owns the reading of references and their values: `${name}` is a parameter or an axis of the
//! matrix, `${event.sha}` a fact of the event, `${tasks.build.version}` an output of an earlier
//! task, `${name:-text}` has a text for when there is no value, `$${` is a plain `${`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::event::Event;
use crate::outcome::Failure;

/// The values at one place of one build.
#[derive(Debug, Clone, Default)]
pub struct Scope<'a> {
    /// The build's parameters.
    pub parameters: Cow<'a, BTreeMap<String, String>>,
    /// The event that started it.
    pub event: Option<&'a Event>,
    /// Outputs of earlier tasks, by the name of the task.
    pub outputs: BTreeMap<&'a str, &'a BTreeMap<String, String>>,
}

impl<'a> Scope<'a> {
    /// What is known from the beginning.
    pub fn of(parameters: &'a BTreeMap<String, String>, event: Option<&'a Event>) -> Self {
        Self {
            parameters: Cow::Borrowed(parameters),
            event,
            outputs: BTreeMap::new(),
        }
    }

    /// `text` with every reference replaced by its value.
    ///
    /// # Errors
    /// [`Failure::Configuration`] if one has none.
    pub fn fill(&self, text: &str) -> Result<String, Failure> {
        let filled = replace(text, |reference| match self.value(reference.name) {
            Some(value) => Ok(value.to_owned()),
            None => reference
                .default
                .map(ToOwned::to_owned)
                .ok_or(reference.name),
        });
        filled.map_err(|name| Failure::Configuration {
            detail: format!("${{{name}}} has no value"),
        })
    }

    fn value(&self, name: &str) -> Option<&str> {
        if let Some(fact) = name.strip_prefix("event.") {
            return self.event?.fact(fact);
        }
        if let Some(output) = name.strip_prefix("tasks.") {
            let (task, output) = output.rsplit_once('.')?;
            return self.outputs.get(task)?.get(output).map(String::as_str);
        }
        self.parameters.get(name).map(String::as_str)
    }
}

/// One `${…}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference<'t> {
    pub(super) name: &'t str,
    pub(super) default: Option<&'t str>,
}

/// The references in a text.
pub(super) fn references(text: &str) -> Vec<Reference<'_>> {
    let mut found = Vec::new();
    let all: Result<String, ()> = replace(text, |reference| {
        found.push(reference);
        Ok(String::new())
    });
    drop(all);
    found
}

/// `text` with the references to `values` replaced, and every other left as it is.
pub(super) fn fill_some(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut filled = String::with_capacity(text.len());
    for part in parts(text) {
        match part {
            Part::Reference(reference, written) => {
                let value = values.get(reference.name).map(String::as_str);
                filled.push_str(value.unwrap_or(written));
            }
            Part::Escape => filled.push_str("$${"),
            Part::Plain(plain) => filled.push_str(plain),
        }
    }
    filled
}

pub(super) fn replace<'t, E>(
    text: &'t str,
    mut value: impl FnMut(Reference<'t>) -> Result<String, E>,
) -> Result<String, E> {
    let mut filled = String::with_capacity(text.len());
    for part in parts(text) {
        match part {
            Part::Reference(reference, _) => filled.push_str(&value(reference)?),
            Part::Escape => filled.push_str("${"),
            Part::Plain(plain) => filled.push_str(plain),
        }
    }
    Ok(filled)
}

enum Part<'t> {
    Plain(&'t str),
    Escape,
    /// A reference, and how it is written.
    Reference(Reference<'t>, &'t str),
}

fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(after) = rest.strip_prefix("$${") {
            rest = after;
            return Some(Part::Escape);
        }
        if let Some(after) = rest.strip_prefix("${") {
            // One that is not closed is its own name to the end: nothing is called so.
            let (inner, following) = after.split_once('}').unwrap_or((rest, ""));
            let written = &rest[..rest.len() - following.len()];
            rest = following;
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            return Some(Part::Reference(Reference { name, default }, written));
        }
        let dollar = rest.char_indices().skip(1).find(|(_, c)| *c == '$');
        let end = dollar.map_or(rest.len(), |(at, _)| at);
        let (plain, following) = rest.split_at(end);
        rest = following;
        Some(Part::Plain(plain))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, Failure> {
        let parameters = [("a".to_owned(), "1".to_owned())].into();
        let outputs = [("v".to_owned(), "9".to_owned())].into();
        let mut scope = Scope::of(&parameters, None);
        scope.outputs.insert("test.linux", &outputs);
        scope.fill(text)
    }

    #[test]
    fn references_stand_for_values() {
        for (text, expected) in [
            ("", ""),
            ("x${a}y${a}", "x1y1"),
            ("$a $${a} $", "$a ${a} $"),
            ("${b:-none}${a:-none}", "none1"),
            ("${event.ref:-main}", "main"),
            ("${tasks.test.linux.v}", "9"),
            ("ä${a}ö", "ä1ö"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["${b}", "${a", "${event.sha}", "${tasks.test.w}", "${}"] {
            assert!(filled(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_fact_holds_is_not_looked_at_again() {
        let event = Event {
            source: crate::event::Source::Github,
            kind: crate::event::EventKind::Push,
            delivery: None,
            facts: [("title".to_owned(), "${event.title}".to_owned())].into(),
            paths: None,
            labels: Vec::new(),
        };
        let none = BTreeMap::new();
        let scope = Scope::of(&none, Some(&event));
        assert_eq!(scope.fill("${event.title}").unwrap(), "${event.title}");
        assert!(scope.fill("${event.pr}").is_err());
    }

    #[test]
    fn some_are_filled_and_others_left() {
        let values = [("os".to_owned(), "linux".to_owned())].into();
        assert_eq!(
            fill_some("${os} ${a:-x} $${os} ${", &values),
            "linux ${a:-x} $${os} ${"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[$a{}:\\-é.]{0,24}") {
            let plain = fill_some(&text, &BTreeMap::new());
            proptest::prop_assert_eq!(plain, text);
        }
    }
}
