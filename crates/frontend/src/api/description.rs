//! The description of the API as an OpenAPI document.
//!
//! Owns what holds for every route alike: the token, the form of errors, the names in paths. What
//! is special to a route is said by its handler.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

const PROBLEM: &str = "#/components/schemas/Problem";

/// What the handlers say, completed by what holds for all of them.
pub(super) fn describe(api: &OpenApi) -> Value {
    let mut document = serde_json::to_value(api).unwrap_or_default();
    document["components"]["securitySchemes"] = json!({ "token": {
        "type": "http", "scheme": "bearer", "description": "the token that the operator was given",
    } });
    let Some(paths) = document["paths"].as_object_mut() else {
        return document;
    };
    for (path, mut operations) in std::mem::take(paths) {
        for (_, operation) in operations.as_object_mut().into_iter().flatten() {
            complete(&path, operation);
        }
        // The rest of a path is one parameter; the router's star is not OpenAPI's.
        paths.insert(path.replace("{*", "{"), operations);
    }
    document
}

fn complete(path: &str, operation: &mut Value) {
    // A handler's first paragraph is either the one or the other.
    let said = ["description", "summary"].map(|key| operation[key].as_str());
    let said = said.into_iter().flatten().next().unwrap_or_default();
    let summary = said
        .split(['.', ':', ';'])
        .next()
        .unwrap_or_default()
        .to_owned();
    operation["summary"] = Value::String(summary);
    let mut responses = operation["responses"].take();
    for (_, response) in responses.as_object_mut().into_iter().flatten() {
        name_problems(response);
    }
    responses["default"] = problem("what went wrong");
    if path.starts_with("/api/v1/") {
        operation["security"] = json!([{ "token": [] }]);
        responses["401"] = problem("the token is missing or wrong");
    }
    operation["responses"] = responses;
    let named = operation["parameters"].take();
    let mut parameters = named.as_array().cloned().unwrap_or_default();
    for name in names(path) {
        if !parameters.iter().any(|known| known["name"] == name) {
            parameters.push(json!({
                "name": name, "in": "path", "required": true, "schema": { "type": "string" },
            }));
        }
    }
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    } else if let Some(operation) = operation.as_object_mut() {
        operation.remove("parameters");
    }
}

/// Handlers say that they answer with a problem; its content type holds for all of them.
fn name_problems(response: &mut Value) {
    let Some(content) = response["content"].as_object_mut() else {
        return;
    };
    let is_problem = |form: &Value| form["schema"]["$ref"] == PROBLEM;
    if content.get("application/json").is_some_and(is_problem)
        && let Some(form) = content.remove("application/json")
    {
        content.insert("application/problem+json".to_owned(), form);
    }
}

/// The names in a path's braces.
fn names(path: &str) -> impl Iterator<Item = &str> {
    let pieces = path.split('{').skip(1);
    pieces.filter_map(|piece| Some(piece.split_once('}')?.0.trim_start_matches('*')))
}

fn problem(description: &str) -> Value {
    let schema = json!({ "$ref": PROBLEM });
    let mut content = Map::new();
    content.insert(
        "application/problem+json".to_owned(),
        json!({ "schema": schema }),
    );
    json!({ "description": description, "content": content })
}

#[cfg(test)]
mod tests {
    use super::super::openapi;
    use super::*;

    /// Every operation with its path, as `method path`.
    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let paths = document["paths"].as_object().unwrap();
        let of = |(path, methods): (&String, &'_ Value)| {
            let path = path.clone();
            let methods = methods.as_object().unwrap().keys().cloned();
            methods
                .map(move |method| (path.clone(), method))
                .collect::<Vec<_>>()
        };
        let all: Vec<(String, String)> = paths.iter().flat_map(of).collect();
        all.into_iter()
            .map(|(path, method)| {
                (
                    format!("{method} {path}"),
                    &document["paths"][&path][&method],
                )
            })
            .collect()
    }

    #[test]
    fn every_route_names_its_parameters_its_errors_and_its_key() {
        let document = openapi();
        assert_eq!(document["info"]["title"], "DistCI");
        for (name, operation) in operations(&document) {
            let declared = operation["parameters"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            for wanted in names(&name) {
                let count = declared
                    .iter()
                    .filter(|known| known["name"] == wanted)
                    .count();
                assert_eq!(count, 1, "{name} names {wanted} {count} times");
            }
            assert!(!name.contains('*'), "{name}");
            assert!(operation["responses"]["default"].is_object(), "{name}");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{name}");
            let guarded = name.contains("/api/v1/");
            assert_eq!(operation["security"].is_array(), guarded, "{name}");
        }
    }
}
