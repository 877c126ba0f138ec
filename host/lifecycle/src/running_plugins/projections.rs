//! The tasks of projections: start and end.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Parts;
use lantern_projection::{CommitHold, DesiredState, Projection, Purpose};

/// A projection's task.
pub(super) struct ProjectionTask {
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

/// A projection that ends after the batch in hand.
pub(super) struct EndedProjection {
    pub(super) plugin: String,
    pub(super) source: String,
    pub(super) task: JoinHandle<()>,
    /// Whether its status disappears when it has ended.
    pub(super) unlist: bool,
}

/// Ends projections after the batch in hand. Does not wait for them.
pub(super) fn end(
    plugin: &str,
    sources: BTreeMap<String, ProjectionTask>,
    unlist: bool,
) -> Vec<EndedProjection> {
    let ended = sources
        .into_iter()
        .map(|(source, ProjectionTask { stop, task })| {
            stop.cancel();
            EndedProjection {
                plugin: plugin.to_owned(),
                source,
                task,
                unlist,
            }
        });
    ended.collect()
}

/// Starts the projection of one source and lists its status.
pub(super) fn spawn(
    parts: &Parts,
    stop: &CancellationToken,
    (desired, hold): (&watch::Sender<DesiredState>, &CommitHold),
    source: &str,
) -> ProjectionTask {
    let (projection, status) = Projection::new(
        parts.broker.clone(),
        Arc::clone(&parts.store),
        desired.subscribe(),
        source,
        Purpose::Live,
        parts.config.projections.clone(),
        parts.metrics.clone(),
    );
    parts.registry.add(status);
    let stop = stop.child_token();
    let projection = projection.with_hold(hold.clone());
    let task = tokio::spawn(projection.run(stop.clone()));
    ProjectionTask { stop, task }
}
