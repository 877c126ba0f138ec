//! Why a read of the database failed.

use std::time::Duration;

use crate::sql::Kind;

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file is missing, or is not a database.
    #[error("cannot open database {location} for reading")]
    Open {
        /// The file, or the server.
        location: String,
        /// The error of the database.
        source: crate::sql::Error,
    },
    /// All connections were in use for too long, or the database was locked.
    #[error("the database has no connection for another read at the moment")]
    Busy,
    /// The read exceeded its time and was interrupted.
    #[error("the read was interrupted after {} ms", time.as_millis())]
    TimeLimit {
        /// The limit.
        time: Duration,
    },
    /// A stored record is not one that the host wrote.
    #[error("cannot parse {what}")]
    Corrupt {
        /// A description of the record.
        what: String,
        /// Why it cannot be parsed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The row after which a page begins no longer exists.
    #[error("the row after which the page begins is gone")]
    PositionGone,
    /// Any other error of the database.
    #[error("cannot read from the database")]
    Sql(#[source] crate::sql::Error),
}

impl ReadError {
    /// Whether the same read may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy)
    }

    /// The message with its immediate cause.
    pub fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    pub(crate) fn corrupt(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt {
            what: what.into(),
            source: source.into(),
        }
    }
}

impl From<crate::sql::Error> for ReadError {
    fn from(error: crate::sql::Error) -> Self {
        match error.kind() {
            // A snapshot is interrupted only while its pool is released; the next one opens the new file.
            Kind::Busy | Kind::Interrupted => Self::Busy,
            _ => Self::Sql(error),
        }
    }
}
