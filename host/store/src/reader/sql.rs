//! Queries in SQL, if the operator has enabled them: on a separate read-only connection, with an authorizer that
//! allows only reads of plugin tables, and with limits on time, memory, rows and bytes. SQLite interrupts a statement
//! only between two steps, so each step is kept short: values and patterns are bounded, and functions that are
//! quadratic in SQLite are replaced or not allowed (see `functions`).

mod functions;
mod names;
mod question;
mod server;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode};

use super::Reader;
use super::connections::Caller;
use super::text::json_size;
use crate::connection::open_read_only;
use crate::location::Location;
use crate::values::Stored;
use lantern_model::batch::Value;

/// Longest time of a question.
const TIME: Duration = Duration::from_secs(3);
/// How long a question waits for a lock of another process.
const BUSY_TIME: Duration = Duration::from_secs(5);
/// Largest answer in bytes.
const BYTES_MAX: usize = 16 << 20;
/// Longest question.
const SQL_BYTES_MAX: i32 = 64 << 10;
/// Largest value that a question may read or create. A function processes it within milliseconds.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// The values of a wide row must be smaller, so that all of them fit in [`BYTES_MAX`]; but the limit is never below
/// this.
const VALUE_BYTES_MIN: usize = 64 << 10;
/// Longest pattern of `LIKE` and `GLOB`, whose time may be its length times that of the value.
const PATTERN_BYTES_MAX: i32 = 256;

/// The answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlAnswer {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<Value>>,
    /// Whether there are more rows.
    pub truncated: bool,
    /// How long it took.
    pub took: Duration,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// It is wrong or not allowed; the message is that of the host or of the database.
    #[error("{0}")]
    Refused(String),
    /// It exceeded its time.
    #[error("the question was interrupted after {} ms", time.as_millis())]
    TimeLimit {
        /// The limit.
        time: Duration,
    },
    /// Too many questions are running.
    #[error("too many questions in SQL are running")]
    Busy,
    /// The database cannot be read.
    #[error("the database cannot be read: {0}")]
    Unavailable(String),
}

impl Reader {
    /// Answers a question in SQL with at most this many rows.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn sql(&self, question: &str, rows_max: usize) -> Result<SqlAnswer, SqlError> {
        let permit = Arc::clone(&self.long_reads)
            .try_acquire_owned()
            .map_err(|_| SqlError::Busy)?;
        let location = self.location.clone();
        let question = question.to_owned();
        let caller = Caller::default();
        let is_gone = caller.is_gone();
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let path = match location {
                Location::Sqlite(path) => path,
                Location::Postgres(server) => return server::answer(&server, &question, rows_max, is_gone),
            };
            let connection =
                open_read_only(&path, BUSY_TIME).map_err(|error| SqlError::Unavailable(error.to_string()))?;
            answer(&connection, &question, rows_max, is_gone)
        });
        match work.await {
            Ok(answer) => answer,
            Err(error) => Err(SqlError::Unavailable(error.to_string())),
        }
    }
}

