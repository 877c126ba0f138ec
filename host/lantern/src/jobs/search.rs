//! Keeps the full-text indexes of tables up to date with their rows. Each step is a short transaction, and a pause as long as
//! the step follows it, so that live batches get at least half of the writer's time.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use lantern_store::{IndexerState, IndexingStep, Store};

/// Time in which rows gather for a step, because a step has fixed costs. Searches read the gathered rows one by one.
const GATHER: Duration = Duration::from_millis(250);

/// Pause after a step that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Indexes rows until `stop`.
pub(super) async fn run(store: Arc<Store>, stop: CancellationToken) {
    let mut state = IndexerState::default();
    let mut commits = store.commits();
    loop {
        commits.mark_unchanged();
        let pause = match store.search().step(&mut state).await {
            Ok(IndexingStep::Worked { took }) => took,
            Ok(IndexingStep::Idle) => {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = commits.changed() => if changed.is_err() { return },
                }
                GATHER
            }
            Err(error) => {
                tracing::warn!(%error, "failed to update a full-text index; will retry");
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
