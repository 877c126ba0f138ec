//! A plugin whose manifest and rows come from a test. The test writes a script after the marker in the component, which creates
//! a component with another digest, and each message contains its outcome. So a rebuild is tested with the tables of any
//! plugin, and with changes that no version of that plugin has.
//!
//! The script ends at the first NUL byte. Each line has words separated by spaces; a list is joined by commas, and `-` is
//! empty. A line about a column or an index belongs to the last table, one about a conflict to the last write:
//!
//! | line | meaning |
//! | --- | --- |
//! | `plugin NAME VERSION` | the plugin |
//! | `source NAME STREAM SUBJECT` | a source |
//! | `table NAME KEY` | a table with its primary key |
//! | `column NAME TYPE null\|required ROLE` | a column; the role has no unit |
//! | `index COLUMNS unique\|many` | an index |
//! | `write TABLE COLUMNS` | a write that fails on conflicts |
//! | `ignore` | conflicting rows are dropped |
//! | `update KEY always\|while-null\|newer COLUMN` | conflicting rows are merged |
//! | `merge COLUMN RULE` | a merge rule |
//! | `default COLUMN VALUE` | the value of a column that the message does not have |
//!
//! A message is `skip`, `reject`, or a line `row WRITE COLUMN=VALUE…` for each row. A column without a value is null. A value
//! is a letter and text: `n` null, `b` 0 or 1, `i` and `m` (a time) decimal, `r` the bits in hexadecimal, `t` (text), `x`
//! (bytes) and `j` (JSON) bytes in hexadecimal.

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../../misbehaving/src/bindings.rs"]
mod bindings;

use std::hint::black_box;

use bindings::{
    Column, ColumnType, Guard, Guest, Index, Manifest, Merge, MergeRule, Message, OnConflict, Origin,
    Outcome, Rejection, RejectionClass, Role, Row, Source, StreamSource, UpdateRule, Value, Write, column,
    table, write,
};

#[cfg(target_arch = "wasm32")]
bindings::export!(Scripted with_types_in bindings);

/// Tests find these bytes, and write the script after them.
const MARKER: &[u8] = b"scripted-script:";
/// Room for the marker and the script.
const BYTES: usize = 32 << 10;

/// The script of the component before a test writes one.
const EMPTY: &str = "plugin scripted 0.0.0
source events SCRIPTED scripted.>
table scripted -
column note text null none
write scripted note";

static SCRIPT: [u8; BYTES] = {
    let mut bytes = [0; BYTES];
    let mut index = 0;
    while index < MARKER.len() {
        bytes[index] = MARKER[index];
        index += 1;
    }
    bytes
};

/// The plugin.
pub struct Scripted;

/// A parsed script.
struct Script {
    manifest: Manifest,
    defaults: Vec<(String, Value)>,
}

impl Guest for Scripted {
    fn describe() -> Manifest {
        script().manifest
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        let script = script();
        messages
            .iter()
            .map(|message| outcome(&script, &message.payload).unwrap_or_else(reject))
            .collect()
    }
}

fn reject() -> Outcome {
    Outcome::Reject(Rejection {
        class: RejectionClass::Malformed,
        reason: "as the message requests".to_owned(),
    })
}

/// The script in the component. A host rejects the empty manifest of an invalid one.
fn script() -> Script {
    let mut script = Script {
        manifest: Manifest {
            name: String::new(),
            version: String::new(),
            doc: String::new(),
            sources: Vec::new(),
            tables: Vec::new(),
            writes: Vec::new(),
        },
        defaults: Vec::new(),
    };
    // Hidden from the compiler, because the bytes change after compilation.
    let bytes = &black_box(&SCRIPT)[MARKER.len()..];
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = match bytes {
        [] => EMPTY.into(),
        bytes => String::from_utf8_lossy(bytes),
    };
    for line in text.lines() {
        if script.add(&line.split(' ').collect::<Vec<_>>()).is_none() {
            script.manifest.name = format!("not a line: {line}");
        }
    }
    script
}

fn list(text: &str) -> Vec<String> {
    match text {
        "-" => Vec::new(),
        text => text.split(',').map(str::to_owned).collect(),
    }
}

impl Script {
    /// Adds a line. `None` if it is invalid.
    fn add(&mut self, words: &[&str]) -> Option<()> {
        let manifest = &mut self.manifest;
        match *words {
            ["plugin", name, version] => {
                manifest.name = name.into();
                manifest.version = version.into();
            }
            ["source", name, stream, subject] => manifest.sources.push(Source {
                name: name.into(),
                origin: Origin::Jetstream(StreamSource {
                    stream_name: stream.into(),
                    subjects: vec![subject.into()],
                }),
                wants_headers: false,
            }),
            ["table", name, key] => {
                let mut table = table(name, Vec::new());
                table.primary_key = list(key);
                manifest.tables.push(table);
            }
            ["column", name, kind, null, role_name] => manifest.tables.last_mut()?.columns.push(Column {
                role: role(role_name)?,
                ..column(name, column_type(kind)?, null == "null")
            }),
            ["index", columns, kind] => manifest.tables.last_mut()?.indexes.push(Index {
                columns: list(columns),
                unique: kind == "unique",
            }),
            ["write", table, columns] => {
                let columns = list(columns);
                let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                manifest.writes.push(write(table, &columns));
            }
            ["default", column, text] => self.defaults.push((column.into(), value(text)?)),
            _ => add_conflict(manifest.writes.last_mut()?, words)?,
        }
        Some(())
    }
}

