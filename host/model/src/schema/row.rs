//! Checks one row against the declared columns of its write. It runs for every row, so it allocates only for an error.

use serde::de::IgnoredAny;

use super::{ColumnType, Manifest, Write};
use crate::batch::{Row, Value};
use crate::limits::JSON_DEPTH_MAX;

/// The largest integer up to which every integer is exact as a double.
const EXACT_IN_REAL: i64 = 1 << 53;

impl Manifest {
    /// Checks a row that a plugin returned, and replaces values that databases would store differently: integers in `real`
    /// columns become reals, and negative zero becomes zero.
    ///
    /// # Errors
    /// A sentence that names the problem, the table and the column.
    pub fn check_row(&self, row: &mut Row) -> Result<(), String> {
        let Some(write) = self.writes.get(row.write as usize) else {
            return Err(format!(
                "a row names write {}, but the plugin declares {} writes",
                row.write,
                self.writes.len()
            ));
        };
        let table = self.table_of(write);
        if row.values.len() != write.columns.len() {
            return Err(format!(
                "a row for table {} has {} values, but its write has {} columns",
                table.name,
                row.values.len(),
                write.columns.len()
            ));
        }
        for (value, &column) in row.values.iter_mut().zip(&write.columns) {
            let column = &table.columns[column];
            let checked = column.column_type.check(value, column.nullable);
            checked.map_err(|problem| self.in_place(write, &format!("column {}", column.name), &problem))?;
        }
        self.measured_keys
            .check(row)
            .map_err(|key| self.in_place(write, &key.columns(table, write), &key.describe(row)))
    }

    fn in_place(&self, write: &Write, columns: &str, problem: &str) -> String {
        format!("table {}, {columns}: {problem}", self.table_of(write).name)
    }
}

impl ColumnType {
    /// Checks a value for a column of this type, and replaces values that databases would store differently: an integer in
    /// a `real` column becomes a real, and negative zero becomes zero.
    ///
    /// # Errors
    /// A phrase that names the problem.
    pub fn check(self, value: &mut Value, nullable: bool) -> Result<(), String> {
        match (&*value, self) {
            (Value::Null, _) if nullable => Ok(()),
            (Value::Null, _) => Err("null, but the column is not nullable".to_owned()),
            (Value::Timestamp(time), ColumnType::Timestamp) if time.is_admissible() => Ok(()),
            (Value::Timestamp(time), ColumnType::Timestamp) => Err(format!(
                "the time {} (microseconds since 1970) is outside the years 0000 to 9999",
                time.0
            )),
            // SQLite would silently store NaN as NULL, and negative zero as zero.
            (Value::Real(real), ColumnType::Real) if real.is_finite() => {
                if *real == 0.0 {
                    *value = Value::Real(0.0);
                }
                Ok(())
            }
            (Value::Real(real), ColumnType::Real) => Err(format!("{real} is not finite")),
            (Value::Integer(integer), ColumnType::Real) => {
                let integer = *integer;
                if (-EXACT_IN_REAL..=EXACT_IN_REAL).contains(&integer) {
                    #[allow(clippy::cast_precision_loss, reason = "the range was checked")]
                    let real = integer as f64;
                    *value = Value::Real(real);
                    Ok(())
                } else {
                    Err(format!("{integer} is not exact as a real"))
                }
            }
            (Value::Text(text), ColumnType::Text) => check_text(text),
            // A document cannot contain a NUL character.
            (Value::Json(text), ColumnType::Json) => check_json(text),
            (other, expected) if other.column_type() == Some(expected) => Ok(()),
            (other, expected) => Err(format!(
                "a value of type {}, but the column is {expected}",
                other.column_type().map_or("null", ColumnType::as_str)
            )),
        }
    }
}

fn check_text(text: &str) -> Result<(), String> {
    // Several times faster than `find`, which is needed only for the error.
    if !text.as_bytes().contains(&0) {
        return Ok(());
    }
    let position = text.find('\0').unwrap_or_default();
    Err(format!("a NUL character at byte {position}"))
}

fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("not a JSON document: {error}"))?;
    // The exact depth of few documents is needed, and takes longer than parsing them.
    if openings(text) <= JSON_DEPTH_MAX {
        return Ok(());
    }
    match json_depth(text) {
        0..=JSON_DEPTH_MAX => Ok(()),
        depth => Err(format!(
            "a JSON document that is nested {depth} deep, and the limit is {JSON_DEPTH_MAX}"
        )),
    }
}

/// The number of `[` and `{`, also in strings: an upper bound of the nesting depth. Compiles to vector instructions.
fn openings(text: &str) -> usize {
    // The two differ in one bit. A chunk is so short that its count fits in a byte.
    let in_chunk = |chunk: &[u8]| -> u8 { chunk.iter().map(|byte| u8::from(byte & 0xDF == b'[')).sum() };
    let chunks = text.as_bytes().chunks(128);
    chunks.map(|chunk| usize::from(in_chunk(chunk))).sum()
}

