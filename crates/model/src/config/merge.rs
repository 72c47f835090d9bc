//! Documents laid over each other.
//!
//! Owns what becomes of a key that several files have: maps are joined by key, lists follow each other,
//! and otherwise what is laid later counts. Positions stay those of the files.

use std::collections::{BTreeMap, BTreeSet};

use jsonc_parser::ast::{Array, Object, ObjectProp, Value as Ast};

/// Keys whose values are joined by key.
pub(super) const MAPS: &[&str] = &["parameters", "env"];
/// Keys whose values follow each other.
pub(super) const LISTS: &[&str] = &["tasks", "post", "downstream_jobs", "triggers"];

/// What was laid so far.
#[derive(Debug, Default)]
pub(super) struct Merged<'a> {
    object: Option<Object<'a>>,
    origins: Origins,
}

/// Where the elements of the lists come from.
pub(super) type Origins = BTreeMap<String, Places>;
/// Of each element its file, and its place in the list there.
type Places = Vec<(usize, usize)>;

impl<'a> Merged<'a> {
    /// Lays the document of `source`, which includes the documents of `below`.
    pub(super) fn lay(&mut self, source: usize, mut object: Object<'a>, below: &BTreeSet<usize>) {
        let own = |property: &ObjectProp<'a>| {
            let elements = &property.value.as_array()?.elements;
            let places = (0..elements.len()).map(|index| (source, index)).collect();
            Some((property.name.as_str().to_owned(), places))
        };
        let mut origins: Origins = object.properties.iter().filter_map(own).collect();
        let earlier = self.object.take();
        for lower in earlier.into_iter().flat_map(|earlier| earlier.properties) {
            let name = lower.name.as_str().to_owned();
            let mut properties = object.properties.iter_mut();
            let lower_origins = self.origins.remove(&name).unwrap_or_default();
            match properties.find(|upper| upper.name.as_str() == name) {
                None => {
                    origins.insert(name, lower_origins);
                    object.properties.push(lower);
                }
                Some(upper) => match (&mut upper.value, lower.value) {
                    (Ast::Array(upper), Ast::Array(lower)) if LISTS.contains(&&*name) => {
                        let origins = origins.entry(name).or_default();
                        precede((upper, origins), (lower, lower_origins), below);
                    }
                    (Ast::Object(upper), Ast::Object(lower)) if MAPS.contains(&&*name) => {
                        complete(upper, lower);
                    }
                    _ => {}
                },
            }
        }
        (self.object, self.origins) = (Some(object), origins);
    }

    /// The one document, and where the elements of its lists come from.
    pub(super) fn finish(self) -> (Option<Object<'a>>, Origins) {
        (self.object, self.origins)
    }
}

/// Puts `lower` before `upper`. What is named like an element of a file that is included takes that
/// element's place.
fn precede<'a>(
    (upper, origins): (&mut Array<'a>, &mut Places),
    (lower, lower_origins): (Array<'a>, Places),
    below: &BTreeSet<usize>,
) {
    let own = std::mem::take(&mut upper.elements);
    let own_origins = std::mem::take(origins);
    upper.elements = lower.elements;
    *origins = lower_origins;
    for (element, origin) in own.into_iter().zip(own_origins) {
        let replaced = |(index, other): (usize, &Ast<'a>)| {
            let is_below = origins
                .get(index)
                .is_some_and(|(from, _)| below.contains(from));
            is_below && name(&element).is_some() && name(other) == name(&element)
        };
        let place = upper.elements.iter().enumerate().position(replaced);
        if let Some(place) = place {
            (upper.elements[place], origins[place]) = (element, origin);
        } else {
            upper.elements.push(element);
            origins.push(origin);
        }
    }
}

fn name<'v>(element: &'v Ast<'_>) -> Option<&'v str> {
    let name = element.as_object()?.get("name")?;
    Some(&name.value.as_string_lit()?.value)
}

/// Adds what only `lower` has.
fn complete<'a>(upper: &mut Object<'a>, lower: Object<'a>) {
    for property in lower.properties {
        if upper.get(property.name.as_str()).is_none() {
            upper.properties.push(property);
        }
    }
}

/// Counts all positions from `base` on.
pub(super) fn shift(value: &mut Ast<'_>, base: usize) {
    let range = match value {
        Ast::Object(object) => {
            for property in &mut object.properties {
                property.range.start += base;
                property.range.end += base;
                shift(&mut property.value, base);
            }
            &mut object.range
        }
        Ast::Array(array) => {
            for element in &mut array.elements {
                shift(element, base);
            }
            &mut array.range
        }
        Ast::StringLit(text) => &mut text.range,
        Ast::NumberLit(number) => &mut number.range,
        Ast::BooleanLit(boolean) => &mut boolean.range,
        Ast::NullKeyword(null) => &mut null.range,
    };
    range.start += base;
    range.end += base;
}
