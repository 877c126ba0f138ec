//! Deletes rows that are older than the retention of their tables, and tables that a rebuild has replaced.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use lantern_lifecycle::Lifecycle;
use lantern_model::batch::Timestamp;
use lantern_model::schema::Table;
use lantern_store::Store;

/// Interval of the search for expired rows.
const INTERVAL: Duration = Duration::from_secs(60);

/// Deletes expired rows at each interval until `stop`.
pub(super) async fn run(store: Arc<Store>, lifecycle: Lifecycle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if !lifecycle.does_jobs() {
            continue;
        }
        lifecycle.remove_old_tables();
        for table in &lifecycle.expiring_tables() {
            expire_rows(&store, table, &stop).await;
        }
    }
}

/// Deletes the expired rows of a table in small steps, so that other writes do not wait.
async fn expire_rows(store: &Store, table: &Table, stop: &CancellationToken) {
    let mut removed = 0;
    while !stop.is_cancelled() {
        match store.maintenance().expire(table.clone(), Timestamp::now()).await {
            Ok(0) => break,
            Ok(rows) => removed += rows,
            Err(error) => {
                tracing::warn!(table = %table.name, %error, "failed to remove expired rows; will retry");
                break;
            }
        }
    }
    if removed > 0 {
        tracing::info!(table = %table.name, rows = removed, "removed expired rows");
    }
}
