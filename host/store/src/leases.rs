//! Leases of plugins, with which several hosts share one PostgreSQL database: a host runs a plugin while it holds its lease.
//!
//! Hosts claim leases, no host assigns them. A lease is valid while its host writes to its row of `_lantern_node` at least
//! every [`LEASE_TIME`], by the clock of the server. Each claim increases the term of the lease, and every batch locks the
//! lease's row and compares the term ([`Held::verify`]): a host that was stopped and does not know that it lost its lease
//! cannot write. The keeper is a thread with its own session, so that a long transaction of the writer delays no renewal.

mod held;
mod keeper;
mod orders;
mod statements;
mod view;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{oneshot, watch};

use super::{Location, Store};

pub(super) use held::Held;
use keeper::Keeper;
pub use keeper::{JOBS_LEASE, PLUGIN_DIRECTORY_LEASE};
use orders::{Inputs, Order};
pub use statements::LEASE_TIME;
pub use view::{Lease, LeaseView, Node, NodeConfig};

/// The leases of this host.
#[derive(Clone)]
pub struct Leases {
    view: watch::Receiver<LeaseView>,
    inputs: Arc<Mutex<Inputs>>,
    orders: std::sync::mpsc::Sender<Order>,
}

impl Leases {
    /// The hosts and leases; changes with every round.
    pub fn view(&self) -> watch::Receiver<LeaseView> {
        self.view.clone()
    }

    /// Sets the plugins whose active versions this host has loaded. It claims only their leases.
    pub fn set_ready(&self, ready: BTreeSet<String>) {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        if inputs.ready != ready {
            inputs.ready = ready;
            drop(self.orders.send(Order::Round));
        }
    }

    /// Sets the report for other hosts, a JSON array.
    pub fn set_report(&self, report: String) {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner).report = report;
    }

    /// Releases a lease, so that another host claims it. The caller has ended its work before.
    pub async fn release(&self, subject: &str) {
        let (done, released) = oneshot::channel();
        if self.orders.send(Order::Release(subject.to_owned(), done)).is_ok() {
            // The keeper has ended if it does not answer, and holds no lease.
            drop(released.await);
        }
    }

    /// Releases all leases and ends the keeper.
    pub async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        if self.orders.send(Order::Drain(done)).is_ok() {
            drop(drained.await);
        }
    }
}

impl Store {
    /// Begins to claim leases as one of several hosts of the database ([`super::StoreConfig::node`]). `None` for the only
    /// host. Returns after the first round.
    ///
    /// # Errors
    /// The reason, if the first round failed.
    pub async fn start_leases(&self) -> Result<Option<Leases>, String> {
        let (Location::Postgres(server), Some(node)) = (&self.location, &self.node) else {
            return Ok(None);
        };
        let inputs = Arc::new(Mutex::new(Inputs::default()));
        let started = Keeper::start(
            server.clone(),
            node.clone(),
            self.held.clone(),
            Arc::clone(&inputs),
        )?;
        let leases = Leases {
            view: started.view,
            inputs,
            orders: started.orders,
        };
        started
            .first_round
            .await
            .unwrap_or_else(|_| Err("the thread of the leases ended".to_owned()))?;
        Ok(Some(leases))
    }
}
