//! Detects that the database's file was deleted or replaced while the host has nothing to write.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use lantern_store::Store;

/// How often the file is compared. The writer opens the present file after two equal results, so that an operator can
/// delete a file and put another one in its place.
const EVERY: Duration = Duration::from_secs(2);

/// Compares until it is cancelled.
pub(super) async fn run(store: Arc<Store>) {
    let file = store.file();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Ok(());
    loop {
        ticks.tick().await;
        let now = file.check();
        if now.is_err() && now == before {
            // The health of the database reports the error.
            if let Err(error) = store.reopen_replaced().await {
                tracing::debug!(%error, "failed to open the database again");
            }
        }
        before = now;
    }
}
