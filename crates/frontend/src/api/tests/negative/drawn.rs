//! Requests drawn from a description.
//!
//! A value is mostly drawn as its schema says, with names of things that are there, so that requests get
//! beyond the door; now and then it is nearly right, or nonsense.

use std::collections::BTreeMap;

use anyhow::Result;
use axum::body::Body;
use axum::http::Request;
use data_encoding::HEXLOWER;
use fastrand::Rng;
use serde_json::{Map, Value, json};

/// How deep values are nested at most, where they are not to be nonsense.
const DEPTH: usize = 6;

/// One operation of the description.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) described: Value,
}

impl Operation {
    /// All that a description has.
    pub(super) fn all(document: &Value) -> Vec<Self> {
        let paths = document["paths"].as_object().into_iter().flatten();
        let of = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().cloned().unwrap_or_default();
            let path = path.clone();
            methods.into_iter().map(move |(method, described)| Self {
                method: method.to_uppercase(),
                path: path.clone(),
                described,
            })
        };
        paths.flat_map(of).collect()
    }
}

/// Names of things that are there, by what parameters and members call them.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, Vec<String>>);

impl Known {
    /// Adds values, which are parted by spaces.
    pub(super) fn add(&mut self, name: &str, values: &str) {
        let values = values.split(' ').map(str::to_owned);
        self.0.entry(name.to_owned()).or_default().extend(values);
    }

    fn of(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

/// A request before it is one of HTTP.
#[derive(Debug)]
pub(super) struct Asked {
    method: String,
    address: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Asked {
    pub(super) fn into_http(self, token: &str) -> Result<Request<Body>> {
        let builder = Request::builder().method(&*self.method).uri(self.address);
        let builder = builder.header("authorization", format!("Bearer {token}"));
        let with = |builder: http::request::Builder, (name, value): (&str, String)| {
            builder.header(name, value)
        };
        let builder = self.headers.into_iter().fold(builder, with);
        Ok(builder.body(Body::from(self.body))?)
    }
}

/// Draws from a seed.
pub(super) struct Drawing<'a> {
    document: &'a Value,
    known: &'a Known,
    chance: Rng,
}

impl<'a> Drawing<'a> {
    pub(super) fn new(document: &'a Value, known: &'a Known, chance: Rng) -> Self {
        Self {
            document,
            known,
            chance,
        }
    }

    /// Any of these.
    pub(super) fn one_of<'b, T>(&mut self, all: &'b [T]) -> &'b T {
        &all[self.chance.usize(..all.len())]
    }

