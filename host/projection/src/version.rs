//! The desired state of a projection: which version of its plugin to run, with which settings, and whether it is
//! paused. The owner of the running plugins assigns it; the projection applies it between two batches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::Projection;
use lantern_model::schema::Source;
use lantern_model::settings::PluginSettings;
use lantern_model::status::Status;
use lantern_plugin::{Plugin, Projected, Projector};
use lantern_store::{OriginId, RebuildId};

/// A loaded version of a plugin. The projections of its sources share it and count their messages in it.
pub struct LoadedVersion {
    plugin: Arc<Plugin>,
    projectors: Box<dyn Fn() -> Projector + Send + Sync>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    messages: AtomicU64,
    rejected: AtomicU64,
    faults: AtomicU64,
    projected: AtomicU64,
    busy_us: AtomicU64,
    memory_peak_bytes: AtomicU64,
    /// Why the broker refuses the consumer of a source, by source.
    refused_consumers: Mutex<BTreeMap<String, String>>,
}

/// Counters of a version since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionCounters {
    /// Messages that were committed.
    pub messages: u64,
    /// Committed messages that became dead letters.
    pub rejected: u64,
    /// Failed calls: traps, timeouts, unreadable answers.
    pub faults: u64,
    /// Messages passed to the plugin, including those that are not committed yet.
    pub projected: u64,
    /// Time of these calls, in microseconds.
    pub busy_us: u64,
    /// The largest linear memory of one of its instances, in bytes.
    pub memory_peak_bytes: u64,
}

impl VersionCounters {
    /// The messages and failures since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: &Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(earlier.messages),
            rejected: self.rejected.saturating_sub(earlier.rejected),
            faults: self.faults.saturating_sub(earlier.faults),
            projected: self.projected.saturating_sub(earlier.projected),
            busy_us: self.busy_us.saturating_sub(earlier.busy_us),
            memory_peak_bytes: self.memory_peak_bytes,
        }
    }
}

impl LoadedVersion {
    /// A newly loaded version, with all counters at zero.
    pub fn new(plugin: Arc<Plugin>) -> Self {
        let projectors = {
            let plugin = Arc::clone(&plugin);
            Box::new(move || plugin.projector())
        };
        Self {
            plugin,
            projectors,
            tally: Arc::default(),
        }
    }

    /// The same version, loaded with other settings. It shares the counters.
    #[must_use]
    pub fn with_settings(&self, plugin: Arc<Plugin>) -> Self {
        Self {
            tally: Arc::clone(&self.tally),
            ..Self::new(plugin)
        }
    }

    /// Whether both are the same loaded version, whatever the settings.
    pub fn is_same_version(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tally, &other.tally)
    }

    /// Replaces the decoder, for the benchmark that compares the component with a native one.
    #[doc(hidden)]
    #[must_use]
    pub fn decoding_with(self, projectors: Box<dyn Fn() -> Projector + Send + Sync>) -> Self {
        Self { projectors, ..self }
    }

    /// The loaded plugin.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The counters so far.
    pub fn counters(&self) -> VersionCounters {
        VersionCounters {
            messages: self.tally.messages.load(Ordering::Relaxed),
            rejected: self.tally.rejected.load(Ordering::Relaxed),
            faults: self.tally.faults.load(Ordering::Relaxed),
            projected: self.tally.projected.load(Ordering::Relaxed),
            busy_us: self.tally.busy_us.load(Ordering::Relaxed),
            memory_peak_bytes: self.tally.memory_peak_bytes.load(Ordering::Relaxed),
        }
    }

    /// The sources whose consumers the broker refuses now, with the reasons.
    pub fn refused_consumers(&self) -> BTreeMap<String, String> {
        let refused = self.tally.refused_consumers.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_refused_consumer(&self, source: &str, reason: Option<&str>) {
        let refused = self.tally.refused_consumers.lock();
        let mut refused = refused.unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => refused.insert(source.to_owned(), reason.to_owned()),
            None => refused.remove(source),
        };
    }

    /// A new projector, with its own instances.
    pub fn projector(&self) -> Projector {
        (self.projectors)()
    }

    pub(super) fn source(&self, name: &str) -> Option<(usize, &Source)> {
        self.plugin.manifest().source(name)
    }

    pub(super) fn count(&self, messages: u64, rejected: u64) {
        self.tally.messages.fetch_add(messages, Ordering::Relaxed);
        self.tally.rejected.fetch_add(rejected, Ordering::Relaxed);
    }

    /// Counts the calls of one projection and their cost.
    pub(super) fn count_calls(&self, projected: &Projected, memory_peak_bytes: usize) {
        let tally = &self.tally;
        let number = |count: usize| count as u64;
        tally
            .faults
            .fetch_add(number(projected.faults.len()), Ordering::Relaxed);
        tally
            .projected
            .fetch_add(number(projected.outcomes.len()), Ordering::Relaxed);
        let busy_us = u64::try_from(projected.busy.as_micros()).unwrap_or(u64::MAX);
        tally.busy_us.fetch_add(busy_us, Ordering::Relaxed);
        tally
            .memory_peak_bytes
            .fetch_max(number(memory_peak_bytes), Ordering::Relaxed);
    }
}

