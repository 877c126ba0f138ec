//! The loop of Lantern's predecessors: one message, one autocommit insert through a pool, one explicit acknowledgement.

use std::time::Instant;

use async_nats::jetstream::{self, consumer::pull};
use futures_util::StreamExt;
use serde::Deserialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::events::runtime;
use crate::nats::NatsServer;

#[derive(Deserialize)]
struct ObsEvent {
    pc_id: String,
    at: chrono::DateTime<chrono::Utc>,
    kind: String,
    source: String,
    event_record_id: Option<String>,
    payload: serde_json::Value,
}

/// Returns rows per second for the first `count` events of the stream.
pub fn run(server: &NatsServer, count: usize) -> anyhow::Result<f64> {
    let dir = tempfile::tempdir()?;
    runtime()?.block_on(async {
        let options = SqliteConnectOptions::new()
            .filename(dir.path().join("seeds.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal);
        let pool = SqlitePoolOptions::new().connect_with(options).await?;
        sqlx::raw_sql(
            "CREATE TABLE obs_events (id INTEGER PRIMARY KEY, pc_id TEXT NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
                source TEXT NOT NULL, event_record_id TEXT, payload TEXT NOT NULL,
                UNIQUE (pc_id, source, event_record_id));
             CREATE INDEX obs_events_at ON obs_events (at);
             CREATE INDEX obs_events_pc_at ON obs_events (pc_id, at);",
        )
        .execute(&pool)
        .await?;
        let context = jetstream::new(async_nats::connect(server.url()).await?);
        let stream = context.get_stream("OBS_EVENTS").await?;
        let config = pull::Config {
            durable_name: Some("seeds".to_owned()),
            ack_policy: jetstream::consumer::AckPolicy::Explicit,
            filter_subject: "obs.>".to_owned(),
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer("seeds", config).await?;
        let mut messages = consumer.messages().await?.take(count);
        let began = Instant::now();
        while let Some(message) = messages.next().await {
            let message = message?;
            let event: ObsEvent = serde_json::from_slice(&message.payload)?;
            sqlx::query(
                "INSERT OR IGNORE INTO obs_events (pc_id, at, kind, source, event_record_id, payload)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(&event.pc_id)
            .bind(event.at.to_rfc3339())
            .bind(&event.kind)
            .bind(&event.source)
            .bind(&event.event_record_id)
            .bind(event.payload.to_string())
            .execute(&pool)
            .await?;
            message.ack().await.map_err(|error| anyhow::anyhow!("acknowledge: {error}"))?;
        }
        let rate = count as f64 / began.elapsed().as_secs_f64();
        stream.delete_consumer("seeds").await?;
        Ok(rate)
    })
}