/// Adds a line about a conflict to its write.
fn add_conflict(write: &mut Write, words: &[&str]) -> Option<()> {
    match (words, &mut write.on_conflict) {
        (["ignore"], conflict) => *conflict = OnConflict::Ignore,
        (["update", key, guard, column], conflict) => {
            *conflict = OnConflict::Update(UpdateRule {
                key: list(key),
                merges: Vec::new(),
                guard: match *guard {
                    "always" => Guard::Always,
                    "while-null" => Guard::WhileNull((*column).into()),
                    "newer" => Guard::Newer((*column).into()),
                    _ => return None,
                },
            });
        }
        (["merge", column, rule], OnConflict::Update(update)) => update.merges.push(MergeRule {
            column: (*column).into(),
            merge: match *rule {
                "replace" => Merge::Replace,
                "keep" => Merge::Keep,
                "fill" => Merge::Fill,
                "add" => Merge::Add,
                "min" => Merge::Min,
                "max" => Merge::Max,
                _ => return None,
            },
        }),
        _ => return None,
    }
    Some(())
}

fn column_type(name: &str) -> Option<ColumnType> {
    Some(match name {
        "boolean" => ColumnType::Boolean,
        "integer" => ColumnType::Integer,
        "real" => ColumnType::Real,
        "text" => ColumnType::Text,
        "blob" => ColumnType::Blob,
        "timestamp" => ColumnType::Timestamp,
        "json" => ColumnType::Json,
        _ => return None,
    })
}

fn role(name: &str) -> Option<Role> {
    Some(match name {
        "none" => Role::None,
        "time" => Role::Time,
        "entity" => Role::Entity,
        "facet" => Role::Facet,
        "measure" => Role::Measure(String::new()),
        _ => return None,
    })
}

/// The outcome of a message. `None` if it is rejected.
fn outcome(script: &Script, payload: &[u8]) -> Option<Outcome> {
    let text = std::str::from_utf8(payload).ok()?;
    if text == "skip" {
        return Some(Outcome::Skip);
    }
    let rows: Option<Vec<Row>> = text.lines().map(|line| row(script, line)).collect();
    rows.map(Outcome::Rows)
}

fn row(script: &Script, line: &str) -> Option<Row> {
    let mut words = line.strip_prefix("row ")?.split(' ');
    let write: u32 = words.next()?.parse().ok()?;
    let sent: Option<Vec<(&str, &str)>> = words.map(|word| word.split_once('=')).collect();
    let sent = sent?;
    let declared = script.manifest.writes.get(usize::try_from(write).ok()?)?;
    let values = declared.columns.iter().map(|column| {
        let default = script.defaults.iter().find(|(name, _)| name == column);
        match sent.iter().find(|(name, _)| name == column) {
            Some((_, text)) => value(text),
            None => Some(default.map_or(Value::Null, |(_, value)| value.clone())),
        }
    });
    let values = values.collect::<Option<_>>()?;
    Some(Row { write, values })
}

fn value(text: &str) -> Option<Value> {
    let (kind, text) = text.split_at_checked(1)?;
    Some(match kind {
        "n" => Value::Null,
        "b" => Value::Boolean(text == "1"),
        "i" => Value::Integer(text.parse().ok()?),
        "m" => Value::Timestamp(text.parse().ok()?),
        "r" => Value::Real(f64::from_bits(u64::from_str_radix(text, 16).ok()?)),
        "t" => Value::Text(String::from_utf8(bytes(text)?).ok()?),
        "j" => Value::Json(String::from_utf8(bytes(text)?).ok()?),
        "x" => Value::Blob(bytes(text)?),
        _ => return None,
    })
}

/// Bytes from hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_becomes_a_manifest_and_a_message_its_rows() {
        let mut script = script();
        assert_eq!(
            (script.manifest.name.as_str(), script.manifest.writes.len()),
            ("scripted", 1)
        );
        script.manifest.tables.clear();
        script.manifest.writes.clear();
        for line in [
            "plugin p 1.0.0",
            "source s S s.>",
            "table t a",
            "column a text required none",
            "column b integer null measure",
            "index a,b many",
            "write t a,b",
            "update a newer b",
            "merge b add",
            "default b i7",
        ] {
            assert!(
                script.add(&line.split(' ').collect::<Vec<_>>()).is_some(),
                "{line}"
            );
        }
        assert!(script.add(&["merge", "b", "double"]).is_none());
        let OnConflict::Update(update) = &script.manifest.writes[0].on_conflict else {
            panic!("{:?}", script.manifest.writes)
        };
        assert_eq!(update.guard, Guard::Newer("b".into()));
        let of = |text: &str| outcome(&script, text.as_bytes());
        let row = |b| Row {
            write: 0,
            values: vec![Value::Text("x".into()), b],
        };
        assert_eq!(
            of("row 0 a=t78\nrow 0 a=t78 b=n"),
            Some(Outcome::Rows(vec![row(Value::Integer(7)), row(Value::Null)]))
        );
        assert_eq!(of("skip"), Some(Outcome::Skip));
        assert_eq!(of("reject"), None);
        assert_eq!(of("row 1 a=t78"), None);
    }
}
