//! Questions in SQL to a PostgreSQL server: each in a separate session, which ends with the question, and in a read-only
//! transaction that is rolled back. The server receives a question only after [`question::check`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::question::{self, KnownNames};
use super::{BYTES_MAX, SqlAnswer, SqlError, TIME, VALUE_BYTES_MAX, VALUE_BYTES_MIN};
use crate::location::Server;
use crate::reader::text::json_size;
use crate::sql::postgres::{ResultColumn, ResultKind};
use crate::sql::{Connection, Error, Kind, Row};
use crate::values::Stored;
use lantern_model::batch::Value;

/// Answers a question. Blocks.
pub(super) fn answer(
    server: &Server,
    question: &str,
    rows_max: usize,
    is_gone: Arc<AtomicBool>,
) -> Result<SqlAnswer, SqlError> {
    let began = Instant::now();
    let mut session = server.open_questioner().map_err(|error| unavailable(&error))?;
    let deadline = began + TIME;
    session.interrupt_when(Arc::new(move || {
        is_gone.load(Ordering::Relaxed) || Instant::now() >= deadline
    }));
    let connection = Connection::Postgres(session);
    let known = known_names(&connection).map_err(|error| unavailable(&error))?;
    question::check(question, &known).map_err(SqlError::Refused)?;
    connection
        .execute_batch("BEGIN READ ONLY")
        .map_err(|error| unavailable(&error))?;
    let mut answer = run(&connection, question, rows_max).map_err(failed)?;
    answer.took = began.elapsed();
    // The session ends here, and its transaction with it.
    Ok(answer)
}

fn known_names(connection: &Connection) -> Result<KnownNames, Error> {
    let schemas = connection
        .prepare("SELECT nspname FROM pg_catalog.pg_namespace")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(KnownNames { schemas })
}

fn run(connection: &Connection, question: &str, rows_max: usize) -> Result<SqlAnswer, Error> {
    let Connection::Postgres(session) = connection else {
        return Err(Error::Unsupported("a question to a server"));
    };
    let question = question.trim_end_matches([' ', '\t', '\r', '\n', ';']);
    let columns = session.describe(question)?;
    if columns.is_empty() {
        return Err(Error::Encode("a question is a SELECT with columns".to_owned()));
    }
    let value_max = (BYTES_MAX / columns.len().max(1)).clamp(VALUE_BYTES_MIN, VALUE_BYTES_MAX);
    let sql = bounded(question, &columns, value_max);
    let count = columns.len();
    let mut answer = SqlAnswer {
        columns: columns.into_iter().map(|column| column.name).collect(),
        rows: Vec::new(),
        truncated: false,
        took: TIME,
    };
    let mut statement = session.prepare_verbatim(&sql)?;
    let mut found = statement.query(&[])?;
    let mut bytes = 0;
    while let Some(values) = found.next()? {
        let row = Row::Postgres(values);
        for column in 0..count {
            let size = json_size(row.get_ref(column)?);
            if size > value_max {
                return Err(Error::Encode(format!("a value has more than {value_max} bytes")));
            }
            bytes += 8 + size;
        }
        if answer.rows.len() >= rows_max || bytes > BYTES_MAX {
            answer.truncated = true;
            break;
        }
        let values = (0..count).map(|column| row.get_ref(column).map(|value| untyped(Stored::of(value))));
        answer.rows.push(values.collect::<Result<_, _>>()?);
    }
    Ok(answer)
}

/// The question with values that are not longer than the host accepts, and one byte more. Types that the host does not know
/// become text.
fn bounded(question: &str, columns: &[ResultColumn], value_max: usize) -> String {
    let names: Vec<String> = (0..columns.len()).map(|number| format!("c{number}")).collect();
    let values = names.iter().zip(columns).map(|(name, column)| {
        let most = value_max + 1;
        match column.kind {
            ResultKind::Number => name.clone(),
            ResultKind::Bytes => format!("substr({name}, 1, {most})"),
            ResultKind::Other => format!("left(CAST({name} AS TEXT), {most})"),
        }
    });
    let values: Vec<String> = values.collect();
    format!(
        "SELECT {} FROM (\n{question}\n) AS q ({})",
        values.join(", "),
        names.join(", ")
    )
}

/// A value for the answer. JSON has no number for those that are not finite.
fn untyped(stored: Stored) -> Value {
    match stored.into_untyped() {
        Value::Real(number) if !number.is_finite() => Value::Text(number.to_string()),
        value => value,
    }
}

fn failed(error: Error) -> SqlError {
    match error.kind() {
        Kind::Interrupted => SqlError::TimeLimit { time: TIME },
        Kind::Busy => SqlError::Busy,
        _ if error.is_disconnection() => unavailable(&error),
        _ => SqlError::Refused(error.to_string()),
    }
}

fn unavailable(error: &Error) -> SqlError {
    SqlError::Unavailable(error.to_string())
}
