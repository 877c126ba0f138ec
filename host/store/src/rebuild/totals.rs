//! Totals of the columns of a table, as SQL and as values.

use rusqlite::types::Value;

use crate::statement::quote_text;
use crate::values::StorageClass;
use lantern_model::schema::ColumnType;

/// Totals of one column.
pub(super) const SUMS: usize = 3;

/// Non-null values, and their sum. The sum of integers is computed in two halves, so that it cannot overflow.
pub(super) fn column_sums(column: &str, column_type: ColumnType) -> [String; SUMS] {
    let column = quote_text(column);
    let [sum, rest] = match StorageClass::of(column_type) {
        StorageClass::Integer => [
            format!("coalesce(sum({column} & 4294967295), 0)"),
            format!("coalesce(sum({column} >> 32), 0)"),
        ],
        StorageClass::Real => [format!("total({column})"), "0".to_owned()],
        StorageClass::Text | StorageClass::Blob => [
            format!("coalesce(sum(octet_length({column})), 0)"),
            "0".to_owned(),
        ],
    };
    [format!("count({column})"), sum, rest]
}

/// The last digits of a sum of real numbers depend on the order of the rows.
pub(super) fn same_total(one: &Value, other: &Value) -> bool {
    use Value::Real;
    match (one, other) {
        (Real(one), Real(other)) => {
            one == other
                || (one - other).abs() <= 1e-9 * one.abs().max(other.abs())
                || (one.is_nan() && other.is_nan())
        }
        _ => one == other,
    }
}

pub(super) fn describe_value(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Null | Value::Text(_) | Value::Blob(_) => "nothing".to_owned(),
    }
}
