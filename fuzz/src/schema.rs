//! Input of plugins: manifests and rows, stored descriptions, settings, and components.

use arbitrary::{Arbitrary, Result, Unstructured};
use lantern_model::batch::{Row, Timestamp, Value};
use lantern_model::schema::description::{ManifestDescription, TableDescription};
use lantern_model::schema::difference::differences;
use lantern_model::schema::{
    ColumnType, DeclaredRole, Manifest, Merge, Origin, RawColumn, RawGuard, RawIndex, RawManifest,
    RawOnConflict, RawSource, RawTable, RawWrite,
};
use lantern_model::settings::PluginSettings;
use serde::de::IgnoredAny;

use crate::text;

/// Few names, so that references are often valid.
const NAMES: [&str; 8] = ["a", "b", "c", "at", "_x", "A", "", "select"];
/// A manifest of a plugin, and rows for it. Accepted manifests round-trip as descriptions, and accepted rows have valid values.
pub fn manifest(input: &[u8]) {
    let mut bytes = Unstructured::new(input);
    let Ok(raw) = raw_manifest(&mut bytes) else {
        return;
    };
    let Ok(manifest) = Manifest::check(raw) else {
        return;
    };
    let description = ManifestDescription::from(&manifest);
    check_description(&description);
    for _ in 0..4 {
        let Ok(mut row) = row(&mut bytes, &manifest) else {
            return;
        };
        if manifest.check_row(&mut row).is_ok() {
            check_values(&manifest, &row);
        }
    }
}

/// A description round-trips, and does not differ from itself.
fn check_description(description: &ManifestDescription) {
    let json = serde_json::to_string(description).unwrap_or_default();
    let again: Option<ManifestDescription> = serde_json::from_str(&json).ok();
    assert_eq!(again.as_ref(), Some(description), "{json}");
    assert!(differences(description, description).is_empty(), "{json}");
}

fn check_values(manifest: &Manifest, row: &Row) {
    let write = &manifest.writes[row.write as usize];
    for (value, &column) in row.values.iter().zip(&write.columns) {
        let column = &manifest.table_of(write).columns[column];
        let is_valid = match value {
            Value::Real(real) => real.is_finite(),
            Value::Text(text) => !text.contains('\0'),
            Value::Json(text) => serde_json::from_str::<IgnoredAny>(text).is_ok(),
            _ => true,
        };
        let fits = match value.column_type() {
            None => column.nullable,
            own => is_valid && own == Some(column.column_type),
        };
        assert!(
            fits,
            "{value:?} in column {} of {}",
            column.name, column.column_type
        );
    }
}

/// Stored descriptions and settings as JSON, and settings entered by an operator.
pub fn description(input: &[u8]) {
    let text = text(input);
    if let Ok(description) = serde_json::from_str::<ManifestDescription>(text) {
        check_description(&description);
        for write in &description.writes {
            drop(write.rule.describe());
        }
    }
    if let Ok(description) = serde_json::from_str::<TableDescription>(text) {
        let json = serde_json::to_string(&description).unwrap_or_default();
        assert_eq!(serde_json::from_str(&json).ok(), Some(description), "{json}");
    }
    if let Ok(settings) = PluginSettings::from_json(text) {
        check_settings(&settings);
    }
    let mut settings = PluginSettings::default();
    for (path, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let before = settings.clone();
        if settings.set(path, value).is_err() {
            assert_eq!(settings, before, "a rejected setting changed the settings");
        }
    }
    if settings.check().is_ok() {
        check_settings(&settings);
    }
}

fn check_settings(settings: &PluginSettings) {
    let json = serde_json::to_string(settings).unwrap_or_default();
    assert_eq!(
        PluginSettings::from_json(&json).ok().as_ref(),
        Some(settings),
        "{json}"
    );
}

/// A component file, unchanged and with a valid preamble.
pub fn component(input: &[u8]) {
    const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";
    for bytes in [input, &[PREAMBLE, input].concat()] {
        if let Err(error) = lantern_plugin::imports(bytes) {
            drop((error.to_string(), error.hint()));
        }
        drop(lantern_plugin::read_metadata(bytes));
    }
}

fn name(bytes: &mut Unstructured<'_>) -> Result<String> {
    if bytes.ratio(1, 16)? {
        return String::arbitrary(bytes);
    }
    Ok((*bytes.choose(&NAMES)?).to_owned())
}

fn list<T>(bytes: &mut Unstructured<'_>, of: impl Fn(&mut Unstructured<'_>) -> Result<T>) -> Result<Vec<T>> {
    let length = bytes.int_in_range(0..=4)?;
    (0..length).map(|_| of(bytes)).collect()
}

