//! Input of API clients: the query that selects rows, and cursors.

use std::sync::LazyLock;

use lantern_http::fuzzing;
use lantern_model::batch::Value;
use lantern_model::schema::description::TableDescription;
use lantern_store::reader::{Selection, Test};

use crate::text;

/// A table with a column of each type.
const TABLE: &str = r#"{
  "doc": "", "primary_key": [], "indexes": [], "retention_days": null, "hints": {},
  "columns": [
    {"name": "t", "type": "text", "nullable": true, "role": "entity", "unit": null, "doc": "", "hints": {}},
    {"name": "at", "type": "timestamp", "nullable": true, "role": "time", "unit": null, "doc": "", "hints": {}},
    {"name": "ok", "type": "boolean", "nullable": true, "role": "facet", "unit": null, "doc": "", "hints": {}},
    {"name": "n", "type": "integer", "nullable": true, "role": "measure", "unit": "By", "doc": "", "hints": {}},
    {"name": "r", "type": "real", "nullable": true, "role": "measure", "unit": null, "doc": "", "hints": {}},
    {"name": "b", "type": "blob", "nullable": true, "role": null, "unit": null, "doc": "", "hints": {}},
    {"name": "j", "type": "json", "nullable": true, "role": null, "unit": null, "doc": "", "hints": {}}
  ]}"#;

static DESCRIPTION: LazyLock<Option<TableDescription>> = LazyLock::new(|| serde_json::from_str(TABLE).ok());

/// The query of a request for rows: accepted values have the types of their columns, within all limits.
pub fn selection(input: &[u8]) {
    let Some(description) = &*DESCRIPTION else {
        assert!(DESCRIPTION.is_some(), "the table is not valid");
        return;
    };
    if let Ok(selection) = fuzzing::selection(description, text(input)) {
        check(description, &selection);
    }
}

fn check(description: &TableDescription, selection: &Selection) {
    let values: usize = selection
        .conditions
        .iter()
        .map(|one| values_of(&one.test).len())
        .sum();
    assert!(
        selection.conditions.len() <= 50 && values <= 50,
        "more than 50 filters"
    );
    for condition in &selection.conditions {
        let column = description.columns[condition.column].column_type;
        for value in values_of(&condition.test) {
            let is_valid = match value {
                Value::Real(real) => real.is_finite(),
                other => !other.as_text().is_some_and(|text| text.contains('\0')),
            };
            assert!(is_valid && value.column_type() == Some(column), "{condition:?}");
        }
    }
    if let (Some(from), Some(to)) = (selection.from, selection.to) {
        assert!(from < to, "a range that ends before it starts");
    }
}

fn values_of(test: &Test) -> &[Value] {
    match test {
        Test::OneOf { values, .. } => values,
        Test::Not(value) | Test::Compare(_, value) => std::slice::from_ref(value),
        _ => &[],
    }
}

/// A search in its first line, and a document after it.
pub fn search(input: &[u8]) {
    let (search, document) = text(input).split_once('\n').unwrap_or_default();
    lantern_store::search::fuzzing::search(search, document);
}

/// A cursor of each kind of list: accepted cursors round-trip.
pub fn cursor(input: &[u8]) {
    let cursor = text(input);
    fuzzing::cursor("rows things desc:at 00", cursor);
    // Random text is rarely valid base64, so the bytes are also tested as decoded content.
    fuzzing::cursor_of("rows things desc:at 00", input);
}
