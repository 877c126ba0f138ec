//! Periodic work on tables: removing expired rows, and creating missing indexes. Each step is bounded, so that a commit
//! that waits for it is not noticeably delayed; an index is the exception, which `indexes` bounds by the size of a table.

use std::time::Instant;

use crate::sql::{Connection, OptionalExtension as _, params};

use super::indexes::{self, IndexStep};
use super::segments::{SEGMENT_BITS, Touched};
use super::values::to_sql;
use super::{CommitError, Store, statement};
use lantern_model::batch::Timestamp;
use lantern_model::schema::Table;

/// Periodic work on tables.
#[derive(Clone, Copy)]
pub struct Maintenance<'a>(&'a Store);

impl Store {
    /// Periodic work on tables.
    pub fn maintenance(&self) -> Maintenance<'_> {
        Maintenance(self)
    }
}

impl Maintenance<'_> {
    /// Removes rows that are older than the retention of their table, a bounded number. Returns how many.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn expire(self, table: Table, now: Timestamp) -> Result<u64, CommitError> {
        self.0
            .step(move |connection| expire(connection, &table, now))
            .await
    }

    /// The time to which retention has advanced. In a database without one it is the time of the newest message; without
    /// messages it is `now`.
    ///
    /// # Errors
    /// As for [`Maintenance::expire`].
    pub async fn retention_time(self, now: Timestamp) -> Result<Timestamp, CommitError> {
        self.0
            .call(move |connection| retention_time(connection, now))
            .await
    }

    /// Stores the time to which retention has advanced.
    ///
    /// # Errors
    /// As for [`Maintenance::expire`].
    pub async fn set_retention_time(self, at: Timestamp) -> Result<(), CommitError> {
        const SQL: &str = "INSERT INTO _lantern_host (key, value) VALUES (?1, ?2)
            ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.0
            .call(move |connection| {
                let stored = connection.execute(SQL, params![RETENTION_TIME, at.0.to_string()]);
                stored.map(|_| ())
            })
            .await
    }

    /// Creates one of the indexes that tables should have and do not.
    ///
    /// # Errors
    /// As for [`Maintenance::expire`].
    pub async fn add_missing_index(self) -> Result<IndexStep, CommitError> {
        let (missing, too_large) = self.0.reader().missing_index().await?;
        let Some(missing) = missing else {
            return Ok(IndexStep::Left(too_large));
        };
        self.0
            .call(move |connection| {
                let began = Instant::now();
                if !indexes::create(connection, &missing)? {
                    return Ok(IndexStep::Left(too_large));
                }
                Ok(IndexStep::Made {
                    table: missing.table,
                    columns: missing.columns,
                    took: began.elapsed(),
                })
            })
            .await
    }
}

/// Key of the time to which retention has advanced, in microseconds since 1970.
const RETENTION_TIME: &str = "retention_time";

fn retention_time(connection: &Connection, now: Timestamp) -> Result<Timestamp, crate::sql::Error> {
    let stored: Option<String> = connection
        .query_row(
            "SELECT value FROM _lantern_host WHERE key = ?1",
            [RETENTION_TIME],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(time) = stored.and_then(|text| text.parse().ok()) {
        return Ok(Timestamp(time));
    }
    let newest_ns: Option<i64> = connection.query_row(
        "SELECT max(published_ns) FROM _lantern_checkpoint WHERE published_ns > 0",
        params![],
        |row| row.get(0),
    )?;
    Ok(newest_ns.map_or(now, |time| Timestamp(time / 1_000)))
}

/// Rows that one transaction removes: few enough that a waiting commit is not noticeably delayed.
const EXPIRE_ROWS: i64 = 500;

/// Fewer than [`EXPIRE_ROWS`] removed rows mean that nothing is left to remove.
fn expire(connection: &mut Connection, table: &Table, now: Timestamp) -> Result<u64, crate::sql::Error> {
    const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
    let (Some(days), Some(time)) = (table.retention_days, table.time_column()) else {
        return Ok(0);
    };
    let before = now.0.saturating_sub(i64::from(days).saturating_mul(DAY_US));
    let name = statement::quote(&table.name);
    let time = statement::quote(&time.name);
    let transaction = connection.begin()?;
    let segments = transaction
        .prepare_cached(&format!(
            "DELETE FROM {name} WHERE _rowid_ IN (SELECT _rowid_ FROM {name} WHERE {time} < ?1 LIMIT {EXPIRE_ROWS})
             RETURNING _rowid_ >> {SEGMENT_BITS}"
        ))?
        .query_map([before], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    let removed = segments.len() as u64;
    if removed > 0 {
        let mut touched = Touched::default();
        touched.add(table.name.as_str(), segments);
        touched.refresh(&transaction)?;
        transaction.execute(
            "UPDATE _lantern_table SET rows_expired = rows_expired + ?2 WHERE name = ?1",
            params![table.name.as_str(), to_sql(removed)],
        )?;
    }
    transaction.commit()?;
    Ok(removed)
}