fn answer(
    connection: &Connection,
    question: &str,
    rows_max: usize,
    is_gone: Arc<AtomicBool>,
) -> Result<SqlAnswer, SqlError> {
    let began = Instant::now();
    guard(connection, is_gone).map_err(|error| SqlError::Unavailable(error.to_string()))?;
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => SqlError::TimeLimit { time: TIME },
        Some(ErrorCode::DatabaseBusy) => SqlError::Busy,
        Some(ErrorCode::AuthorizationForStatementDenied) => {
            SqlError::Refused(format!("{error}; only SELECT statements are allowed"))
        }
        _ => SqlError::Refused(error.to_string()),
    };
    let mut statement = connection.prepare(question).map_err(failed)?;
    if statement.parameter_count() > 0 {
        return Err(SqlError::Refused("a question has no parameters".to_owned()));
    }
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    if columns.is_empty() {
        return Err(SqlError::Refused("a question is a SELECT".to_owned()));
    }
    let count = columns.len();
    // SQLite assembles a whole row before its values can be counted.
    let value_max = (BYTES_MAX / count).clamp(VALUE_BYTES_MIN, VALUE_BYTES_MAX);
    connection
        .set_limit(
            Limit::SQLITE_LIMIT_LENGTH,
            i32::try_from(value_max).unwrap_or(i32::MAX),
        )
        .map_err(failed)?;
    let mut found = statement.query([]).map_err(failed)?;
    let (mut rows, mut bytes, mut truncated) = (Vec::new(), 0, false);
    while let Some(row) = found.next().map_err(failed)? {
        // Counted before anything of the row is copied.
        for index in 0..count {
            bytes += 8 + json_size(row.get_ref(index).map_err(failed)?);
        }
        if rows.len() >= rows_max || bytes > BYTES_MAX {
            truncated = true;
            break;
        }
        let values = (0..count).map(|index| row.get_ref(index).map(Stored::of));
        rows.push(
            values
                .map(|value| Ok(value?.into_untyped()))
                .collect::<Result<_, _>>()
                .map_err(failed)?,
        );
    }
    Ok(SqlAnswer {
        columns,
        rows,
        truncated,
        took: began.elapsed(),
    })
}

/// Restricts a connection for an untrusted question.
fn guard(connection: &Connection, is_gone: Arc<AtomicBool>) -> Result<(), rusqlite::Error> {
    let names = |sql: &str| -> Result<HashSet<String>, rusqlite::Error> {
        connection
            .prepare(sql)?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    let known = Known {
        plugins: names("SELECT lower(name) FROM _lantern_table")?,
        all: names("SELECT lower(name) FROM sqlite_schema")?,
        modules: names("SELECT lower(name) FROM pragma_module_list")?,
    };
    for (pragma, value) in [
        ("query_only", "ON"),
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
    ] {
        connection.pragma_update(None, pragma, value)?;
    }
    // Sorts spill to a file.
    connection.pragma_update(None, "temp_store", "file")?;
    connection.pragma_update(None, "cache_size", -4_096)?;
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX as i32),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES_MAX),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_BYTES_MAX),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 50),
        (Limit::SQLITE_LIMIT_COLUMN, 500),
        (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
    ] {
        connection.set_limit(limit, most)?;
    }
    functions::replace(connection)?;
    let deadline = Instant::now() + TIME;
    let is_over = move || is_gone.load(Ordering::Relaxed) || Instant::now() >= deadline;
    connection.progress_handler(1_000, Some(is_over))?;
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        known.authorize(&context.action)
    }))
}

/// Readable tables other than those of plugins.
const READABLE: [&str; 4] = ["sqlite_schema", "sqlite_master", "json_each", "json_tree"];

/// Names in the database, in lower case.
struct Known {
    plugins: HashSet<String>,
    all: HashSet<String>,
    /// Virtual tables that exist without being created, such as `dbstat`.
    modules: HashSet<String>,
}

impl Known {
    /// Whether a name is one of the database or of SQLite, and not a part of the question. SQLite creates the tables
    /// `pragma_…` on demand.
    fn is_a_table(&self, name: &str) -> bool {
        self.all.contains(name)
            || self.modules.contains(name)
            || name.starts_with("pragma_")
            || name.starts_with("sqlite_")
    }

    /// Allows only reads, and only of plugin tables: the host's own tables contain tokens and the audit.
    fn authorize(&self, action: &AuthAction<'_>) -> Authorization {
        let may = match action {
            AuthAction::Select | AuthAction::Recursive => true,
            AuthAction::Read {
                table_name,
                column_name,
            } => {
                let name = table_name.to_ascii_lowercase();
                // SQLite reports a part of the question of which only the rows are counted like a table.
                let is_part = column_name.is_empty() && !self.is_a_table(&name);
                self.plugins.contains(&name) || READABLE.contains(&name.as_str()) || is_part
            }
            AuthAction::Function { function_name } => functions::is_allowed(function_name),
            _ => false,
        };
        if may {
            Authorization::Allow
        } else {
            Authorization::Deny
        }
    }
}
