//! A project in Rust: its manifest, and the derived table as a struct with derives.

use std::fmt::Write as _;

use super::Names;
use crate::guess::{Column, Content, Guess, Shape};
use lantern_model::schema::{ColumnType, DeclaredRole};

/// Type names in the preludes of the SDK and of Rust; a plugin with such a name gets a suffix.
const RESERVED_TYPES: &[&str] = &[
    "Json",
    "Message",
    "OrReject",
    "Pattern",
    "Plugin",
    "Rejection",
    "Result",
    "Row",
    "Rows",
    "Source",
    "Sources",
    "Table",
    "Timestamp",
    "Tree",
    "Write",
    "Writes",
    "Option",
    "String",
    "Vec",
    "Self",
    "Box",
    "Some",
    "Ok",
    "Err",
];
/// Keywords, which are not valid as field names.
const KEYWORDS: [&str; 48] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
    "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "static", "struct", "trait",
    "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Paths and texts of the files.
pub(super) fn files(names: &Names, guess: &Guess) -> Vec<(String, String)> {
    [
        ("Cargo.toml", manifest(names, guess)),
        ("src/lib.rs", library(names, guess)),
        (".gitignore", "/target\n".to_owned()),
        ("README.md", readme(names)),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .to_vec()
}

fn manifest(names: &Names, guess: &Guess) -> String {
    let Names { plugin, stream, .. } = names;
    let serde = match guess.shape {
        Shape::Objects => "serde = { version = \"1\", features = [\"derive\"] }\n",
        Shape::Documents | Shape::Text => "",
    };
    format!(
        r#"[package]
name = "{plugin}"
version = "0.1.0"
edition = "2024"
description = "Messages of the stream {stream} as rows."
publish = false

[lib]
crate-type = ["cdylib", "rlib"]

[dependencies]
# The SDK of the lantern version that created this project; `lantern doctor` reports other versions.
lantern-sdk = {{ path = "vendor/lantern-sdk" }}
{serde}
# Makes this package independent of a workspace in a parent directory.
[workspace]
"#
    )
}

fn readme(names: &Names) -> String {
    let Names {
        plugin,
        table,
        stream,
        ..
    } = names;
    format!(
        "# {plugin}\n\nA Lantern plugin that projects messages of the stream `{stream}` into the table `{table}`.\n\n\
         ```\n\
         lantern plugin test      # runs the component on fixtures/ and compares with *.expected.json\n\
         lantern plugin dev       # a temporary host and broker: builds on each save, shows rows and rejected messages\n\
         lantern plugin build .   # builds {plugin}.wasm, for `lantern plugin install`\n\
         ```\n"
    )
}

fn library(names: &Names, guess: &Guess) -> String {
    let Names {
        table,
        stream,
        subjects,
        ..
    } = names;
    let plugin = type_name(&names.plugin);
    let row = format!("{}Row", pascal(&names.plugin));
    let subjects: Vec<String> = subjects.iter().map(|subject| format!("{subject:?}")).collect();
    let subjects = subjects.join(", ");
    let (use_serde, derive) = match guess.shape {
        Shape::Objects => ("use serde::Deserialize;\n", "Deserialize, "),
        Shape::Documents | Shape::Text => ("", ""),
    };
    let (key, conflict) = match &guess.key {
        Some(key) => (
            format!(", primary_key = [{}]", field_name(key)),
            "#[row(on_conflict = ignore)] // a duplicate event changes nothing\n",
        ),
        None => (String::new(), ""),
    };
    let fields: String = guess
        .columns
        .iter()
        .map(|column| field(column, guess.shape))
        .collect();
    let handler = handler(&plugin, &row, guess);
    format!(
        "//! Projects the stream `{stream}` into the table `{table}`.

use lantern_sdk::prelude::*;
{use_serde}
lantern_sdk::export!({plugin});

/// The plugin, with its sources and writes.
pub struct {plugin};

impl Plugin for {plugin} {{
    const SOURCES: Sources<Self> = &[Source::stream({table:?}, {stream:?}, &[{subjects}], handle)];
    const WRITES: Writes = &[{row}::WRITE];
}}

/// A message and its row: each field is a column, an `Option` is a nullable column. The dashboard shows this comment.
#[derive({derive}Table, Row)]
#[table(name = {table:?}{key})]
{conflict}struct {row} {{
{fields}}}

{handler}"
    )
}

fn handler(plugin: &str, row: &str, guess: &Guess) -> String {
    let published = guess
        .columns
        .iter()
        .find(|column| column.content == Content::Published);
    let published = published.map(|column| field_name(&column.name));
    let body = match (guess.shape, published) {
        (Shape::Objects, None) => format!("    rows.put(message.json::<{row}>()?);\n"),
        (Shape::Objects, Some(published)) => format!(
            "    rows.put({row} {{\n        {published}: message.published,\n        ..message.json()?\n    }});\n"
        ),
        (Shape::Documents | Shape::Text, published) => {
            let payload = match guess.shape {
                Shape::Documents => "document: message.json()?",
                _ => "line: message.text()?.trim().to_owned()",
            };
            let published = published.unwrap_or_default();
            format!(
                "    rows.put({row} {{\n        {payload},\n        {published}: message.published,\n    }});\n"
            )
        }
    };
    format!(
        "/// Handles one message. On an error the message becomes a dead letter whose reason names the field, and the source continues.
fn handle(message: &Message<'_>, rows: &mut Rows<{plugin}>) -> Result {{
{body}    Ok(())
}}
"
    )
}

fn field(column: &Column, shape: Shape) -> String {
    let mut text = String::new();
    let name = field_name(&column.name);
    match &column.role {
        DeclaredRole::None => {}
        DeclaredRole::Time => text.push_str("    #[column(time)]\n"),
        DeclaredRole::Entity => text.push_str("    #[column(entity)]\n"),
        DeclaredRole::Facet => text.push_str("    #[column(facet)]\n"),
        // Writing to a String does not fail.
        DeclaredRole::Measure(unit) => drop(writeln!(text, "    #[column(measure = {unit:?})]")),
    }
    match &column.content {
        Content::Field(field) if *field != column.name => {
            let _ = writeln!(text, "    #[serde(rename = {field:?})]");
        }
        Content::Published => {
            text.insert_str(0, "    /// Time at which the broker stored the message.\n");
            if shape == Shape::Objects {
                text.push_str("    #[serde(skip)]\n");
            }
        }
        Content::Field(_) | Content::Payload => {}
    }
    let rust = match column.column_type {
        ColumnType::Boolean => "bool",
        ColumnType::Integer => "i64",
        ColumnType::Real => "f64",
        ColumnType::Text => "String",
        ColumnType::Blob => "Vec<u8>",
        ColumnType::Timestamp => "Timestamp",
        ColumnType::Json => "Json",
    };
    let rust = match column.nullable {
        true => format!("Option<{rust}>"),
        false => rust.to_owned(),
    };
    let _ = writeln!(text, "    {name}: {rust},");
    text
}

/// Converts a column name to a field name.
fn field_name(column: &str) -> String {
    match KEYWORDS.contains(&column) {
        true => format!("r#{column}"),
        false => column.to_owned(),
    }
}

fn type_name(plugin: &str) -> String {
    let name = pascal(plugin);
    match RESERVED_TYPES.contains(&name.as_str()) {
        true => format!("{name}Plugin"),
        false => name,
    }
}

fn pascal(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect()
}