/// What a projection should do.
#[derive(Clone)]
pub struct DesiredState {
    /// The version to run.
    pub version: Arc<LoadedVersion>,
    /// The operator's settings of the plugin.
    pub settings: Arc<PluginSettings>,
    /// Why the plugin is paused; `None` lets it run.
    pub paused: Option<String>,
    /// Which host reads the plugin's sources.
    pub placement: Placement,
}

/// Which host reads the sources of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    /// This host.
    Here {
        /// The term of its lease; 0 if the database has only one host.
        term: u64,
        /// Its name among several hosts.
        node: Option<Arc<str>>,
    },
    /// Another host, or none at present.
    Elsewhere {
        /// What is shown while no report is known.
        detail: String,
        /// The statuses that the other host reported, by source.
        reports: Arc<BTreeMap<String, Status>>,
    },
}

impl Placement {
    /// The placement of a plugin of which only this host knows.
    pub const ONLY_HOST: Self = Self::Here { term: 0, node: None };

    /// Whether this host reads the sources.
    pub fn is_here(&self) -> bool {
        matches!(self, Self::Here { .. })
    }
}

/// Waits until the desired state changes; forever if its sender is gone.
pub(super) async fn changed(desired: &mut watch::Receiver<DesiredState>) {
    if desired.changed().await.is_err() {
        std::future::pending().await
    }
}

impl Projection {
    /// Waits until the projection may not call `version` any more.
    pub(super) async fn until_replaced(&self, version: &Arc<LoadedVersion>) {
        let mut desired = self.desired.clone();
        let is_gone = desired
            .wait_for(|desired| self.is_replaced(version, desired))
            .await
            .is_err();
        if is_gone {
            std::future::pending().await
        }
    }

    /// Whether the plugin is paused, or another version is assigned. Nobody sends messages of core NATS again, so
    /// `version` finishes those in hand if the other one does not read them.
    pub(super) fn is_replaced(&self, version: &Arc<LoadedVersion>, desired: &DesiredState) -> bool {
        let is_another = !Arc::ptr_eq(version, &desired.version);
        let can_replace = match (version.source(&self.source), desired.version.source(&self.source)) {
            (Some((_, now)), Some((_, next))) => now.origin.is_replayable() || now.origin == next.origin,
            (Some((_, now)), None) => now.origin.is_replayable(),
            (None, _) => true,
        };
        desired.paused.is_some() || !desired.placement.is_here() || (is_another && can_replace)
    }
}

/// What a projection works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The live tables.
    Live,
    /// The tables of a rebuild.
    Rebuild(Rebuild),
}

/// A rebuild of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// The identifier of the rebuild.
    pub id: RebuildId,
    /// The live history, whose origin the rows carry.
    pub stamp: OriginId,
    /// The last sequence before the replay range.
    pub after: u64,
    /// Maximum rate in messages per second; `None` for no limit.
    pub rate: Option<u64>,
}
