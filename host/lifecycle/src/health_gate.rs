//! The health gate of a newly activated version. The host rolls back to the previous version and logs an error when
//! more messages are rejected than before, or when the broker refuses a consumer that the version requests. The
//! previous version then retries the dead letters of the failed one, so the attempt loses nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::load_failures::{LoadFailure, LoadSubject};
use super::{Actor, Inner, Requester};
use lantern_model::actor::HostPart;
use lantern_model::settings::RollbackSettings;
use lantern_projection::{LoadedVersion, VersionCounters};
use lantern_store::Activation;

/// Minimum number of messages before the gate decides.
const MESSAGES_MIN: u64 = 50;
/// How long the gate watches a version.
const WINDOW: Duration = Duration::from_secs(300);
/// By how many percentage points the share of rejected messages may exceed that of the previous version.
const EXCESS_PERCENT: u64 = 5;
/// How often the gate checks the version.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// The versions that the gate compares.
struct Watched {
    version: Arc<LoadedVersion>,
    /// Its counters at the activation; those of earlier runs do not count.
    counted: VersionCounters,
    old: Arc<LoadedVersion>,
    /// The sources whose consumers the broker refused before.
    refused_before: BTreeSet<String>,
}

/// What the gate compares, and its limits.
#[derive(Clone, Copy, Debug)]
struct HealthGate {
    before: VersionCounters,
    messages_min: u64,
    excess_percent: u64,
}

impl HealthGate {
    fn new(before: VersionCounters, settings: &RollbackSettings) -> Self {
        Self {
            before,
            messages_min: settings.messages_min.unwrap_or(MESSAGES_MIN),
            excess_percent: settings.excess_percent.unwrap_or(EXCESS_PERCENT),
        }
    }
}

impl Inner {
    /// Starts to watch `version`, which has just replaced `old` and had these counters before. Changed settings apply at
    /// once.
    pub(super) fn watch_health(
        self: &Arc<Self>,
        old: &Arc<LoadedVersion>,
        version: &Arc<LoadedVersion>,
        counted: VersionCounters,
    ) {
        let inner = Arc::downgrade(self);
        let watched = Watched {
            version: Arc::clone(version),
            counted,
            old: Arc::clone(old),
            refused_before: old.refused_consumers().into_keys().collect(),
        };
        let stop = self.stop.child_token();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = run_health_gate(inner, watched) => {}
            }
        });
    }

    /// Rolls back, unless another version became active.
    async fn roll_back_version(self: &Arc<Self>, bad: &LoadedVersion, old: &Arc<LoadedVersion>, why: &str) {
        let name = bad.plugin().manifest().name.to_string();
        let lane = self.operations.enter(&name).await;
        if !self.running.is_active(bad) {
            return;
        }
        // Prefer the loaded version, which has the current settings.
        let ready = self.running.warm(&name, old.plugin().digest());
        let old = ready.unwrap_or_else(|| Arc::clone(old));
        let by = Requester::from(&Actor::Host(HostPart::HealthGate));
        let (from, to) = (&bad.plugin().manifest().version, &old.plugin().manifest().version);
        let reason = format!("version {from} was rolled back to {to} automatically: {why}");
        let mark = by.mark(
            "plugin.rollback",
            name.as_str(),
            Some(bad.plugin().digest()),
            reason.clone(),
        );
        match self
            .activate_in(&lane, Arc::clone(&old), Activation::RollBack, &by, mark)
            .await
        {
            Ok(_) => {
                tracing::error!(plugin = name, "{reason}");
                self.parts.metrics.plugin_rolled_back(&name);
                let digest = bad.plugin().digest().to_string();
                if let Err(error) = self
                    .parts
                    .store
                    .plugins()
                    .set_failed(&name, &digest, Some(&reason))
                    .await
                {
                    tracing::warn!(plugin = name, %error, "failed to record that a version failed");
                }
                self.record_load_failure(LoadFailure {
                    subject: LoadSubject::Plugin(name),
                    reason,
                    blocks_messages: false,
                    unsigned: false,
                });
            }
            Err(error) => {
                tracing::error!(plugin = name, %error, "failed to roll back a version that failed the health gate: {why}")
            }
        }
    }
}

/// Why a version cannot read one of its sources, if the broker refuses its consumer and did not refuse it before.
fn refused_consumer(version: &LoadedVersion, refused_before: &BTreeSet<String>) -> Option<String> {
    let refused = version.refused_consumers();
    let mut refused = refused
        .iter()
        .filter(|(source, _)| !refused_before.contains(*source));
    let (source, error) = refused.next()?;
    Some(format!("it cannot read source {source}: {error}"))
}

/// Returns when the window ends, when another version is active, when the gate is disabled, or after a rollback.
async fn run_health_gate(inner: Weak<Inner>, watched: Watched) {
    let Watched {
        version,
        counted,
        old,
        refused_before,
    } = watched;
    let began = Instant::now();
    let before = old.counters();
    let name = version.plugin().manifest().name.to_string();
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let settings = inner.settings_of(&name).rollback;
        let window = settings.window_s.map_or(WINDOW, Duration::from_secs);
        if !settings.enabled || began.elapsed() >= window || !inner.running.is_active(&version) {
            return;
        }
        let why = refused_consumer(&version, &refused_before)
            .or_else(|| HealthGate::new(before, &settings).failure(version.counters().since(&counted)));
        if let Some(why) = why {
            return inner.roll_back_version(&version, &old, &why).await;
        }
    }
}

impl HealthGate {
    /// Why the version fails the gate, if it does.
    fn failure(&self, now: VersionCounters) -> Option<String> {
        if now.messages < self.messages_min {
            return None;
        }
        let hundredths = |part: u64, whole: u64| u128::from(part) * 10_000 / u128::from(whole.max(1));
        let allowed = u128::from(self.excess_percent) * 100;
        let worse = |now_part, before_part| {
            hundredths(now_part, now.messages) > hundredths(before_part, self.before.messages) + allowed
        };
        if worse(now.rejected, self.before.rejected) {
            return Some(format!(
                "{} of {} messages were rejected, and {} of {} before",
                now.rejected, now.messages, self.before.rejected, self.before.messages
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_fails_when_its_share_of_rejections_exceeds_the_limit() {
        let counted = |messages, rejected| VersionCounters {
            messages,
            rejected,
            ..VersionCounters::default()
        };
        let gate = HealthGate {
            before: counted(1_000, 100),
            messages_min: 50,
            excess_percent: 5,
        };
        assert_eq!(gate.failure(counted(49, 49)), None);
        assert_eq!(gate.failure(counted(100, 15)), None);
        assert!(gate.failure(counted(100, 16)).unwrap().contains("16 of 100"));
        // Without a previous version, the comparison assumes no rejected messages.
        let first = HealthGate {
            before: VersionCounters::default(),
            ..gate
        };
        assert!(first.failure(counted(100, 6)).is_some());
        assert_eq!(first.failure(counted(100, 5)), None);
    }
}
