//! Read-only questions to the database, for the faces. Owns a small pool of connections that cannot write; each
//! answer is one short read with a limit on its time and its bytes, so that no reader holds a snapshot for long
//! and the write-ahead log can be reset. It never creates or changes anything.

mod access;
mod arrivals;
mod buckets;
mod cells;
mod connections;
mod facets;
mod letters;
mod matching;
mod records;
mod rows;
mod selection;
mod series;
mod shape;
mod sql;
mod tables;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::ErrorCode;
use rusqlite::types::Value;
use tokio::sync::Semaphore;

use connections::{Connections, Query, QueryError, Row};

pub use access::{AuditFilter, AuditRecord, TOKENS_MAX, TokenRecord};
pub use arrivals::{BEGINNING, Places};
pub use buckets::{Bucket, Buckets, Histogram};
pub use cells::Cell;
pub use facets::Facet;
pub use letters::{LetterGroup, LetterReason};
pub use matching::Matcher;
pub use records::{DeadLetter, DeadLetterFilter, Gap, LedgerRange, SourceFilter};
pub use rows::{Key, Place, RowOrigin, RowPage, RowQuery, RowRecord, Sort, can_sort};
pub use selection::{Comparison, Condition, Selection, Test};
pub use series::{Aggregate, Line, Series, SeriesQuery};
pub use shape::{Shape, ShapeColumn};
pub use sql::{SqlAnswer, SqlError, SqlValue};
pub use tables::{RowEstimate, TableEntry};
pub use text::Stopped;

/// What a single read may cost.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// A read is interrupted after this long. Readers that stay keep the write-ahead log from being reset.
    pub time: Duration,
    /// A page ends after the row that passes this. Values are counted as they are in JSON.
    pub page_bytes: usize,
    /// Connections, each a thread and a page cache; more readers wait.
    pub connections: u32,
}

impl Default for ReadLimits {
    fn default() -> Self {
        // A page of rows by rowid takes a millisecond; two seconds are for the unlucky filter. Four readers at
        // once are a dashboard and a script; the fifth waits for one of them.
        Self {
            time: Duration::from_secs(2),
            page_bytes: 8 << 20,
            connections: 4,
        }
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file is not there, or is not a database.
    #[error("cannot open database {path} for reading", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// All connections were in use for too long, or the database was locked.
    #[error("the database has no time for readers at the moment")]
    Busy,
    /// The read took longer than it may and was interrupted.
    #[error("the read was interrupted after {} ms", time.as_millis())]
    TimeLimit {
        /// The limit.
        time: Duration,
    },
    /// What is stored cannot be what the host wrote.
    #[error("cannot understand {what}")]
    Corrupt {
        /// The record, in words.
        what: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The row that a page begins behind is not there any more.
    #[error("the row that the page begins behind is gone")]
    PlaceGone,
    /// Anything else that SQLite refuses.
    #[error("cannot read from the database")]
    Sql(#[source] rusqlite::Error),
}

impl ReadError {
    /// Whether the same question may be answered later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy)
    }

    fn corrupt(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Corrupt {
            what: what.into(),
            source: source.into(),
        }
    }
}

/// One page of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// In the order asked for.
    pub items: Vec<T>,
    /// Where the next page begins, when there is more: hand it back as `after`.
    pub next: Option<i64>,
}

/// The handle that asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    connections: Connections,
    limits: ReadLimits,
    path: Arc<Path>,
    /// Questions in SQL that are answered at once; each has a thread and a connection.
    questions: Arc<Semaphore>,
}

/// Few: they may be as slow as they are allowed to be.
const QUESTIONS_MAX: usize = 2;

impl Reader {
    /// Opens the database that the store has made. Fails when the file is missing or is no database.
    pub async fn open(path: &Path) -> Result<Self, ReadError> {
        Self::open_with(path, ReadLimits::default()).await
    }

