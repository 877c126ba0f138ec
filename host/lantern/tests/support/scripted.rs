//! The test plugin whose manifest and rows come from the test: a script in its bytes is the manifest, and each message contains
//! its outcome. See `plugins/scripted`.

use std::fmt::Write as _;
use std::sync::OnceLock;

use lantern_model::batch::{Outcome, Value};
use lantern_model::schema::{Column, DeclaredRole, Guard, Manifest, Merge, OnConflict, Table, Write};

const MARKER: &[u8] = b"scripted-script:";

/// Returns the plugin with this manifest and the values of new columns.
pub fn component(manifest: &Manifest, defaults: &[(&str, Value)]) -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = BUILT.get_or_init(|| super::evolving::build("scripted")).clone();
    let mut found = bytes
        .windows(MARKER.len() + 8)
        .enumerate()
        .filter(|(_, window)| window.starts_with(MARKER) && window.ends_with(&[0; 8]));
    let (at, _) = found.next().expect("the marker is missing");
    assert!(found.next().is_none(), "the marker occurs twice");
    let script = script(manifest, defaults);
    let at = at + MARKER.len();
    let room = bytes[at..].iter().take_while(|byte| **byte == 0).count();
    assert!(script.len() < room, "the script is too long");
    bytes[at..at + script.len()].copy_from_slice(script.as_bytes());
    bytes
}

/// The stream and the subject of a source.
pub fn subject(stream: &str) -> String {
    format!("{}.>", stream.to_lowercase())
}

fn script(manifest: &Manifest, defaults: &[(&str, Value)]) -> String {
    let mut script = format!("plugin scripted {}\n", manifest.version);
    for source in &manifest.sources {
        let stream = source.origin.stream().expect("a stream");
        writeln!(script, "source {} {stream} {}", source.name, subject(stream)).unwrap();
    }
    manifest
        .tables
        .iter()
        .for_each(|table| add_table(&mut script, table));
    for write in &manifest.writes {
        add_write(&mut script, manifest.table_of(write), write);
    }
    for (column, value) in defaults {
        writeln!(script, "default {column} {}", encode(value)).unwrap();
    }
    script
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.is_empty() {
        true => "-".to_owned(),
        false => items.join(","),
    }
}

fn add_table(script: &mut String, table: &Table) {
    writeln!(script, "table {} {}", table.name, list(&table.primary_key)).unwrap();
    for Column {
        name,
        column_type,
        nullable,
        role,
        ..
    } in &table.columns
    {
        let null = if *nullable { "null" } else { "required" };
        let role = match role {
            DeclaredRole::None => "none",
            DeclaredRole::Time => "time",
            DeclaredRole::Entity => "entity",
            DeclaredRole::Facet => "facet",
            DeclaredRole::Measure(_) => "measure",
        };
        writeln!(script, "column {name} {column_type} {null} {role}").unwrap();
    }
    for index in &table.indexes {
        let kind = if index.unique { "unique" } else { "many" };
        writeln!(script, "index {} {kind}", list(&index.columns)).unwrap();
    }
}

fn add_write(script: &mut String, table: &Table, write: &Write) {
    let columns = write.columns.iter().map(|&column| &table.columns[column].name);
    writeln!(script, "write {} {}", table.name, list(columns)).unwrap();
    match &write.on_conflict {
        OnConflict::Fail => {}
        OnConflict::Ignore => script.push_str("ignore\n"),
        OnConflict::Update(update) => {
            let guard = match &update.guard {
                Guard::Always => "always -".to_owned(),
                Guard::WhileNull(column) => format!("while-null {column}"),
                Guard::Newer(column) => format!("newer {column}"),
            };
            writeln!(script, "update {} {guard}", list(&update.key)).unwrap();
            for (column, merge) in &update.merges {
                let rule = match merge {
                    Merge::Replace => "replace",
                    Merge::Keep => "keep",
                    Merge::Fill => "fill",
                    Merge::Add => "add",
                    Merge::Min => "min",
                    Merge::Max => "max",
                };
                writeln!(script, "merge {column} {rule}").unwrap();
            }
        }
    }
}

/// Returns a message with this outcome of a plugin with this manifest.
pub fn message(manifest: &Manifest, outcome: &Outcome) -> String {
    let rows = match outcome {
        Outcome::Skip => return "skip".to_owned(),
        Outcome::Reject(_) => return "reject".to_owned(),
        Outcome::Rows(rows) => rows,
    };
    let rows = rows.iter().map(|row| {
        let write = &manifest.writes[row.write as usize];
        let columns = &manifest.table_of(write).columns;
        let mut line = format!("row {}", row.write);
        for (&column, value) in write.columns.iter().zip(&row.values) {
            write!(line, " {}={}", columns[column].name, encode(value)).unwrap();
        }
        line
    });
    let rows: Vec<String> = rows.collect();
    match rows.is_empty() {
        true => "skip".to_owned(),
        false => rows.join("\n"),
    }
}

fn encode(value: &Value) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match value {
        Value::Null => "n".to_owned(),
        Value::Boolean(value) => format!("b{}", u8::from(*value)),
        Value::Integer(value) => format!("i{value}"),
        Value::Timestamp(time) => format!("m{}", time.0),
        Value::Real(value) => format!("r{:x}", value.to_bits()),
        Value::Text(text) => format!("t{}", hex(text.as_bytes())),
        Value::Json(text) => format!("j{}", hex(text.as_bytes())),
        Value::Blob(bytes) => format!("x{}", hex(bytes)),
    }
}
