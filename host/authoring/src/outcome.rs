//! Renders an outcome in the format of expected outcomes: `"skip"`, `{"reject": …}` or `{"rows": […]}` with values by
//! column. Times are RFC 3339, JSON values are text, bytes are hex. The SDK's `testing` module uses the same format.

use serde_json::{Map, Value as Tree, json};

use lantern_model::batch::{Outcome, Row, Value};
use lantern_model::schema::Manifest;
use lantern_model::value::{Integers, JsonValue};

/// Renders an outcome as JSON.
pub fn render(manifest: &Manifest, outcome: &Outcome) -> Tree {
    match outcome {
        Outcome::Skip => json!("skip"),
        Outcome::Reject(rejection) => {
            json!({ "reject": { "class": rejection.class.as_str(), "reason": rejection.reason } })
        }
        Outcome::Rows(rows) => {
            let rows: Vec<Tree> = rows.iter().map(|row| render_row(manifest, row)).collect();
            json!({ "rows": rows })
        }
    }
}

fn render_row(manifest: &Manifest, row: &Row) -> Tree {
    // The rows have been checked against the manifest.
    let Some(write) = manifest.writes.get(row.write as usize) else {
        return json!({ "write": row.write });
    };
    let table = manifest.table_of(write);
    let values: Map<String, Tree> = write
        .columns
        .iter()
        .zip(&row.values)
        .map(|(&column, value)| (table.columns[column].name.to_string(), render_value(value)))
        .collect();
    json!({ "write": row.write, "table": table.name.as_str(), "values": values })
}

/// Renders a value for a fixture: like the API, but bytes in hexadecimal, and a document as its text.
pub fn render_value(value: &Value) -> Tree {
    match value {
        Value::Blob(bytes) => Tree::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        Value::Json(document) => json!(document),
        other => json!(JsonValue(other, Integers::Numbers)),
    }
}

/// Counts the rows of outcomes.
pub fn count_rows(outcomes: &[Outcome]) -> usize {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Rows(rows) => rows.len(),
            Outcome::Skip | Outcome::Reject(_) => 0,
        })
        .sum()
}
