//! The raw speed of SQLite with the same rows: the upper bound for the pipeline. Decodes the rows before the clock
//! starts; uses the pragmas of the store, except that pages have SQLite's default size, which is the fastest here. There are two
//! schemas: what the store creates, and only what the plugin declares.

use std::time::Instant;

use lantern_store::Engine;
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, QueryBuilder, Sqlite};

use crate::cpu::CpuTimes;
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

/// An event as a row.
pub struct Row {
    pub pc_id: String,
    pub at: i64,
    pub kind: String,
    pub source: String,
    pub event_record_id: Option<String>,
    pub payload: String,
}

/// Decodes the rows of the events.
pub fn decode(events: &Events) -> anyhow::Result<Vec<Row>> {
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

/// What a run through prepared statements took.
#[derive(Clone, Copy, Default)]
pub struct Run {
    /// Rows per second.
    pub rate: f64,
    /// Microseconds of CPU time per row, of the thread that writes.
    pub cpu_per_row: f64,
    /// Microseconds of CPU time per row of every part of the pipeline; zero for a program without one.
    pub pipeline: CpuTimes,
    /// Size of the database per row, in bytes, after a checkpoint.
    pub bytes_per_row: f64,
}

/// Writes the rows through prepared statements with the schema that the store creates.
pub fn run(events: &Events) -> anyhow::Result<Run> {
    let (schema, insert) = native::statements(Engine::Sqlite)?;
    write(events, &schema, &insert, true)
}

/// Writes the rows as a program written by hand: only the columns and indexes that the plugin declares.
pub fn run_declared(events: &Events) -> anyhow::Result<Run> {
    write(events, &DECLARED.map(str::to_owned), DECLARED_INSERT, false)
}

/// The declaration of the `obs-events` plugin as SQL, without a column or an index of the host.
const DECLARED: [&str; 4] = [
    "CREATE TABLE obs_events (pc_id TEXT NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL, source TEXT NOT NULL,
         event_record_id TEXT, payload TEXT NOT NULL) STRICT",
    "CREATE UNIQUE INDEX obs_events__key ON obs_events (pc_id, source, event_record_id)",
    "CREATE INDEX obs_events__at ON obs_events (at)",
    "CREATE INDEX obs_events__pc_id__at ON obs_events (pc_id, at)",
];
const DECLARED_INSERT: &str = "INSERT INTO obs_events (pc_id, at, kind, source, event_record_id, payload)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (pc_id, source, event_record_id) DO NOTHING";

fn write(events: &Events, schema: &[String], insert: &str, stamped: bool) -> anyhow::Result<Run> {
    let rows = decode(events)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("raw.db");
    let connection = Connection::open(&path)?;
    connection.execute_batch(PRAGMAS)?;
    for statement in schema {
        connection.execute_batch(statement)?;
    }
    let (began, cpu) = (Instant::now(), thread_time());
    let mut statement = connection.prepare(insert)?;
    let first = if stamped { 4 } else { 1 };
    for (part, rows) in (0_i64..).zip(rows.chunks(TRANSACTION)) {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for (number, row) in (1_i64..).zip(rows) {
            if stamped {
                statement.raw_bind_parameter(1, 1)?;
                statement.raw_bind_parameter(2, part * TRANSACTION as i64 + number)?;
                statement.raw_bind_parameter(3, 0)?;
            }
            statement.raw_bind_parameter(first, &row.pc_id)?;
            statement.raw_bind_parameter(first + 1, row.at)?;
            statement.raw_bind_parameter(first + 2, &row.kind)?;
            statement.raw_bind_parameter(first + 3, &row.source)?;
            statement.raw_bind_parameter(first + 4, &row.event_record_id)?;
            statement.raw_bind_parameter(first + 5, &row.payload)?;
            statement.raw_execute()?;
        }
        connection.execute_batch("COMMIT")?;
    }
    let (took, cpu) = (began.elapsed(), thread_time() - cpu);
    drop(statement);
    drop(connection);
    let count = rows.len() as f64;
    Ok(Run {
        rate: count / took.as_secs_f64(),
        cpu_per_row: cpu * 1e6 / count,
        pipeline: CpuTimes::default(),
        bytes_per_row: std::fs::metadata(&path)?.len() as f64 / count,
    })
}

/// The CPU time of this thread in seconds.
fn thread_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Returns rows per second through sqlx, with many rows per statement.
pub fn run_sqlx(events: &Events) -> anyhow::Result<f64> {
    let rows = decode(events)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("sqlx.db");
    let (schema, insert) = native::statements(Engine::Sqlite)?;
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
