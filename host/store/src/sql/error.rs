//! Errors of both engines.

use rusqlite::ErrorCode;
use tokio_postgres::error::SqlState;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite reports it.
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    /// The PostgreSQL server or the connection to it reports it.
    #[error("{}", describe(.0))]
    Postgres(#[source] Box<tokio_postgres::Error>),
    /// A stored value does not have the expected form.
    #[error("cannot read column {column} of a result: {reason}")]
    Decode {
        /// The number of the column, beginning at zero.
        column: usize,
        /// The reason.
        reason: String,
    },
    /// A value cannot be stored.
    #[error("{0}")]
    Encode(String),
    /// The statement returned no row.
    #[error("the query returned no row")]
    NoRows,
    /// The read exceeded its time, or its caller has gone.
    #[error("the read was interrupted")]
    Interrupted,
    /// The thread of the read panicked, or the host is stopping.
    #[error("the read ended without a result")]
    Aborted,
    /// The checkpoint changed in the transaction of a batch.
    #[error("another program has moved the checkpoint")]
    CheckpointMoved,
    /// A later version of Lantern changed the host's tables.
    #[error("the database has schema version {applied}, and this version of Lantern knows {known}")]
    Newer {
        /// The version of the database.
        applied: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// A connection cannot be encrypted as its address requires.
    #[error("cannot prepare TLS: {0}")]
    Tls(String),
    /// The function does not exist for PostgreSQL yet.
    #[error("{0} is not available with PostgreSQL")]
    Unsupported(&'static str),
}

/// What an error means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Another process or transaction holds a lock; the same statement may succeed later.
    Busy,
    /// The statement was interrupted.
    Interrupted,
    /// The written data causes it, and would cause it again.
    Refused,
    /// A sum is outside the range of its column.
    OutOfRange,
    /// The database file is damaged.
    Corrupt,
    /// No space is left.
    Full,
    /// The engine rejects the text of the statement, for example because a table does not exist.
    Statement,
    /// Any other.
    Other,
}

impl Error {
    /// A stored value does not have the expected form.
    pub(crate) fn decode(column: usize, reason: impl ToString) -> Self {
        Self::Decode {
            column,
            reason: reason.to_string(),
        }
    }

    /// A value cannot be stored.
    pub(crate) fn encode(reason: impl ToString) -> Self {
        Self::Encode(reason.to_string())
    }

    /// Whether the written data causes the error and would cause it again, and not the database, the disk or another
    /// process.
    pub(crate) fn is_caused_by_data(&self) -> bool {
        matches!(self.kind(), Kind::Refused | Kind::OutOfRange)
    }

    /// Whether the server cannot be reached, or has ended the session, so that the same statement may succeed later.
    pub fn is_disconnection(&self) -> bool {
        match self {
            Self::Postgres(error) => match error.code() {
                // The server is stopping or starting, has ended the session, or has no more connections.
                Some(state) => matches!(state.code().get(..2), Some("57" | "08" | "53")),
                None => error.is_closed() || is_io(error),
            },
            _ => false,
        }
    }

    /// Whether the session with a server has ended. The server may have lost the last commits that it had confirmed, if it does
    /// not write each commit to the disk.
    pub(crate) fn has_ended_session(&self) -> bool {
        let Self::Postgres(error) = self else {
            return false;
        };
        match error.code() {
            // The classes for connections and for a server that stops.
            Some(state) => state.code().starts_with("08") || state.code().starts_with("57P"),
            None => true,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Sqlite(error) => kind_of_sqlite(error),
            Self::Postgres(error) => error.code().map_or(Kind::Other, kind_of_state),
            Self::Interrupted => Kind::Interrupted,
            Self::Decode { .. } | Self::Encode(_) | Self::NoRows | Self::Unsupported(_) => Kind::Statement,
            Self::Aborted | Self::CheckpointMoved | Self::Newer { .. } | Self::Tls(_) => Kind::Other,
        }
    }

    /// Whether the statement or its values are the cause, so that the database is available for other statements.
    pub(crate) fn is_of_statement(&self) -> bool {
        matches!(self.kind(), Kind::Statement | Kind::Refused | Kind::OutOfRange)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::QueryReturnedNoRows => Self::NoRows,
            error => Self::Sqlite(error),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(Box::new(error))
    }
}

/// Whether the connection itself failed.
fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// The message of the server with its code, or the error of the connection with its cause: the text of
/// `tokio_postgres::Error` alone names neither.
fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(reported) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", reported.message(), reported.code().code());
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn kind_of_sqlite(error: &rusqlite::Error) -> Kind {
    let extended_code = error.sqlite_error().map(|error| error.extended_code);
    if extended_code == Some(rusqlite::ffi::SQLITE_CONSTRAINT_DATATYPE) {
        return Kind::OutOfRange;
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::Busy,
        Some(ErrorCode::OperationInterrupted) => Kind::Interrupted,
        Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::ParameterOutOfRange,
        ) => Kind::Refused,
        Some(ErrorCode::DatabaseCorrupt) => Kind::Corrupt,
        Some(ErrorCode::DiskFull) => Kind::Full,
        Some(ErrorCode::ApiMisuse) | None => Kind::Statement,
        // The lowest byte is the code without its extension.
        _ if extended_code.is_some_and(|code| code & 0xff == rusqlite::ffi::SQLITE_ERROR) => Kind::Statement,
        _ => Kind::Other,
    }
}

/// The class 42 (syntax, unknown names) and 0A (unsupported) are those of a statement's text, except for a missing privilege.
/// The classes 22 (data), 23 (constraints) and 54 (limits, such as the size of an index entry) depend on the written data.
fn kind_of_state(state: &SqlState) -> Kind {
    let code = state.code();
    if *state == SqlState::NUMERIC_VALUE_OUT_OF_RANGE {
        return Kind::OutOfRange;
    }
    match code.get(..2) {
        _ if *state == SqlState::QUERY_CANCELED => Kind::Interrupted,
        _ if *state == SqlState::LOCK_NOT_AVAILABLE
            || *state == SqlState::T_R_DEADLOCK_DETECTED
            || *state == SqlState::T_R_SERIALIZATION_FAILURE =>
        {
            Kind::Busy
        }
        _ if *state == SqlState::DISK_FULL => Kind::Full,
        Some("22" | "23" | "54") => Kind::Refused,
        _ if *state == SqlState::INSUFFICIENT_PRIVILEGE => Kind::Other,
        Some("42" | "0A") => Kind::Statement,
        Some("XX") => Kind::Corrupt,
        _ => Kind::Other,
    }
}
