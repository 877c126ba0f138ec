//! Checks a plugin's answers against its own description and the limits on rows and bytes. An outcome that violates one
//! rejects only its own message; none of its rows is stored.

use super::config::Limits;
use lantern_model::batch::{Outcome, Rejection, RejectionClass, Row, Value};
use lantern_model::schema::Manifest;

/// Returns the outcome, or a rejection that describes the violation.
pub(super) fn check(manifest: &Manifest, limits: &Limits, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Rows(rows) if rows.is_empty() => Outcome::Skip,
        Outcome::Rows(mut rows) => match check_rows(manifest, limits, &mut rows) {
            Ok(()) => Outcome::Rows(rows),
            Err(problem) => Outcome::Reject(Rejection::new(RejectionClass::Output, &problem)),
        },
        other => other,
    }
}

fn check_rows(manifest: &Manifest, limits: &Limits, rows: &mut [Row]) -> Result<(), String> {
    let (count, most) = (rows.len(), limits.rows_per_message);
    if count > most {
        return Err(format!("{count} rows for one message, and the limit is {most}"));
    }
    let mut bytes = 0;
    for (index, row) in rows.iter_mut().enumerate() {
        bytes += row.values.iter().map(size_of_value).sum::<usize>();
        if bytes > limits.bytes_per_message {
            return Err(format!(
                "more than {} bytes of values for one message, which is the limit",
                limits.bytes_per_message
            ));
        }
        manifest.check_row(row).map_err(|problem| {
            if count == 1 {
                problem
            } else {
                format!("row {} of {count}: {problem}", index + 1)
            }
        })?;
    }
    Ok(())
}

/// The size of a value in an answer.
fn size_of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Boolean(_) => 1,
        other => other.as_bytes().map_or(8, <[u8]>::len),
    }
}
