//! The raw speed of SQLite with the same rows: the upper bound for the pipeline. Decodes the rows before the clock
//! starts; uses the schema, the statement and the pragmas of the store.

use std::time::Instant;

use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, QueryBuilder, Sqlite};

use crate::events::{Events, runtime};
use crate::native;

/// Rows per transaction.
const TRANSACTION: usize = 10_000;
/// Rows per statement with sqlx.
const STATEMENT: usize = 500;

#[derive(Deserialize)]
struct Wire<'a> {
    pc_id: String,
    at: chrono::DateTime<chrono::Utc>,
    kind: String,
    source: String,
    event_record_id: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

struct Row {
    pc_id: String,
    at: i64,
    kind: String,
    source: String,
    event_record_id: Option<String>,
    payload: String,
}

fn decode(events: &Events) -> anyhow::Result<Vec<Row>> {
    events
        .messages
        .iter()
        .map(|(_, payload)| {
            let wire: Wire<'_> = serde_json::from_slice(payload)?;
            Ok(Row {
                pc_id: wire.pc_id,
                at: wire.at.timestamp_micros(),
                kind: wire.kind,
                source: wire.source,
                event_record_id: wire.event_record_id,
                payload: wire.payload.get().to_owned(),
            })
        })
        .collect()
}

const PRAGMAS: &str = "PRAGMA journal_mode = wal; PRAGMA synchronous = normal; PRAGMA foreign_keys = on;
    PRAGMA temp_store = memory; PRAGMA cache_size = -262144; PRAGMA wal_autocheckpoint = 10000;";

/// Returns rows per second through prepared statements.
pub fn run(events: &Events) -> anyhow::Result<f64> {
    let rows = decode(events)?;
    let dir = tempfile::tempdir()?;
    let connection = Connection::open(dir.path().join("raw.db"))?;
    connection.execute_batch(PRAGMAS)?;
    let (schema, insert) = native::statements()?;
    for statement in schema {
        connection.execute_batch(&statement)?;
    }
    let began = Instant::now();
    let mut statement = connection.prepare(&insert)?;
    for (part, rows) in (0_i64..).zip(rows.chunks(TRANSACTION)) {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for (number, row) in (1_i64..).zip(rows) {
            let sequence = part * TRANSACTION as i64 + number;
            statement.execute(params![
                1,
                sequence,
                0,
                row.pc_id,
                row.at,
                row.kind,
                row.source,
                row.event_record_id,
                row.payload
            ])?;
        }
        connection.execute_batch("COMMIT")?;
    }
    Ok(rows.len() as f64 / began.elapsed().as_secs_f64())
}

/// Returns rows per second through sqlx, with many rows per statement.
pub fn run_sqlx(events: &Events) -> anyhow::Result<f64> {
    let rows = decode(events)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("sqlx.db");
    let (schema, insert) = native::statements()?;
    let (head, tail) = insert.split_once("VALUES").unwrap_or((&insert, ""));
    let tail = tail.split_once(')').map_or("", |(_, conflict)| conflict);
    runtime()?.block_on(async {
        let mut connection = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .connect()
            .await?;
        for statement in PRAGMAS.split(';').map(str::to_owned).chain(schema) {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                .execute(&mut connection)
                .await?;
        }
        let began = Instant::now();
        let mut sequence = 0_i64;
        for rows in rows.chunks(TRANSACTION) {
            let mut transaction = sqlx::Connection::begin(&mut connection).await?;
            for rows in rows.chunks(STATEMENT) {
                let mut query = QueryBuilder::<Sqlite>::new(head);
                query.push_values(rows, |mut values, row| {
                    sequence += 1;
                    values
                        .push_bind(1_i64)
                        .push_bind(sequence)
                        .push_bind(0_i64)
                        .push_bind(&row.pc_id);
                    values
                        .push_bind(row.at)
                        .push_bind(&row.kind)
                        .push_bind(&row.source);
                    values.push_bind(&row.event_record_id).push_bind(&row.payload);
                });
                query.push(tail);
                query.build().execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
        Ok(rows.len() as f64 / began.elapsed().as_secs_f64())
    })
}
