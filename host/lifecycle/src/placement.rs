//! Which plugins this host runs, if several hosts share the database.
//!
//! Every host loads every active version, so that it can take a plugin over without compiling. A host reads the sources of a
//! plugin while it holds the plugin's lease ([`lantern_store::Leases`]); the statuses that it shows for all other plugins are
//! those that their hosts report. An operation on a plugin runs on the host that holds its lease; the other hosts follow the
//! database (`reconcile`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lanes::Lane;
use super::{Inner, Lifecycle, LifecycleError};
use lantern_model::status::{ProjectionState, Status};
use lantern_projection::Placement;
use lantern_store::{JOBS_LEASE, LeaseView, Leases};

/// How long a host that has joined must have run before plugins move to it.
const JOINED_FOR: Duration = Duration::from_secs(15);
/// Time between two moves of plugins from this host to others.
const MOVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a move waits for an operation on its plugin.
const LANE_TIME: Duration = Duration::from_millis(50);
/// How long a move waits until the projections have ended their batches.
const MOVE_TIME: Duration = Duration::from_secs(1);

/// The placements of all plugins at one time.
#[derive(Clone, Default)]
pub(super) struct Placements {
    known: BTreeMap<String, Placement>,
}

impl Placements {
    /// The placement of a plugin. A plugin without a lease has not been claimed yet.
    pub(super) fn of(&self, plugin: &str) -> Placement {
        self.known
            .get(plugin)
            .cloned()
            .unwrap_or_else(|| elsewhere("no host has claimed the plugin yet"))
    }

    fn new(view: &LeaseView) -> Self {
        let mut reports = reports(view);
        let known = view.leases.keys().map(|plugin| {
            let placement = match (view.held(plugin), view.owner(plugin)) {
                (Some(term), owner) => Placement::Here {
                    term,
                    node: owner.map(|owner| owner.name.as_str().into()),
                },
                (None, Some(owner)) if owner.id != view.me => Placement::Elsewhere {
                    detail: format!("host {} runs the plugin", owner.name),
                    reports: Arc::new(reports.remove(plugin).unwrap_or_default()),
                },
                (None, Some(_)) => elsewhere("this host cannot renew its lease of the plugin"),
                (None, None) => elsewhere("no host has claimed the plugin yet"),
            };
            (plugin.clone(), placement)
        });
        Self {
            known: known.collect(),
        }
    }

    /// The same, with one plugin moved away.
    fn without(mut self, plugin: &str, to: &str) -> Self {
        self.known.insert(
            plugin.to_owned(),
            elsewhere(&format!("the plugin moves to host {to}")),
        );
        self
    }
}

fn elsewhere(detail: &str) -> Placement {
    Placement::Elsewhere {
        detail: detail.to_owned(),
        reports: Arc::default(),
    }
}

/// The reports of the other hosts, by plugin and source.
fn reports(view: &LeaseView) -> BTreeMap<String, BTreeMap<String, Status>> {
    let mut all: BTreeMap<String, BTreeMap<String, Status>> = BTreeMap::new();
    let others = view
        .nodes
        .values()
        .filter(|node| node.is_alive && node.id != view.me);
    for node in others {
        match serde_json::from_str::<Vec<Status>>(&node.report) {
            Ok(statuses) => {
                for status in statuses {
                    let sources = all.entry(status.plugin.clone()).or_default();
                    sources.insert(status.source.clone(), status);
                }
            }
            // A host of another version may report what this one does not know.
            Err(error) => tracing::debug!(node = node.name, %error, "the report of a host cannot be read"),
        }
    }
    all
}

/// Follows the leases until the host stops.
pub(super) async fn follow_leases(inner: Arc<Inner>, leases: Leases) {
    let mut view = leases.view();
    let mut moved_at: Option<Instant> = None;
    loop {
        let now = view.borrow_and_update().clone();
        inner.running.place(Arc::new(Placements::new(&now)));
        leases.set_report(inner.report(&now));
        if moved_at.is_none_or(|at| at.elapsed() >= MOVE_INTERVAL)
            && let Some(plugin) = inner.next_move(&now)
        {
            moved_at = Some(Instant::now());
            inner.move_away(&plugin, &leases).await;
        }
        // Leases that were not renewed end at this time.
        let end = now.trusted_until().map(Instant::from_std);
        tokio::select! {
            () = inner.stop.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
            () = until(end) => {}
        }
    }
}

/// Waits until a time in the future; for ever if there is none.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) if end > Instant::now() => tokio::time::sleep_until(end).await,
        _ => std::future::pending().await,
    }
}

