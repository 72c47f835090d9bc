//! Answers held against a description.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::Answer;
use super::drawn::Operation;

/// The forms of all answers that are described, by the name of their schema.
pub(super) struct Answers(BTreeMap<String, Validator>);

impl Answers {
    pub(super) fn of(document: &Value) -> Result<Self> {
        let components = &document["components"];
        let names = components["schemas"].as_object().into_iter().flatten();
        let validator = |(name, _): (&String, &Value)| {
            let reference = format!("#/components/schemas/{name}");
            let schema = json!({ "$ref": reference, "components": components });
            let built = jsonschema::validator_for(&schema);
            Ok((reference.clone(), built.with_context(|| reference)?))
        };
        Ok(Self(names.map(validator).collect::<Result<_>>()?))
    }

    /// Whether an answer is one that its operation describes. Errors: in words, why not.
    pub(super) fn check(&self, operation: &Operation, answer: &Answer) -> Result<()> {
        let Answer { status, body, .. } = answer;
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        ensure!(*status < 500, "{status}, a fault of ours: {shown}");
        let responses = &operation.described["responses"];
        let described = &responses[status.to_string()];
        let described = if described.is_null() && *status >= 400 {
            &responses["default"]
        } else {
            described
        };
        ensure!(described.is_object(), "{status} is not described: {shown}");
        let content = described["content"].as_object();
        let Some(content) = content.filter(|content| !content.is_empty()) else {
            ensure!(body.is_empty(), "{status} is to have no body: {shown}");
            return Ok(());
        };
        let given = answer.content_type.as_deref().unwrap_or("none");
        let essence = given.split(';').next().unwrap_or_default();
        let form = content
            .get(essence)
            // What an artifact is, its publisher says.
            .or_else(|| content.get("application/octet-stream"))
            .with_context(|| format!("{status} is not to be {given}: {shown}"))?;
        if essence.ends_with("json") {
            let value: Value = serde_json::from_slice(body).with_context(|| shown.clone())?;
            self.check_form(&form["schema"], &value)
                .with_context(|| format!("{status}: {value:.2000}"))?;
        }
        Ok(())
    }

    fn check_form(&self, schema: &Value, value: &Value) -> Result<()> {
        if let Some(items) = schema.get("items") {
            let all = value.as_array().context("no list")?;
            return all.iter().try_for_each(|item| self.check_form(items, item));
        }
        let Some(reference) = schema["$ref"].as_str() else {
            return Ok(());
        };
        let form = self
            .0
            .get(reference)
            .with_context(|| reference.to_owned())?;
        let wrong: Vec<String> = form
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(
            wrong.is_empty(),
            "not as {reference} says: {}",
            wrong.join("; ")
        );
        Ok(())
    }
}