fn hints(bytes: &mut Unstructured<'_>) -> Result<Vec<(String, String)>> {
    list(bytes, |bytes| Ok((name(bytes)?, String::arbitrary(bytes)?)))
}

fn raw_manifest(bytes: &mut Unstructured<'_>) -> Result<RawManifest> {
    Ok(RawManifest {
        name: name(bytes)?,
        version: if bytes.ratio(1, 8)? {
            String::arbitrary(bytes)?
        } else {
            "1.0.0".to_owned()
        },
        doc: String::arbitrary(bytes)?,
        sources: list(bytes, raw_source)?,
        tables: list(bytes, raw_table)?,
        writes: list(bytes, raw_write)?,
    })
}

fn raw_source(bytes: &mut Unstructured<'_>) -> Result<RawSource> {
    const SUBJECTS: [&str; 7] = ["a", "a.b", "a.*", "a.>", ">", "*", ""];
    let subject = |bytes: &mut Unstructured<'_>| Ok((*bytes.choose(&SUBJECTS)?).to_owned());
    Ok(RawSource {
        name: name(bytes)?,
        origin: if bool::arbitrary(bytes)? {
            Origin::JetStream {
                stream: name(bytes)?,
                subjects: list(bytes, subject)?,
            }
        } else {
            Origin::Core {
                subjects: list(bytes, subject)?,
            }
        },
        wants_headers: bool::arbitrary(bytes)?,
    })
}

fn raw_table(bytes: &mut Unstructured<'_>) -> Result<RawTable> {
    Ok(RawTable {
        name: name(bytes)?,
        doc: String::new(),
        columns: list(bytes, raw_column)?,
        primary_key: list(bytes, name)?,
        indexes: list(bytes, |bytes| {
            Ok(RawIndex {
                columns: list(bytes, name)?,
                unique: bool::arbitrary(bytes)?,
            })
        })?,
        retention_days: Option::arbitrary(bytes)?,
        hints: hints(bytes)?,
    })
}

fn raw_column(bytes: &mut Unstructured<'_>) -> Result<RawColumn> {
    Ok(RawColumn {
        name: name(bytes)?,
        column_type: *bytes.choose(&ColumnType::ALL)?,
        nullable: bool::arbitrary(bytes)?,
        role: match bytes.int_in_range(0..=5)? {
            0 => DeclaredRole::Time,
            1 => DeclaredRole::Entity,
            2 => DeclaredRole::Facet,
            3 => DeclaredRole::Measure(name(bytes)?),
            _ => DeclaredRole::None,
        },
        doc: String::new(),
        hints: hints(bytes)?,
    })
}

fn raw_write(bytes: &mut Unstructured<'_>) -> Result<RawWrite> {
    const MERGES: [Merge; 6] = [
        Merge::Replace,
        Merge::Keep,
        Merge::Fill,
        Merge::Add,
        Merge::Min,
        Merge::Max,
    ];
    Ok(RawWrite {
        table: name(bytes)?,
        columns: list(bytes, name)?,
        on_conflict: match bytes.int_in_range(0..=2)? {
            0 => RawOnConflict::Fail,
            1 => RawOnConflict::Ignore,
            _ => RawOnConflict::Update {
                key: list(bytes, name)?,
                merges: list(bytes, |bytes| Ok((name(bytes)?, *bytes.choose(&MERGES)?)))?,
                guard: match bytes.int_in_range(0..=2)? {
                    0 => RawGuard::Always,
                    1 => RawGuard::WhileNull(name(bytes)?),
                    _ => RawGuard::Newer(name(bytes)?),
                },
            },
        },
    })
}

/// A row for one of the writes, mostly with the right number of values.
fn row(bytes: &mut Unstructured<'_>, manifest: &Manifest) -> Result<Row> {
    let write = u32::from(u8::arbitrary(bytes)? % 5);
    let declared = manifest
        .writes
        .get(write as usize)
        .map_or(1, |write| write.columns.len());
    let length = if bytes.ratio(1, 16)? {
        declared + 1
    } else {
        declared
    };
    let values = (0..length).map(|_| value(bytes)).collect::<Result<_>>()?;
    Ok(Row { write, values })
}

fn value(bytes: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match bytes.int_in_range(0..=7)? {
        0 => Value::Null,
        1 => Value::Boolean(bool::arbitrary(bytes)?),
        2 => Value::Integer(i64::arbitrary(bytes)?),
        3 => Value::Real(f64::arbitrary(bytes)?),
        4 => Value::Text(String::arbitrary(bytes)?),
        5 => Value::Blob(Vec::arbitrary(bytes)?),
        6 => Value::Timestamp(Timestamp(i64::arbitrary(bytes)?)),
        _ => Value::Json(String::arbitrary(bytes)?),
    })
}
