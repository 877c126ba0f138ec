//! Creates indexes that tables lack. A new version of a plugin may require them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use lantern_lifecycle::Lifecycle;
use lantern_store::{IndexStep, Store};

/// Interval of the search for missing indexes.
const INTERVAL: Duration = Duration::from_secs(60);

/// Pause between two indexes, in which the writer stores the waiting messages.
const PAUSE: Duration = Duration::from_secs(2);

/// Creates missing indexes, one at a time, until `stop`.
pub(super) async fn run(store: Arc<Store>, lifecycle: Lifecycle, stop: CancellationToken) {
    let mut reported = Vec::new();
    loop {
        let pause = if lifecycle.does_jobs() {
            create_next(&store, &mut reported).await
        } else {
            INTERVAL
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Creates one missing index, and returns the time until the next attempt. Logs each table in `reported` only once.
async fn create_next(store: &Store, reported: &mut Vec<String>) -> Duration {
    match store.maintenance().add_missing_index().await {
        Ok(IndexStep::Made { table, columns, took }) => {
            let columns = columns.join(", ");
            let took_ms = took.as_millis();
            tracing::info!(table, columns, took_ms, "created an index; other writes waited");
            PAUSE
        }
        Ok(IndexStep::Left(tables)) => {
            for table in tables.iter().filter(|table| !reported.contains(*table)) {
                tracing::warn!(
                    table,
                    "the table lacks facet indexes and is too large to create them now; queries are slow until \
                     `lantern rebuild` of its plugin"
                );
            }
            *reported = tables;
            INTERVAL
        }
        Err(error) => {
            tracing::warn!(%error, "failed to check for missing indexes; will retry");
            INTERVAL
        }
    }
}
