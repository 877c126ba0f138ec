//! A version that was swapped in is watched for a while: when more of its messages are rejected than of those before, or the
//! broker refuses a consumer that it asks for, the host rolls back to the version that ran before and logs a warning. What the bad version rejected is tried again
//! by the old one then, so nothing is lost by having tried.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Actor, Inner, Refusal};
use lantern_model::settings::RollbackSettings;
use lantern_projection::{Counted, Version};
use lantern_store::Way;

/// Messages before a version is judged.
const MESSAGES_MIN: u64 = 50;
/// How long it is watched.
const WINDOW: Duration = Duration::from_secs(300);
/// How many more of a hundred messages may be rejected than before.
const EXCESS_PERCENT: u64 = 5;
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is compared, and with what.
#[derive(Clone, Copy, Debug)]
struct Measure {
    before: Counted,
    messages_min: u64,
    excess_percent: u64,
}

impl Measure {
    fn new(before: Counted, settings: &RollbackSettings) -> Self {
        Self {
            before,
            messages_min: settings.messages_min.unwrap_or(MESSAGES_MIN),
            excess_percent: settings.excess_percent.unwrap_or(EXCESS_PERCENT),
        }
    }
}

impl Inner {
    /// Watches `version`, which has just taken over from `old`, beside everything else. It is watched on when settings
    /// change, by what they say then.
    /// `refused` are the sources whose consumers the broker refused before the swap: the new version is not to blame.
    pub(super) fn watch(
        self: &Arc<Self>,
        old: &Arc<Version>,
        version: &Arc<Version>,
        refused: BTreeSet<String>,
    ) {
        let (inner, version, old) = (Arc::downgrade(self), Arc::clone(version), Arc::clone(old));
        let stop = self.stop.child_token();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = judge(inner, version, old, refused) => {}
            }
        });
    }

    /// The sources of a plugin whose consumers the broker refuses now.
    pub(super) fn refused_sources(&self, plugin: &str) -> BTreeSet<String> {
        let all = self.parts.registry.snapshot().into_iter();
        all.filter(|status| status.plugin == plugin && status.consumer_refused)
            .map(|status| status.source)
            .collect()
    }

    /// Why a version cannot read one of its sources, if the broker refuses a consumer that it asks for.
    fn cannot_read(&self, version: &Version, refused_before: &BTreeSet<String>) -> Option<String> {
        let name = version.plugin().manifest().name.as_str();
        let digest = version.plugin().digest().to_string();
        let all = self.parts.registry.snapshot().into_iter();
        let refused = all
            .filter(|status| status.plugin == name && status.digest == digest && status.consumer_refused)
            .find(|status| !refused_before.contains(&status.source))?;
        let error = refused.last_error.unwrap_or_default();
        Some(format!("it cannot read source {}: {error}", refused.source))
    }

    /// Goes back, unless something else runs by now.
    async fn take_back(self: &Arc<Self>, bad: &Version, old: &Arc<Version>, why: &str) {
        let name = bad.plugin().manifest().name.to_string();
        let old = {
            let fleet = self.fleet.lock().await;
            if !fleet.version(&name).is_some_and(|running| running.is(bad)) {
                return;
            }
            // As it is kept ready: under the settings of now.
            let ready = fleet.warm(&name, old.plugin().digest());
            ready.unwrap_or_else(|| Arc::clone(old))
        };
        let by = Actor::part("automatic rollback");
        let (from, to) = (&bad.plugin().manifest().version, &old.plugin().manifest().version);
        let words = format!("version {from} was taken back to {to} automatically: {why}");
        let mark = by.mark(
            "plugin.rollback",
            &name,
            Some(bad.plugin().digest()),
            words.clone(),
        );
        match self.switch_with(Arc::clone(&old), Way::Back, &by, mark).await {
            Ok(_) => {
                tracing::error!(plugin = name, "{words}");
                self.parts.metrics.plugin_taken_back(&name);
                let digest = bad.plugin().digest().to_string();
                if let Err(error) = self.parts.store.note_failed(&name, &digest, Some(&words)).await {
                    tracing::warn!(plugin = name, %error, "it could not be noted that a version failed");
                }
                self.refuse(Refusal {
                    what: format!("plugin {name}"),
                    reason: words,
                    holds_up: false,
                    unsigned: false,
                });
            }
            Err(error) => {
                tracing::error!(plugin = name, %error, "a version should be taken back, and it is not possible: {why}")
            }
        }
    }
}

/// Ends when the time is over, when another version runs, when nobody wants it any more, or when the version was taken back.
async fn judge(
    inner: Weak<Inner>,
    version: Arc<Version>,
    old: Arc<Version>,
    refused_before: BTreeSet<String>,
) {
    let began = Instant::now();
    let before = old.counted();
    let name = version.plugin().manifest().name.to_string();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let settings = inner.settings_of(&name).rollback;
        let window = settings.window_s.map_or(WINDOW, Duration::from_secs);
        let running = inner.fleet.lock().await.version(&name);
        if !settings.enabled || began.elapsed() >= window || !running.is_some_and(|it| it.is(&version)) {
            return;
        }
        let why = inner
            .cannot_read(&version, &refused_before)
            .or_else(|| Measure::new(before, &settings).verdict(version.counted()));
        if let Some(why) = why {
            return inner.take_back(&version, &old, &why).await;
        }
    }
}

impl Measure {
    /// Why a version has to go, if it has to.
    fn verdict(&self, now: Counted) -> Option<String> {
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
    fn a_version_goes_when_it_is_clearly_worse_than_the_one_before() {
        let counted = |messages, rejected| Counted {
            messages,
            rejected,
            ..Counted::default()
        };
        let measure = Measure {
            before: counted(1_000, 100),
            messages_min: 50,
            excess_percent: 5,
        };
        assert_eq!(measure.verdict(counted(49, 49)), None);
        assert_eq!(measure.verdict(counted(100, 15)), None);
        assert!(measure.verdict(counted(100, 16)).unwrap().contains("16 of 100"));
        // Nothing to compare with counts as nothing rejected.
        let first = Measure {
            before: Counted::default(),
            ..measure
        };
        assert!(first.verdict(counted(100, 6)).is_some());
        assert_eq!(first.verdict(counted(100, 5)), None);
    }
}
