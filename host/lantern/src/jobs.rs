//! Background jobs of a running host, each in its own file: retention of rows, missing indexes, full-text
//! indexes, a replaced database file, count of reconnections.
//! `app` starts and stops them together.

mod database_file;
mod indexes;
mod reconnects;
mod retention;
mod search;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use lantern_broker::Broker;
use lantern_lifecycle::Lifecycle;
use lantern_store::Store;
use lantern_telemetry::Metrics;

/// The tasks of the jobs.
pub(crate) struct Jobs {
    tasks: JoinSet<()>,
}

impl Jobs {
    /// Starts all jobs. They end with `stop`, or with [`Jobs::stop`].
    pub(crate) fn start(
        store: &Arc<Store>,
        lifecycle: &Lifecycle,
        broker: &Broker,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(retention::run(
            Arc::clone(store),
            lifecycle.clone(),
            stop.child_token(),
        ));
        tasks.spawn(indexes::run(
            Arc::clone(store),
            lifecycle.clone(),
            stop.child_token(),
        ));
        tasks.spawn(search::run(Arc::clone(store), stop.child_token()));
        tasks.spawn(database_file::run(Arc::clone(store)));
        tasks.spawn(reconnects::run(broker.clone(), metrics.clone()));
        Self { tasks }
    }

    /// Stops all jobs and waits until they have released the store.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}
