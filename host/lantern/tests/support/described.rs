//! Validates the host's responses against the API document (`docs/openapi.json`): it must list each status and content
//! type, and each JSON body must match its schema without extra fields.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by them"
)]

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Path of the document.
pub const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

/// The API document.
pub struct Described(pub Value);

impl Described {
    /// Loads the document from the repository.
    pub fn kept() -> Self {
        Self::parse(&std::fs::read_to_string(FILE).unwrap())
    }

    pub fn parse(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap())
    }

    /// Returns all operations, as `GET /path`.
    pub fn operations(&self) -> BTreeSet<String> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let each = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        each.collect()
    }

    pub fn operation(&self, method: &str, path: &str) -> &Value {
        let operation = &self.0["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "the document has no {method} {path}");
        operation
    }

    /// Asserts that the document lists this response of the route, and that a JSON body matches its schema.
    pub fn check(&self, method: &str, path: &str, status: u16, content_type: Option<&str>, body: &str) {
        let what = format!("{method} {path}: {status}");
        let answer = &self.operation(method, path)["responses"][status.to_string()];
        assert!(answer.is_object(), "{what} is not in the document: {body}");
        let answer = match answer["$ref"].as_str() {
            Some(named) => self.0.pointer(named.strip_prefix('#').unwrap()).unwrap(),
            None => answer,
        };
        let essence = content_type.map(|kind| kind.split(';').next().unwrap());
        let Some(essence) = essence else {
            assert!(
                answer.get("content").is_none() && body.is_empty(),
                "{what} has no type"
            );
            return;
        };
        let content = &answer["content"][essence];
        assert!(content.is_object(), "{what} has no {essence} in the document");
        let schema = &content["schema"];
        match essence {
            "application/json" | "application/problem+json" => {
                self.fits(&what, schema, &serde_json::from_str(body).unwrap());
            }
            "application/x-ndjson" => {
                for line in body.lines() {
                    self.fits(&what, &content["x-line"], &serde_json::from_str(line).unwrap());
                }
            }
            "text/event-stream" => self.events(&what, &content["x-events"], body),
            _ => {}
        }
    }

    /// Asserts that a value matches the schema with this name.
    pub fn is(&self, name: &str, value: &Value) {
        let named = json!({ "$ref": format!("#/components/schemas/{name}") });
        self.fits(name, &named, value);
    }

    fn events(&self, what: &str, known: &Value, body: &str) {
        for event in body.split("\n\n").filter(|event| !event.trim().is_empty()) {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let Some(data) = field("data: ") else { continue };
            let name = field("event: ").unwrap_or("message");
            let schema = &known[name]["data"];
            assert!(schema.is_object(), "{what}: the document has no event {name}");
            self.fits(what, schema, &serde_json::from_str(data).unwrap());
        }
    }

    fn fits(&self, what: &str, schema: &Value, value: &Value) {
        assert!(schema.is_object(), "{what} has no schema");
        let mut root = json!({ "components": self.0["components"], "allOf": [schema] });
        let schemas = root["components"]["schemas"].as_object_mut().unwrap();
        close(schemas);
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&root)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let wrong: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(
            wrong.is_empty(),
            "{what} is not as the document says: {wrong:#?}\n{value:#}"
        );
    }
}

/// Forbids undeclared fields in every schema, so that no field stays undocumented. A schema that is a part of another
/// is closed there.
fn close(schemas: &mut Map<String, Value>) {
    let parts: BTreeSet<String> = schemas
        .values()
        .filter_map(|schema| schema["allOf"].as_array())
        .flatten()
        .filter_map(|part| Some(part["$ref"].as_str()?.rsplit('/').next()?.to_owned()))
        .collect();
    for (name, schema) in schemas {
        let has_fields = schema.get("properties").is_some() || schema.get("allOf").is_some();
        let is_open = schema.get("additionalProperties").is_some();
        if has_fields && !is_open && !parts.contains(name) {
            schema["unevaluatedProperties"] = json!(false);
        }
    }
}