    /// As [`Reader::open`], with other limits.
    pub async fn open_with(path: &Path, limits: ReadLimits) -> Result<Self, ReadError> {
        let reader = Self {
            connections: Connections::new(path, limits.connections, limits.time),
            limits,
            path: path.into(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        };
        // SQLite opens anything; only a read shows whether it is a database.
        match reader
            .fetch("SELECT count(*) FROM sqlite_schema", Vec::new(), 1, |_| Ok(()))
            .await
        {
            Ok(_) => Ok(reader),
            Err(ReadError::Sql(source)) => Err(ReadError::Open {
                path: path.to_owned(),
                source,
            }),
            Err(other) => Err(other),
        }
    }

    /// Closes all connections, after the reads that are running.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    /// Closes all connections to the present file, after the reads that are running, and opens new ones when they are
    /// needed: for a database that was deleted or replaced.
    pub async fn release(&self) {
        self.connections.release().await;
    }

    /// The same with less time for a read.
    fn within(&self, time: Duration) -> Self {
        let mut reader = self.clone();
        reader.limits.time = reader.limits.time.min(time);
        reader
    }

    #[cfg(test)]
    fn with_time(&self, time: Duration) -> Self {
        let mut reader = self.clone();
        reader.limits.time = time;
        reader
    }

    /// Runs one statement and hands each row to `read`, which answers with an item and its bytes.
    async fn fetch_sized<T>(
        &self,
        sql: &str,
        arguments: Vec<Value>,
        rows_max: usize,
        mut read: impl FnMut(&mut Row) -> Result<(T, usize), ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        // Every statement comes from this module; names in it went through `statement::quote`.
        let query = Query {
            sql: sql.to_owned(),
            arguments,
            rows_max,
            time: self.limits.time,
        };
        let mut rows = self
            .connections
            .query(query)
            .await
            .map_err(|error| self.error(error))?;
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(mut row) = rows.next().await.map_err(|error| self.error(error))? {
            let (item, size) = read(&mut row)?;
            items.push(item);
            bytes += size;
            if items.len() >= rows_max || bytes >= self.limits.page_bytes {
                break;
            }
        }
        Ok(items)
    }

    async fn fetch<T>(
        &self,
        sql: &str,
        arguments: Vec<Value>,
        rows_max: usize,
        mut read: impl FnMut(&Row) -> Result<T, rusqlite::Error>,
    ) -> Result<Vec<T>, ReadError> {
        self.fetch_sized(sql, arguments, rows_max, |row| {
            Ok((read(row).map_err(ReadError::Sql)?, 0))
        })
        .await
    }

    /// A page of `limit` items out of a statement that was asked for one more.
    async fn page<T>(
        &self,
        sql: &str,
        arguments: Vec<Value>,
        limit: u32,
        mut read: impl FnMut(&mut Row) -> Result<(i64, T, usize), ReadError>,
    ) -> Result<Page<T>, ReadError> {
        let limit = limit as usize;
        let mut bytes = 0;
        let mut found = self
            .fetch_sized(sql, arguments, limit + 1, |row| {
                let (id, item, size) = read(row)?;
                bytes += size;
                Ok(((id, item), size))
            })
            .await?;
        let cut_by_bytes = bytes >= self.limits.page_bytes;
        let more = found.len() > limit || cut_by_bytes;
        found.truncate(limit);
        let next = found.last().map(|(id, _)| *id).filter(|_| more);
        Ok(Page {
            items: found.into_iter().map(|(_, item)| item).collect(),
            next,
        })
    }

    fn error(&self, error: QueryError) -> ReadError {
        let error = match error {
            QueryError::Busy => return ReadError::Busy,
            QueryError::Sql(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ReadError::Busy,
            Some(ErrorCode::OperationInterrupted) => ReadError::TimeLimit {
                time: self.limits.time,
            },
            _ => ReadError::Sql(error),
        }
    }
}

/// The version of SQLite that is linked, such as `3.51.3`.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

#[cfg(test)]
mod plans;
#[cfg(test)]
mod tests;
