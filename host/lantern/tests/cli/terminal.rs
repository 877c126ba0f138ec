//! Tests untrusted text on the operator's terminal: a host that fills every response with terminal control sequences.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Map, Value, json};

use super::*;

/// Escape sequences, C1, DEL, bidirectional marks, and a line that imitates the program's own output.
const HOSTILE: &str =
    "strange\u{1b}]0;title\u{7}\u{1b}[31m\u{9b}2J\u{7f}\u{8}\u{202e}\u{2066}\u{200f}\r\nerror: forged";

fn is_hazardous(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Answers each request of the documented API with a value of the documented schema in which every string is hostile.
fn hostile_host() -> String {
    let document: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let document = document.clone();
            std::thread::spawn(move || answer(stream, &document));
        }
    });
    format!("http://{address}")
}

fn answer(stream: TcpStream, document: &Value) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            return;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse::<usize>().ok())?
    });
    reader.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
    let mut request = head[0].split(' ');
    let method = request.next().unwrap().to_lowercase();
    let path = request.next().unwrap().split('?').next().unwrap();
    let (status, body) = body(document, &method, path);
    write!(
        reader.into_inner(),
        "HTTP/1.1 {status} OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

fn body(document: &Value, method: &str, path: &str) -> (String, String) {
    let segments: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let template: Vec<&str> = template.split('/').collect();
        template.len() == segments.len()
            && template
                .iter()
                .zip(&segments)
                .all(|(part, segment)| part.starts_with('{') || part == segment)
    };
    let paths = document["paths"].as_object().unwrap();
    let (_, operations) = paths.iter().find(|(template, _)| fits(template)).unwrap();
    let responses = operations[method]["responses"].as_object().unwrap();
    let (status, response) = responses
        .iter()
        .find(|(status, _)| status.starts_with('2'))
        .unwrap();
    let content = &response["content"];
    let body = match (
        &content["application/json"]["schema"],
        &content["application/x-ndjson"],
    ) {
        (Value::Null, Value::Null) => String::new(),
        (Value::Null, _) => format!("{}\n", json!({"reason": HOSTILE})),
        (schema, _) => sample(document, schema, 0).to_string(),
    };
    (status.clone(), body)
}

/// Returns a value of this schema. An enumerated string takes one of its valid values, and one with a pattern its example.
fn sample(document: &Value, schema: &Value, depth: usize) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return sample(document, &document["components"]["schemas"][name], depth + 1);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let best = choices.iter().find(|one| one["type"] != "null").unwrap();
            return sample(document, best, depth + 1);
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let mut all = Map::new();
        for part in parts {
            match sample(document, part, depth + 1) {
                Value::Object(part) => all.extend(part),
                other => return other,
            }
        }
        return Value::Object(all);
    }
    if let Some(word) = schema["enum"].as_array().and_then(|words| words.first()) {
        return word.clone();
    }
    if let (Some(_), Some(example)) = (schema["pattern"].as_str(), schema["examples"].get(0)) {
        return example.clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").unwrap(),
        kind => kind,
    };
    match kind.as_str() {
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") if depth > 12 => json!([]),
        Some("array") => match schema["prefixItems"].as_array() {
            Some(items) => items
                .iter()
                .map(|item| sample(document, item, depth + 1))
                .collect(),
            None => json!([sample(document, &schema["items"], depth + 1)]),
        },
        Some("object") if schema["properties"].is_object() => {
            let properties = schema["properties"].as_object().unwrap();
            let sampled = properties.iter().map(|(name, property)| {
                let value = match name.as_str() {
                    // There is no further page, and base64 fields are decodable.
                    "next_cursor" => Value::Null,
                    name if name.ends_with("_base64") => json!("e30="),
                    // Commands parse the settings of a plugin, which contain no free text.
                    "memory" | "bytes_per_message" => json!("1 MiB"),
                    "message_time" => json!("1s"),
                    _ => sample(document, property, depth + 1),
                };
                (name.clone(), value)
            });
            Value::Object(sampled.collect())
        }
        Some("object") => json!({"strange": HOSTILE}),
        _ => json!(HOSTILE),
    }
}

#[test]
fn commands_escape_terminal_control_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let url = hostile_host();
    let component = dir.path().join("x.wasm");
    std::fs::write(&component, b"\0asm").unwrap();
    let commands: &[&[&str]] = &[
        &["status"],
        &["plugin", "list"],
        &["plugin", "show", "a"],
        &["plugin", "install", component.to_str().unwrap()],
        &["plugin", "activate", "a"],
        &["plugin", "rollback", "a"],
        &["plugin", "diff", "a", "1.0.0", "2.0.0"],
        &["plugin", "canary", "a@2.0.0", "--messages", "1"],
        &["plugin", "record", "--dead-letters", "a"],
        &["dead-letters", "list"],
        &["dead-letters", "show", "1"],
        &["dead-letters", "export"],
        &["gaps"],
        &["trace", "a", "1"],
        &["reproject", "a", "--digest", "aaaaaaaa"],
        &["rebuild", "list"],
        &["token", "list"],
        &["audit"],
    ];
    for command in commands {
        for more in [&[][..], &["--json"]] {
            let arguments = [*command, &["--host", &url], more].concat();
            let output = lantern(&arguments, dir.path());
            let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
            if shown.contains("unexpected argument '--json'") {
                continue;
            }
            let found: Vec<char> = shown.chars().filter(|c| is_hazardous(*c)).collect();
            assert!(
                found.is_empty(),
                "{command:?} {more:?} printed {found:?}: {shown:?}"
            );
            assert!(
                shown.contains("strange"),
                "{command:?} {more:?} shows nothing of it: {shown:?}"
            );
            let is_json = !more.is_empty() || command.contains(&"export");
            let escaped = if is_json {
                r"strange\u001b]0;"
            } else {
                r"strange\u{1b}]0;"
            };
            assert!(shown.contains(escaped), "{command:?} {more:?}: {shown:?}");
        }
    }
}
