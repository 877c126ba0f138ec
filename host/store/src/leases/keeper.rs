//! The thread that renews and claims the leases of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::held::Held;
use super::orders::{Inputs, Order};
use super::statements::{self, LEASE_TIME};
use super::view::{LeaseView, NodeConfig};
use crate::location::Server;
use crate::sql::{Connection, Error};

/// The lease of the jobs on tables, of which one host is enough.
pub const JOBS_LEASE: &str = "#jobs";
/// The lease of the plugin directory: the hosts may have different files.
pub const PLUGIN_DIRECTORY_LEASE: &str = "#plugin-directory";

/// Rounds between two removals of hosts that ended long ago.
const ROUNDS_UNTIL_REMOVAL: u64 = 1_000;

/// Interval of renewals and claims.
const ROUND_TIME: Duration = Duration::from_millis(500);
/// A host gives up its leases this long before other hosts may claim them.
const SAFETY_MARGIN: Duration = Duration::from_millis(750);

/// The started thread.
pub(super) struct Started {
    pub(super) view: watch::Receiver<LeaseView>,
    pub(super) orders: Sender<Order>,
    /// How the first round ended.
    pub(super) first_round: oneshot::Receiver<Result<(), String>>,
}

pub(super) struct Keeper {
    server: Server,
    node: NodeConfig,
    held: Held,
    runtime: Handle,
    connection: Option<Connection>,
    inputs: Arc<Mutex<Inputs>>,
    published: watch::Sender<LeaseView>,
    rounds: u64,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The reason of the operating system.
    pub(super) fn start(
        server: Server,
        node: NodeConfig,
        held: Held,
        inputs: Arc<Mutex<Inputs>>,
    ) -> Result<Started, String> {
        let first = LeaseView {
            me: node.id.clone(),
            ..LeaseView::default()
        };
        let (published, view) = watch::channel(first);
        let (orders, received) = std::sync::mpsc::channel();
        // Nothing is held before the first round.
        held.set(&node.id, BTreeMap::new());
        let keeper = Self {
            server,
            node,
            held,
            runtime: Handle::current(),
            connection: None,
            inputs,
            published,
            rounds: 0,
        };
        let (answer, first_round) = oneshot::channel();
        std::thread::Builder::new()
            .name("leases".to_owned())
            .spawn(move || keeper.run(&received, answer))
            .map_err(|error| format!("cannot start the thread of the leases: {error}"))?;
        Ok(Started {
            view,
            orders,
            first_round,
        })
    }

    fn run(mut self, orders: &Receiver<Order>, first: oneshot::Sender<Result<(), String>>) {
        let mut first = Some(first);
        loop {
            let began = Instant::now();
            let round = self.round(began);
            if let Some(first) = first.take() {
                drop(first.send(round.as_ref().map(|_| ()).map_err(ToString::to_string)));
            }
            self.publish(round);
            if !self.wait(orders, began + ROUND_TIME) {
                return;
            }
        }
    }