/// The nesting depth of a valid document.
fn json_depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Timestamp;

    #[track_caller]
    fn check(mut value: Value, column_type: ColumnType, expected: Result<Value, &str>) {
        match (column_type.check(&mut value, false), expected) {
            (Ok(()), Ok(expected)) => assert_eq!(value, expected),
            (Err(problem), Err(words)) => assert!(problem.contains(words), "{words:?} is not in {problem:?}"),
            (result, expected) => panic!("{result:?} where {expected:?} was expected"),
        }
    }

    #[test]
    fn numbers_are_accepted_exactly_or_rejected() {
        check(
            Value::Integer(i64::MIN),
            ColumnType::Integer,
            Ok(Value::Integer(i64::MIN)),
        );
        check(Value::Integer(3), ColumnType::Real, Ok(Value::Real(3.0)));
        check(Value::Integer(i64::MAX), ColumnType::Real, Err("not exact"));
        let mut zero = Value::Real(-0.0);
        assert_eq!(ColumnType::Real.check(&mut zero, false), Ok(()));
        assert!(
            matches!(zero, Value::Real(zero) if zero.is_sign_positive()),
            "{zero:?}"
        );
        check(Value::Real(f64::NAN), ColumnType::Real, Err("not finite"));
        check(Value::Real(f64::INFINITY), ColumnType::Real, Err("not finite"));
        check(
            Value::Real(1.0),
            ColumnType::Integer,
            Err("type real, but the column is integer"),
        );
    }

    #[test]
    fn texts_documents_and_times_are_checked() {
        check(
            Value::Text("a\0b".into()),
            ColumnType::Text,
            Err("NUL character at byte 1"),
        );
        check(Value::Text("{}".into()), ColumnType::Json, Err("type text"));
        for nul in ["\"a\0b\"", "1\0", "\0", "[\0]"] {
            check(
                Value::Json(nul.into()),
                ColumnType::Json,
                Err("not a JSON document"),
            );
        }
        check(
            Value::Json("{".into()),
            ColumnType::Json,
            Err("not a JSON document"),
        );
        check(
            Value::Json("{} {}".into()),
            ColumnType::Json,
            Err("not a JSON document"),
        );
        check(
            Value::Json(" [1e400] ".into()),
            ColumnType::Json,
            Ok(Value::Json(" [1e400] ".into())),
        );
        check(Value::Null, ColumnType::Text, Err("not nullable"));
        check(
            Value::Timestamp(Timestamp(-1)),
            ColumnType::Timestamp,
            Ok(Value::Timestamp(Timestamp(-1))),
        );
        for edge in [Timestamp::MIN, Timestamp::MAX] {
            check(
                Value::Timestamp(edge),
                ColumnType::Timestamp,
                Ok(Value::Timestamp(edge)),
            );
        }
        for outside in [Timestamp::MIN.0 - 1, Timestamp::MAX.0 + 1, i64::MIN, i64::MAX] {
            check(
                Value::Timestamp(Timestamp(outside)),
                ColumnType::Timestamp,
                Err("outside the years 0000 to 9999"),
            );
        }
        assert!(ColumnType::Blob.check(&mut Value::Null, true).is_ok());
    }

    #[test]
    fn deeply_nested_json_is_an_error_and_not_a_crash() {
        let deep = "[".repeat(1_000_000);
        check(Value::Json(deep), ColumnType::Json, Err("not a JSON document"));
    }

    #[test]
    fn json_nesting_is_limited() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let good = Value::Json(nested(JSON_DEPTH_MAX));
        check(good.clone(), ColumnType::Json, Ok(good));
        check(
            Value::Json(nested(JSON_DEPTH_MAX + 1)),
            ColumnType::Json,
            Err("nested 129 deep"),
        );
        // Brackets in strings and brackets one after another do not nest.
        let flat = |bracket: &str| format!("[{}]", vec![bracket; 1_000].join(","));
        for flat in [flat("\"[{\""), flat("{}"), flat("[]")] {
            assert_eq!(openings(&flat), flat.matches(['[', '{']).count());
            check(Value::Json(flat.clone()), ColumnType::Json, Ok(Value::Json(flat)));
        }
        for (text, depth) in [
            ("1", 0),
            (r#"{"a":[{}],"b":[]}"#, 3),
            (r#""[[[[""#, 0),
            (r#"["\"[[", "\\", []]"#, 2),
        ] {
            assert_eq!(json_depth(text), depth, "{text}");
        }
    }
}
