//! The keys of a table that a user may name a row by.

use rusqlite::types::Value;

use super::{ProvenanceError, RowKey};
use crate::description::TableDescription;
use crate::statement::ORIGIN_COLUMNS;
use crate::values::{StorageClass, into_parameter};
use lantern_model::schema::ColumnType;

pub(super) type KeyValues = (Vec<String>, Vec<Value>);

/// The keys that the values may belong to, with the values to look for.
pub(super) fn keys(
    table: &str,
    description: &TableDescription,
    key: &RowKey,
) -> Result<Vec<KeyValues>, ProvenanceError> {
    let words = match key {
        RowKey::Identity(id) => {
            let values = [id.origin, id.sequence, id.row].map(Value::Integer);
            return Ok(vec![(
                ORIGIN_COLUMNS.map(str::to_owned).to_vec(),
                values.to_vec(),
            )]);
        }
        RowKey::Values(words) => words,
    };
    let problem = |problem: String| ProvenanceError::Key {
        table: table.to_owned(),
        problem,
    };
    let unique = description.indexes.iter().filter(|index| index.unique);
    let all: Vec<&Vec<String>> = std::iter::once(&description.primary_key)
        .chain(unique.map(|index| &index.columns))
        .filter(|columns| !columns.is_empty())
        .collect();
    let mut possible = Vec::new();
    let mut problems = Vec::new();
    for columns in all.iter().filter(|columns| columns.len() == words.len()) {
        match values(description, columns, words) {
            Ok(values) => possible.push(((*columns).clone(), values)),
            Err(reason) => problems.push(reason),
        }
    }
    if !possible.is_empty() {
        return Ok(possible);
    }
    if problems.is_empty() {
        let all: Vec<String> = all.iter().map(|key| format!("({})", key.join(", "))).collect();
        problems.push(if all.is_empty() {
            "it has no key; name the row as ORIGIN:SEQUENCE:ROW".to_owned()
        } else {
            format!(
                "its keys are {}, and {} values were given",
                all.join(" and "),
                words.len()
            )
        });
    }
    Err(problem(problems.join("; ")))
}

fn values(
    description: &TableDescription,
    columns: &[String],
    words: &[String],
) -> Result<Vec<Value>, String> {
    let pairs = columns.iter().zip(words);
    pairs
        .map(|(name, word)| {
            let column = description.columns.iter().find(|column| column.name == *name);
            let column_type = column.map_or(ColumnType::Text, |column| column.column_type);
            value(column_type, word).ok_or_else(|| format!("{word:?} is no {column_type} (column {name})"))
        })
        .collect()
}

/// Parses a value of a key. Booleans and times may also be the integers that SQLite stores.
pub(super) fn value(column_type: ColumnType, word: &str) -> Option<Value> {
    let parsed = lantern_model::batch::Value::parse(column_type, word);
    parsed.ok().map(into_parameter).or_else(|| {
        let is_integer = StorageClass::of(column_type) == StorageClass::Integer;
        word.parse().ok().filter(|_| is_integer).map(Value::Integer)
    })
}
