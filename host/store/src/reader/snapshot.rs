//! Several statements on one state of the database, within the time of one read. The queries of segmented tables need
//! it: a plan that was made from summaries holds only for the rows that they summarize.

use std::time::{Duration, Instant};

use crate::sql::Connection;
use rusqlite::types::Value;

use super::connections::{QueryError, Row};
use super::{ReadError, Reader};

/// One state of the database.
pub(super) struct Snapshot<'a> {
    connection: &'a Connection,
    /// A result ends after the row that exceeds this.
    pub(super) page_bytes: usize,
    time: Duration,
    began: Instant,
}

/// Why a function on a snapshot failed.
enum SnapshotError {
    Read(ReadError),
    Sql(crate::sql::Error),
}

impl From<crate::sql::Error> for SnapshotError {
    fn from(error: crate::sql::Error) -> Self {
        Self::Sql(error)
    }
}

impl Reader {
    /// Runs a function on one state of the database, within the time of one read.
    pub(super) async fn timed_snapshot<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let limits = self.limits;
        let work = move |connection: &Connection| {
            let snapshot = Snapshot::new(connection, limits.time, limits.page_bytes);
            work(&snapshot).map_err(SnapshotError::Read)
        };
        let result = self.connections.snapshot(Some(limits.time), work).await;
        match result.map_err(|error| self.error(error))? {
            Ok(value) => Ok(value),
            Err(SnapshotError::Sql(error) | SnapshotError::Read(ReadError::Sql(error))) => {
                Err(self.error(QueryError::Sql(error)))
            }
            Err(SnapshotError::Read(error)) => Err(error),
        }
    }
}

impl<'a> Snapshot<'a> {
    pub(super) fn new(connection: &'a Connection, time: Duration, page_bytes: usize) -> Self {
        Self {
            connection,
            page_bytes,
            time,
            began: Instant::now(),
        }
    }

    /// Runs one statement and passes each row to `read`, which returns an item and its size in bytes.
    pub(super) fn fetch_sized<T>(
        &self,
        sql: &str,
        arguments: Vec<Value>,
        rows_max: usize,
        mut read: impl FnMut(&mut Row) -> Result<(T, usize), ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(ReadError::Sql)?;
        let columns = statement.column_count();
        let mut rows = statement
            .query(crate::sql::from_iter(arguments))
            .map_err(ReadError::Sql)?;
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < rows_max && bytes < self.page_bytes {
            let Some(row) = rows.next().map_err(ReadError::Sql)? else {
                break;
            };
            let (item, size) = read(&mut Row::read(&row, columns).map_err(ReadError::Sql)?)?;
            items.push(item);
            bytes += size;
        }
        Ok(items)
    }

    /// Runs one statement and passes each row to `read`, without a copy of its values.
    pub(super) fn for_each(
        &self,
        sql: &str,
        arguments: Vec<Value>,
        mut read: impl FnMut(&crate::sql::Row<'_>) -> Result<(), crate::sql::Error>,
    ) -> Result<(), ReadError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(ReadError::Sql)?;
        let mut rows = statement
            .query(crate::sql::from_iter(arguments))
            .map_err(ReadError::Sql)?;
        while let Some(row) = rows.next().map_err(ReadError::Sql)? {
            read(&row).map_err(ReadError::Sql)?;
        }
        Ok(())
    }

    /// Runs a function of another module on this state.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, crate::sql::Error>,
    ) -> Result<T, ReadError> {
        read(self.connection).map_err(ReadError::Sql)
    }

    /// The integer that one statement returns; zero without a row.
    pub(super) fn number(&self, sql: &str, arguments: Vec<Value>) -> Result<i64, ReadError> {
        let mut number = 0;
        self.for_each(sql, arguments, |row| {
            number = row.get(0)?;
            Ok(())
        })?;
        Ok(number)
    }

    /// Whether half of the time of the read has passed. A page of rows then ends early, and the next request continues.
    pub(super) fn is_half_over(&self) -> bool {
        self.began.elapsed() >= self.time / 2
    }

    /// The error of a read that is certain to exceed its time, before it begins.
    pub(super) fn too_long(&self) -> ReadError {
        ReadError::TimeLimit { time: self.time }
    }
}