    /// A request for an operation.
    pub(super) fn request(&mut self, operation: &Operation) -> Asked {
        let mut address = operation.path.clone();
        let mut query = Vec::new();
        let parameters = operation.described["parameters"].as_array();
        for parameter in parameters.into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default();
            let required = parameter["required"] == json!(true);
            if parameter["in"] == "path" {
                let value = self.parameter(name, &parameter["schema"]);
                address = address.replace(&format!("{{{name}}}"), &escaped(&value));
            } else if self.in_a_hundred(if required { 95 } else { 40 }) {
                let value = self.parameter(name, &parameter["schema"]);
                query.push(format!("{name}={}", escaped(&value)));
            }
        }
        if self.in_a_hundred(5) {
            query.push(format!("nobody={}", escaped(&self.nonsense())));
        }
        if !query.is_empty() {
            address = format!("{address}?{}", query.join("&"));
        }
        let (body, headers) = self.body(&operation.described["requestBody"]["content"]);
        Asked {
            method: operation.method.clone(),
            address,
            headers,
            body,
        }
    }

    fn body(&mut self, content: &Value) -> (Vec<u8>, Vec<(&'static str, String)>) {
        let mut headers = Vec::new();
        for (name, value) in [
            ("if-match", "\"1\""),
            ("if-none-match", "*"),
            ("range", "bytes=0-3"),
            ("last-event-id", "7"),
            ("x-github-event", "push"),
            ("distci-request-id", "00112233445566778899aabbccddeeff"),
        ] {
            if self.in_a_hundred(8) {
                let value = if self.in_a_hundred(70) {
                    value.to_owned()
                } else {
                    self.text_of_header()
                };
                headers.push((name, value));
            }
        }
        let described = content
            .as_object()
            .and_then(|content| content.iter().next());
        let Some((kind, described)) = described else {
            let body = if self.in_a_hundred(5) {
                self.nonsense()
            } else {
                String::new()
            };
            return (body.into_bytes(), headers);
        };
        headers.push(("content-type", kind.clone()));
        let mut body = if kind == "application/json" {
            let schema = described["schema"].clone();
            self.value("", &schema, 0).to_string().into_bytes()
        } else if self.in_a_hundred(50) {
            json!({ "job_id": "j", "tasks": [] })
                .to_string()
                .into_bytes()
        } else {
            self.nonsense().into_bytes()
        };
        match self.chance.u8(..100) {
            0..4 => body.truncate(self.chance.usize(..=body.len())),
            4..6 => body = "[".repeat(5000).into_bytes(),
            6..8 => body.push(0xff),
            8..10 => body.clear(),
            _ => {}
        }
        (body, headers)
    }

    /// The value of a parameter, as text.
    fn parameter(&mut self, name: &str, schema: &Value) -> String {
        match self.chance.u8(..100) {
            0..12 => self.nonsense(),
            _ => match self.value(name, schema, 0) {
                Value::String(text) => text,
                Value::Null => String::new(),
                other => other.to_string(),
            },
        }
    }

    /// A value of a schema, or one that is not quite.
    fn value(&mut self, name: &str, schema: &Value, depth: usize) -> Value {
        if self.in_a_hundred(3) {
            return self.anything();
        }
        let known = self.known.of(name);
        if !known.is_empty() && self.in_a_hundred(75) {
            let text = self.one_of(known).clone();
            let is_number =
                schema["type"] == "integer" || schema["type"] == json!(["integer", "null"]);
            return match text.parse::<u64>() {
                Ok(number) if is_number => json!(number),
                _ => json!(text),
            };
        }
        if let Some(to) = schema["$ref"].as_str() {
            let of = to.trim_start_matches('#');
            let schema = self.document.pointer(of).cloned().unwrap_or_default();
            return self.value(name, &schema, depth);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(choices) = schema[key].as_array() {
                let choice = self.one_of(choices).clone();
                return self.value(name, &choice, depth);
            }
        }
        if let Some(all) = schema["allOf"].as_array() {
            let mut members = Map::new();
            for part in all {
                if let Value::Object(more) = self.value(name, part, depth) {
                    members.extend(more);
                }
            }
            return Value::Object(members);
        }
        if let Some(choices) = schema["enum"].as_array() {
            return self.one_of(choices).clone();
        }
        self.typed(schema, depth)
    }

    fn typed(&mut self, schema: &Value, depth: usize) -> Value {
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if kinds.is_empty() {
            return self.anything();
        }
        match *self.one_of(&kinds) {
            "null" => Value::Null,
            "boolean" => json!(self.chance.bool()),
            "integer" => self.integer(),
            "number" => json!(self.chance.f64()),
            "array" => {
                let many = if depth > DEPTH {
                    0
                } else {
                    self.chance.usize(..3)
                };
                let items = (0..many).map(|_| self.value("", &schema["items"], depth + 1));
                Value::Array(items.collect())
            }
            "object" => self.object(schema, depth),
            _ => json!(self.text()),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let mut members = Map::new();
        let required: Vec<&str> = schema["required"]
            .as_array()
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        for (name, of) in schema["properties"].as_object().into_iter().flatten() {
            let likely = match (required.contains(&&**name), depth > DEPTH) {
                (true, _) => 98,
                (false, false) => 50,
                (false, true) => 0,
            };
            if self.in_a_hundred(likely) {
                let value = self.value(name, of, depth + 1);
                members.insert(name.clone(), value);
            }
        }
        let more = &schema["additionalProperties"];
        if more.is_object() && depth <= DEPTH && self.chance.bool() {
            let (name, value) = (self.text(), self.value("", more, depth + 1));
            members.insert(name, value);
        }
        if self.in_a_hundred(3) {
            members.insert("nobody".to_owned(), self.anything());
        }
        Value::Object(members)
    }

    fn integer(&mut self) -> Value {
        match self.chance.u8(..10) {
            0 => json!(i64::MIN),
            1 => json!(u64::MAX),
            2 => json!(-1),
            3 => json!(self.chance.u64(..)),
            _ => json!(self.chance.u64(..5)),
        }
    }

    /// A text such as somebody may mean.
    fn text(&mut self) -> String {
        match self.chance.u8(..10) {
            0 => self.nonsense(),
            1..4 => {
                let bytes: Vec<u8> = std::iter::repeat_with(|| self.chance.u8(..))
                    .take(16)
                    .collect();
                HEXLOWER.encode(&bytes)
            }
            4 => "2026-11-23T10:00:00Z".to_owned(),
            _ => ["a", "j", "w", "linux", "execute-shell", "1"][self.chance.usize(..6)].to_owned(),
        }
    }

    /// A text that nobody means.
    fn nonsense(&mut self) -> String {
        let texts = [
            "",
            " ",
            ".",
            "..",
            "../../etc/passwd",
            "%00",
            "\0",
            "\u{202e}",
            "é😀",
            "null",
            "-1",
            "0",
            "99999999999999999999",
            "1e9",
            "<script>",
            "' or 1=1",
            "a/b",
            "a\\b",
            "a#1",
            "a@b",
            "*",
            "(",
            "[[",
            "${x}",
            "\n",
            "true",
        ];
        match self.chance.usize(..texts.len() + 2) {
            place if place < texts.len() => texts[place].to_owned(),
            _ => "x".repeat(self.chance.usize(1..20_000)),
        }
    }

    /// What a header can carry at all.
    fn text_of_header(&mut self) -> String {
        let text = self.nonsense();
        text.chars()
            .filter(char::is_ascii_graphic)
            .take(500)
            .collect()
    }

    fn anything(&mut self) -> Value {
        match self.chance.u8(..7) {
            0 => Value::Null,
            1 => json!(self.chance.bool()),
            2 => self.integer(),
            3 => json!(self.nonsense()),
            4 => json!([]),
            5 => json!({}),
            _ => json!(1.5),
        }
    }

    fn in_a_hundred(&mut self, times: u8) -> bool {
        self.chance.u8(..100) < times
    }
}

/// Text as a part of an address.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