/// Follows the changes that other hosts made to the installed plugins, until the host stops.
pub(super) async fn follow_catalog(inner: Arc<Inner>, leases: Leases) {
    let mut view = leases.view();
    let mut followed = None;
    loop {
        let catalog = view.borrow_and_update().catalog.clone();
        if followed.as_ref() != Some(&catalog) {
            match inner.reconcile().await {
                Ok(ready) => {
                    leases.set_ready(ready);
                    followed = Some(catalog);
                }
                Err(error) => tracing::warn!(%error, "failed to follow the changes of the installed plugins"),
            }
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

impl Lifecycle {
    /// Whether this host does the jobs on tables, of which one host of the database is enough.
    pub fn does_jobs(&self) -> bool {
        self.inner.runs_here(JOBS_LEASE)
    }

    /// The hosts of the database and their plugins; none if there is only this host.
    pub fn leases(&self) -> Option<LeaseView> {
        self.inner
            .parts
            .leases
            .as_ref()
            .map(|leases| leases.view().borrow().clone())
    }
}

impl Inner {
    /// The host that runs a plugin, if it is another one.
    ///
    /// # Errors
    /// [`LifecycleError::Elsewhere`].
    pub(super) fn require_here(&self, plugin: &str) -> Result<(), LifecycleError> {
        let Some(leases) = &self.parts.leases else {
            return Ok(());
        };
        let view = leases.view();
        let view = view.borrow();
        match view.owner(plugin) {
            Some(owner) if owner.id != view.me => Err(LifecycleError::Elsewhere {
                plugin: plugin.to_owned(),
                node: owner.name.clone(),
                url: owner.url.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// As [`Self::require_here`], for one plugin or for all.
    ///
    /// # Errors
    /// [`LifecycleError::Elsewhere`], and [`LifecycleError::Conflict`] if several hosts run the plugins.
    pub(super) fn require_all_here(&self, plugin: Option<&str>) -> Result<(), LifecycleError> {
        if let Some(plugin) = plugin {
            return self.require_here(plugin);
        }
        let elsewhere: Vec<String> = self
            .running
            .names()
            .into_iter()
            .filter(|plugin| self.require_here(plugin).is_err())
            .collect();
        if elsewhere.is_empty() {
            return Ok(());
        }
        Err(LifecycleError::Conflict(format!(
            "other hosts run the plugins {}; repeat the request for one plugin at a time",
            elsewhere.join(", ")
        )))
    }

    /// Waits until earlier operations on a plugin have ended.
    ///
    /// # Errors
    /// [`LifecycleError::Elsewhere`].
    pub(super) async fn enter(&self, plugin: &str) -> Result<Lane, LifecycleError> {
        let lane = self.operations.enter(plugin).await;
        self.require_here(plugin)?;
        Ok(lane)
    }

    /// Whether this host runs a plugin: it is the only host, or holds the lease.
    pub(super) fn runs_here(&self, plugin: &str) -> bool {
        let leases = self.parts.leases.as_ref();
        leases.is_none_or(|leases| leases.view().borrow().held(plugin).is_some())
    }

    /// The statuses of the sources that this host reads, as JSON.
    fn report(&self, view: &LeaseView) -> String {
        let mut statuses = self.parts.registry.snapshot();
        statuses.retain(|status| view.held(&status.plugin).is_some());
        serde_json::to_string(&statuses).unwrap_or_else(|error| {
            tracing::error!(%error, "the statuses cannot be reported to other hosts");
            "[]".to_owned()
        })
    }

    /// The plugin that should move to another host now: a host that joined gets its share, one plugin at a time.
    fn next_move(&self, view: &LeaseView) -> Option<String> {
        let now = lantern_model::batch::Timestamp::now().0;
        let joined_before =
            now.saturating_sub_unsigned(JOINED_FOR.as_micros().try_into().unwrap_or(u64::MAX));
        // Jobs stay: any host does them equally well.
        let plugins = view.leases.keys().filter(|subject| !subject.starts_with('#'));
        let mut moves = plugins.filter(|plugin| {
            view.destination(plugin)
                .is_some_and(|node| node.started_at < joined_before)
                && self.rebuilds.of(plugin).is_none()
        });
        moves.next().cloned()
    }

    /// Ends the work on a plugin and releases its lease. No operation on the plugin runs meanwhile; while one runs, the
    /// plugin stays, because the leases of all other plugins must be followed.
    async fn move_away(&self, plugin: &str, leases: &Leases) {
        let lane = tokio::time::timeout(LANE_TIME, self.operations.enter(plugin)).await;
        let Ok(_lane) = lane else {
            return;
        };
        let view = leases.view().borrow().clone();
        let Some(to) = view.destination(plugin).map(|node| node.name.clone()) else {
            return;
        };
        tracing::info!(plugin, to, "moving a plugin to another host");
        self.running
            .place(Arc::new(Placements::new(&view).without(plugin, &to)));
        let ended = async {
            while self.is_reading(plugin) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(MOVE_TIME, ended).await.is_err() {
            // Its batches are rejected from now on.
            tracing::warn!(plugin, "the projections of a moving plugin did not end in time");
        }
        leases.release(plugin).await;
    }

    fn is_reading(&self, plugin: &str) -> bool {
        let statuses = self.parts.registry.snapshot();
        statuses
            .iter()
            .any(|status| status.plugin == plugin && status.state != ProjectionState::Standby)
    }
}

/// The plugins whose active versions this host has loaded.
pub(super) type Ready = BTreeSet<String>;
