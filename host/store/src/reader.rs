//! Every read of a running host. A [`Reader`] owns a small pool of connections that cannot write; it never creates or
//! changes anything, and a read is no commit.
//!
//! Two readers exist. The one of the API bounds each read in time and bytes, so that no client holds a snapshot for long
//! and the write-ahead log can be reset. The one of the host ([`crate::Store::reader`]) serves projections and lifecycle;
//! its long reads (comparing a rebuild, tracing a version) have no deadline, but a limit on their number.

mod access;
mod arrivals;
mod bound;
mod buckets;
mod connections;
mod dead_letter_groups;
mod facets;
mod few_proposals;
mod interrupt;
mod matching;
mod records;
mod rows;
mod search;
mod search_function;
mod search_patterns;
mod segments;
mod selection;
mod series;
mod shape;
mod snapshot;
mod sql;
mod tables;
mod text;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::location::Location;
use crate::sql::{Connection, Kind};
use rusqlite::types::Value;
use tokio::sync::Semaphore;

use connections::{Connections, Query, QueryError, Row};

pub use crate::read_error::ReadError;
pub use crate::search::{SearchError, SearchQuery, SearchableColumn, TERMS_MAX, WORDS_MAX};
pub use access::{AuditFilter, TOKENS_MAX, TokenRecord};
pub use arrivals::{ArrivalPositions, BEGINNING};
pub use buckets::{Bucket, Buckets, Histogram};
pub use facets::Facet;
pub use matching::Matcher;
pub use records::{DeadLetterFilter, SourceFilter};
pub use rows::{Key, RowPage, RowPosition, RowQuery, RowRecord, Sort};
pub use search::SearchProgress;
pub use selection::{Comparison, Condition, Selection, Test};
pub use series::{Aggregate, Line, Series, SeriesQuery};
pub use shape::{Shape, ShapeColumn};
pub use sql::{SqlAnswer, SqlError};
pub use tables::{RowEstimate, TableEntry};
pub use text::Stopped;

/// A server ends a statement of a reader of the API after so many times the time of a read. The host ends it earlier, unless it
/// has stopped to work.
const STATEMENT_TIMES: u32 = 30;

/// Limits of a single read.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// A read is interrupted after this long. A long read keeps the write-ahead log from being reset.
    pub time: Duration,
    /// A page ends after the row that exceeds this. The size of a value is its size in JSON.
    pub page_bytes: usize,
    /// Connections, each with a thread and a page cache; more readers wait.
    pub connections: u32,
    /// Long reads at the same time, each with a thread and a connection: questions in SQL, and long snapshots.
    pub long_reads: usize,
}

impl ReadLimits {
    /// For the host's own reads. Long reads hold at most half of the connections, so that short ones (which plugins are
    /// installed, where a source stands) do not wait for a comparison of tables. A short read takes milliseconds, so the
    /// time is for a machine under load.
    const HOST: Self = Self {
        time: Duration::from_secs(30),
        page_bytes: 8 << 20,
        connections: 8,
        long_reads: 4,
    };
}

impl Default for ReadLimits {
    fn default() -> Self {
        // A page of rows by rowid takes a millisecond; a filter that no index serves may need the two seconds. Four
        // readers serve a dashboard and a script; a fifth waits. Questions in SQL are few, because they may be slow.
        Self {
            time: Duration::from_secs(2),
            page_bytes: 8 << 20,
            connections: 4,
            long_reads: 2,
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// In the order of the query.
    pub items: Vec<T>,
    /// Where the next page begins, if there is more: the next query passes it as `after`.
    pub next: Option<i64>,
}

/// The handle for reads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    connections: Connections,
    limits: ReadLimits,
    location: Location,
    /// One permit for each long read.
    long_reads: Arc<Semaphore>,
}

impl Reader {
    /// Opens the database that the store created. Fails when the file is missing or is not a database.
    pub async fn open(path: &Path) -> Result<Self, ReadError> {
        Self::open_with(path, ReadLimits::default()).await
    }

    /// As [`Reader::open`], with other limits.
    pub async fn open_with(path: &Path, limits: ReadLimits) -> Result<Self, ReadError> {
        Self::open_at(&Location::Sqlite(path.to_owned()), limits).await
    }

    /// As [`Reader::open_with`], in a file or at a server.
    pub async fn open_at(location: &Location, limits: ReadLimits) -> Result<Self, ReadError> {
        let reader = Self::new(location, limits, Some(limits.time * STATEMENT_TIMES));
        // SQLite opens any file; only a read shows whether it is a database.
        let probe = match location {
            Location::Sqlite(_) => "SELECT count(*) FROM sqlite_schema",
            Location::Postgres(_) => "SELECT count(*) FROM _lantern_host",
        };
        match reader.fetch(probe, Vec::new(), 1, |_| Ok(())).await {
            Ok(_) => Ok(reader),
            Err(ReadError::Sql(source)) => Err(ReadError::Open {
                location: location.to_string(),
                source,
            }),
            Err(other) => Err(other),
        }
    }

    /// The reader of the host itself, for a database that the store has opened.
    pub(crate) fn for_host(location: &Location) -> Self {
        Self::new(location, ReadLimits::HOST, None)
    }

    fn new(location: &Location, limits: ReadLimits, statement_time: Option<Duration>) -> Self {
        Self {
            connections: Connections::new(location, limits.connections, limits.time, statement_time),
            limits,
            location: location.clone(),
            long_reads: Arc::new(Semaphore::new(limits.long_reads)),
        }
    }

    /// Runs a function on one snapshot of the database. For reads that take milliseconds.
    pub(crate) async fn snapshot<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<crate::sql::Error> + From<ReadError> + Send + 'static,
    {
        match self.connections.snapshot(None, work).await {
            Ok(result) => result,
            Err(error) => Err(self.error(error).into()),
        }
    }

    /// The same for reads whose time grows with the tables. Waits while too many others run.
    pub(crate) async fn long_snapshot<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<crate::sql::Error> + From<ReadError> + Send + 'static,
    {
        // The semaphore is never closed.
        let _permit = self.long_reads.acquire().await.map_err(|_| ReadError::Busy)?;
        self.snapshot(work).await
    }

    /// Closes all connections, after the reads that are running.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    /// Closes all connections, after the reads that are running; later reads open new ones. For a database file that was
    /// deleted or replaced.
    pub async fn release(&self) {
        self.connections.release().await;
    }

    /// The same reader with less time for a read.
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

    /// Runs one statement and passes each row to `read`, which returns an item and its size in bytes.
    async fn fetch_sized<T>(
        &self,
        sql: &str,
        arguments: Vec<Value>,
        rows_max: usize,
        mut read: impl FnMut(&mut Row) -> Result<(T, usize), ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        // Every statement comes from this module; `statement::quote` quoted the names in it.
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
        mut read: impl FnMut(&Row) -> Result<T, crate::sql::Error>,
    ) -> Result<Vec<T>, ReadError> {
        self.fetch_sized(sql, arguments, rows_max, |row| {
            Ok((read(row).map_err(ReadError::Sql)?, 0))
        })
        .await
    }

    /// A page of `limit` items from a statement that returns one more.
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
        match error.kind() {
            Kind::Interrupted => ReadError::TimeLimit {
                time: self.limits.time,
            },
            _ => error.into(),
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
