//! Read-only questions to the database, for the faces. Owns a small pool of connections that cannot write; each
//! answer is one short read with a limit on its time and its bytes, so that no reader holds a snapshot for long
//! and the write-ahead log can be reset. It never creates or changes anything.

mod access;
mod arrivals;
mod buckets;
mod cells;
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

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite};
use tokio::sync::Semaphore;

pub use access::{AuditFilter, AuditRecord, TOKENS_MAX, TokenRecord};
pub use arrivals::{BEGINNING, Places};
pub use buckets::{Bucket, Buckets, Histogram};
pub use cells::Cell;
pub use facets::Facet;
pub use letters::{LetterGroup, LetterReason};
pub use records::{DeadLetter, DeadLetterFilter, Gap, LedgerRange, SourceFilter};
pub use rows::{Key, Place, RowOrigin, RowPage, RowQuery, RowRecord, Sort, can_sort};
pub use selection::{Comparison, Condition, Selection, Test};
pub use series::{Aggregate, Line, Series, SeriesQuery};
pub use shape::{Shape, ShapeColumn};
pub use sql::{SqlAnswer, SqlError, SqlValue};
pub use tables::{RowEstimate, TableEntry};

/// What a single read may cost.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// A read is interrupted after this long. Readers that stay keep the write-ahead log from being reset.
    pub time: Duration,
    /// A page ends after the row that passes this.
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
        source: sqlx::Error,
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
    Sql(#[source] sqlx::Error),
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

/// Connections are made when they are asked for.
fn pool(options: SqliteConnectOptions, limits: &ReadLimits) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(limits.connections)
        .min_connections(0)
        .acquire_timeout(limits.time)
        // An idle host should not keep threads for a dashboard that was closed.
        .idle_timeout(Duration::from_secs(30))
        .connect_lazy_with(options)
}

/// The handle that asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Changed only by [`Reader::release`].
    pool: Arc<RwLock<SqlitePool>>,
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
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .create_if_missing(false)
            .busy_timeout(Duration::from_millis(500))
            .statement_cache_capacity(16)
            // Rows that wait between SQLite's thread and ours; each may be megabytes.
            .row_buffer_size(2)
            .pragma("query_only", "ON")
            // A file that shrinks under a mapping kills the process.
            .pragma("mmap_size", "0")
            // KiB, as SQLite wants it: negative.
            .pragma("cache_size", "-1024")
            .pragma("temp_store", "MEMORY");
        let pool = pool(options, &limits);
        let reader = Self {
            pool: Arc::new(RwLock::new(pool)),
            limits,
            path: path.into(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        };
        // SQLite opens anything; only a read shows whether it is a database.
        match reader
            .fetch(
                "SELECT count(*) FROM sqlite_schema",
                SqliteArguments::default(),
                1,
                |_| Ok(()),
            )
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
        self.pool().close().await;
    }

    /// Closes all connections to the present file, after the reads that are running, and opens new ones when they are
    /// needed: for a database that was deleted or replaced.
    pub async fn release(&self) {
        let old = self.pool();
        let options = (*old.connect_options()).clone();
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = pool(options, &self.limits);
        old.close().await;
    }

    /// The same with less time for a read.
    fn within(&self, time: Duration) -> Self {
        let mut reader = self.clone();
        reader.limits.time = reader.limits.time.min(time);
        reader
    }

    fn pool(&self) -> SqlitePool {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A connection whose next statements are interrupted when the time is up.
    async fn connection(&self) -> Result<PoolConnection<Sqlite>, ReadError> {
        let mut connection = self.pool().acquire().await.map_err(|error| self.error(error))?;
        let deadline = Instant::now() + self.limits.time;
        let mut handle = connection
            .lock_handle()
            .await
            .map_err(|error| self.error(error))?;
        // Every thousand steps of SQLite's machine: tens of microseconds.
        handle.set_progress_handler(1_000, move || Instant::now() < deadline);
        drop(handle);
        Ok(connection)
    }

    /// Runs one statement and hands each row to `read`, which answers with an item and its bytes.
    async fn fetch_sized<T>(
        &self,
        sql: &str,
        arguments: SqliteArguments,
        rows_max: usize,
        mut read: impl FnMut(&SqliteRow) -> Result<(T, usize), ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let mut connection = self.connection().await?;
        // Every statement comes from this module; names in it went through `statement::quote`.
        let query = sqlx::query_with(AssertSqlSafe(sql.to_owned()), arguments);
        let mut rows = query.fetch(&mut *connection);
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await.map_err(|error| self.error(error))? {
            let (item, size) = read(&row)?;
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
        arguments: SqliteArguments,
        rows_max: usize,
        mut read: impl FnMut(&SqliteRow) -> Result<T, sqlx::Error>,
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
        arguments: SqliteArguments,
        limit: u32,
        mut read: impl FnMut(&SqliteRow) -> Result<(i64, T, usize), ReadError>,
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

    fn error(&self, error: sqlx::Error) -> ReadError {
        match &error {
            sqlx::Error::PoolTimedOut => ReadError::Busy,
            sqlx::Error::Database(inner) => {
                // The primary code is in the lowest byte: 5 busy, 6 locked, 9 interrupted.
                let code = inner
                    .code()
                    .and_then(|code| code.parse::<u32>().ok())
                    .unwrap_or_default();
                match code & 0xff {
                    5 | 6 => ReadError::Busy,
                    9 => ReadError::TimeLimit {
                        time: self.limits.time,
                    },
                    _ => ReadError::Sql(error),
                }
            }
            _ => ReadError::Sql(error),
        }
    }
}

/// Binds a value. What is bound here (numbers and short text) always can be.
fn bind<'a, T>(arguments: &mut SqliteArguments, value: T) -> Result<(), ReadError>
where
    T: sqlx::Encode<'a, Sqlite> + sqlx::Type<Sqlite>,
{
    use sqlx::Arguments as _;
    arguments
        .add(value)
        .map_err(|error| ReadError::Sql(sqlx::Error::Encode(error)))
}

/// The version of SQLite that is linked, such as `3.51.3`.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

#[cfg(test)]
mod plans;
#[cfg(test)]
mod tests;