    /// Waits for the next round, or for an order, which it carries out. False at the end.
    fn wait(&mut self, orders: &Receiver<Order>, until: Instant) -> bool {
        match orders.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Order::Release(subject, done)) => {
                self.release(&subject);
                answer(done);
                true
            }
            Ok(Order::Drain(done)) => {
                self.drain();
                answer(done);
                false
            }
            Ok(Order::Round) | Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }

    /// Renews the leases, claims free ones, and returns the state afterwards.
    fn round(&mut self, began: Instant) -> Result<LeaseView, Error> {
        if self.connection.as_ref().is_none_or(Connection::is_over) {
            self.connection = None;
            let session = self.server.open_keeper(&self.runtime)?;
            let mut connection = Connection::Postgres(session);
            statements::register(&mut connection, &self.node)?;
            self.connection = Some(connection);
        }
        let Some(connection) = &mut self.connection else {
            return Err(Error::Aborted);
        };
        let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !statements::renew(connection, &self.node.id, &inputs)? {
            // Leases that no other host claimed are still those of this host.
            statements::register(connection, &self.node)?;
        }
        let mut view = statements::read(connection, &self.node.id)?;
        for subject in inputs
            .ready
            .iter()
            .map(String::as_str)
            .chain([JOBS_LEASE, PLUGIN_DIRECTORY_LEASE])
        {
            if !view.leases.contains_key(subject) {
                statements::add(connection, subject)?;
                view.leases = statements::read(connection, &self.node.id)?.leases;
            }
        }
        let ready = &inputs.ready;
        if let Some(me) = view.nodes.get_mut(&self.node.id) {
            me.ready.clone_from(ready);
        }
        let has_released = release_lost(connection, &view, ready)?;
        if claim_all(connection, &view)? || has_released {
            view = statements::read(connection, &self.node.id)?;
        }
        self.rounds += 1;
        if self.rounds.is_multiple_of(ROUNDS_UNTIL_REMOVAL) {
            statements::remove_dead(connection)?;
        }
        view.trusted_until = Some(began + LEASE_TIME - SAFETY_MARGIN);
        Ok(view)
    }

    /// Publishes what a round found. After an error the previous view remains, and its leases until they can no longer be
    /// trusted.
    fn publish(&mut self, round: Result<LeaseView, Error>) {
        match round {
            Ok(view) => {
                let held = view.leases.keys().filter_map(|subject| {
                    let term = view.held(subject)?;
                    Some((subject.clone(), term))
                });
                self.held.set(&self.node.id, held.collect());
                if self.published.borrow().problem.is_some() {
                    tracing::info!("the leases can be renewed again");
                }
                self.published.send_replace(view);
            }
            Err(error) => {
                let reason = error.to_string();
                self.connection = None;
                self.published.send_modify(|view| {
                    if view.problem.is_none() {
                        tracing::warn!(reason, "the leases cannot be renewed");
                    }
                    view.problem = Some(reason);
                });
            }
        }
    }

    fn release(&mut self, subject: &str) {
        let term = self.published.borrow().held(subject);
        let (Some(term), Some(connection)) = (term, &self.connection) else {
            return;
        };
        if let Err(error) = statements::release(connection, subject, &self.node.id, term) {
            tracing::warn!(subject, %error, "a lease was not released; it expires");
        }
    }

    fn drain(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Err(error) = statements::remove(connection, &self.node.id) {
            tracing::warn!(%error, "the leases were not released; they expire");
        }
        self.held.set(&self.node.id, BTreeMap::new());
    }
}

/// Answers an order. Its sender may have gone away.
fn answer(done: oneshot::Sender<()>) {
    if done.send(()).is_err() {
        tracing::debug!("nobody waits for an order to the leases");
    }
}

/// Releases the leases of plugins that this host can no longer run. Whether it released any.
fn release_lost(connection: &Connection, view: &LeaseView, ready: &BTreeSet<String>) -> Result<bool, Error> {
    let mut has_released = false;
    for (subject, lease) in &view.leases {
        let is_mine = lease.node.as_deref() == Some(&view.me);
        if is_mine && !subject.starts_with('#') && !ready.contains(subject) {
            statements::release(connection, subject, &view.me, lease.term)?;
            tracing::info!(
                subject,
                "released the lease of a plugin that this host does not run"
            );
            has_released = true;
        }
    }
    Ok(has_released)
}

/// Claims the leases that no living host holds and whose first choice is this host. Whether it claimed any.
fn claim_all(connection: &Connection, view: &LeaseView) -> Result<bool, Error> {
    let mut has_claimed = false;
    for (subject, lease) in &view.leases {
        let is_free = view.owner(subject).is_none();
        let is_mine = view
            .first_choice(subject)
            .is_some_and(|choice| choice.id == view.me);
        if !is_free || !is_mine {
            continue;
        }
        if let Some(before) = lease.node.as_ref().filter(|before| **before != view.me) {
            statements::terminate(connection, before)?;
        }
        if let Some(term) = statements::claim(connection, subject, &view.me)? {
            tracing::info!(subject, term, before = lease.node, "claimed a lease");
            has_claimed = true;
        }
    }
    Ok(has_claimed)
}
