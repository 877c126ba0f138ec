//! What a projection is told: which version of its plugin to run, and whether to run at all. Given by whoever owns the
//! plugins, followed between two batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use lantern_model::schema::Source;
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Plugin, Projected, Projector};
use lantern_store::{OriginId, RebuildId};

/// A version of a plugin at work. Shared by the projections of its sources, which count here what became of messages.
pub struct Version {
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
}

/// What became of the messages that a version was given since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages that have taken effect.
    pub messages: u64,
    /// Those of them that became dead letters.
    pub rejected: u64,
    /// Calls that went wrong: traps, timeouts, answers that could not be read.
    pub faults: u64,
    /// Messages that it was asked about, also those that have no effect yet.
    pub projected: u64,
    /// Time that this took, in microseconds.
    pub busy_us: u64,
    /// The most linear memory that one of its instances has had, in bytes.
    pub memory_peak_bytes: u64,
}

impl Version {
    /// A version that nothing was asked yet.
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

    /// The same version, loaded under other settings: what was counted so far is its own.
    #[must_use]
    pub fn under(&self, plugin: Arc<Plugin>) -> Self {
        Self {
            tally: Arc::clone(&self.tally),
            ..Self::new(plugin)
        }
    }

    /// Whether both are the same version at work, whatever the settings.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tally, &other.tally)
    }

    /// Decodes with something else than the plugin's component: for the benchmark that compares the two.
    #[doc(hidden)]
    #[must_use]
    pub fn decoding_with(self, projectors: Box<dyn Fn() -> Projector + Send + Sync>) -> Self {
        Self { projectors, ..self }
    }

    /// The loaded plugin.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        Counted {
            messages: self.tally.messages.load(Ordering::Relaxed),
            rejected: self.tally.rejected.load(Ordering::Relaxed),
            faults: self.tally.faults.load(Ordering::Relaxed),
            projected: self.tally.projected.load(Ordering::Relaxed),
            busy_us: self.tally.busy_us.load(Ordering::Relaxed),
            memory_peak_bytes: self.tally.memory_peak_bytes.load(Ordering::Relaxed),
        }
    }

    /// A new projector, with instances of its own.
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

    /// Counts what one call, or several, came to and have cost.
    pub(super) fn count_projected(&self, projected: &Projected, memory_peak_bytes: usize) {
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

/// What a projection is to do.
#[derive(Clone)]
pub struct Orders {
    /// With which version.
    pub version: Arc<Version>,
    /// What the operator has set for the plugin.
    pub settings: Arc<PluginSettings>,
    /// Why it is not to run at all for now; none lets it run.
    pub hold: Option<String>,
}

/// Waits until there are new orders. When nobody can give any more, the present ones hold for ever.
pub(super) async fn changed(orders: &mut watch::Receiver<Orders>) {
    if orders.changed().await.is_err() {
        std::future::pending().await
    }
}

/// What a projection works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The tables in use.
    Live,
    /// The tables of a rebuild, beside those in use.
    Rebuild(Rebuild),
}

/// A rebuild of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// Which rebuild.
    pub id: RebuildId,
    /// The history in use, which the rows are stamped with.
    pub stamp: OriginId,
    /// The last sequence that is not read again.
    pub after: u64,
    /// Messages a second at the most; none for as many as there can be.
    pub rate: Option<u64>,
}
