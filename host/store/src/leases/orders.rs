//! What the host tells the thread of its leases.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

/// What the host reports with the next renewal.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub(super) ready: BTreeSet<String>,
    pub(super) report: String,
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            ready: BTreeSet::new(),
            report: "[]".to_owned(),
        }
    }
}

/// What the keeper does between two rounds.
pub(super) enum Order {
    /// Releases a lease.
    Release(String, oneshot::Sender<()>),
    /// Begins a round at once.
    Round,
    /// Releases all leases, removes the host and ends.
    Drain(oneshot::Sender<()>),
}
