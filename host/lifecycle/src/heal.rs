//! Dead letters that are tried again: all open ones of a plugin when another version is activated, or those that an
//! operator names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Actor, Inner, Lifecycle, LifecycleError, adoption};
use lantern_model::batch::Delivery;
use lantern_plugin::Projector;
use lantern_projection::Version;
use lantern_store::{Entry, Healed, LetterFilter, OpenLetter, Retried};

/// Letters that are read, tried and written together: few enough that a commit behind them does not notice.
const PAGE: u32 = 256;
/// How long one call into the plugin may go on for letters of one page.
const PROJECT_BUDGET: Duration = Duration::from_millis(250);
/// How long a swap waits for the letters before the new version takes over; what is left is tried beside it.
pub(super) const BEFORE_SWAP: Duration = Duration::from_secs(1);

impl Lifecycle {
    /// Tries open dead letters again with the versions that run.
    ///
    /// # Errors
    /// See [`LifecycleError`]. What was healed by then stays healed.
    pub async fn retry_letters(&self, filter: LetterFilter, by: &Actor) -> Result<Healed, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let by = by.clone();
        self.detached(async move {
            let versions = inner.fleet.lock().await.versions();
            let mut healed = Healed::default();
            for version in versions {
                let name = version.plugin().manifest().name.to_string();
                if filter.plugin.as_ref().is_some_and(|plugin| *plugin != name) {
                    continue;
                }
                let filter = LetterFilter {
                    plugin: Some(name.clone()),
                    ..filter.clone()
                };
                let (some, _) = inner.heal(&version, filter, 0, None).await?;
                inner.fleet.lock().await.nudge(&name);
                inner.parts.metrics.dead_letters_resolved(&name, some.resolved);
                healed += some;
            }
            tracing::info!(
                tried = healed.tried,
                resolved = healed.resolved,
                by = by.0,
                "dead letters were tried again"
            );
            Ok(healed)
        })
        .await
    }

    /// Gives up open dead letters. They stay to be read, and their messages stay accounted for. Returns how many.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn discard_letters(&self, filter: LetterFilter, by: &Actor) -> Result<u64, LifecycleError> {
        let discarded = self.inner.parts.store.discard_letters(filter).await?;
        let fleet = self.inner.fleet.lock().await;
        for version in fleet.versions() {
            fleet.nudge(version.plugin().manifest().name.as_str());
        }
        if discarded > 0 {
            tracing::warn!(discarded, by = by.0, "dead letters were given up");
        }
        Ok(discarded)
    }
}

impl Inner {
    /// Tries open letters of a plugin with a version, from the one behind `after` on, until all were tried or the time
    /// is over. Returns what came of it, and where to go on when there is more.
    pub(super) async fn heal(
        &self,
        version: &Arc<Version>,
        filter: LetterFilter,
        after: i64,
        until: Option<Instant>,
    ) -> Result<(Healed, Option<i64>), LifecycleError> {
        let mut healed = Healed::default();
        let mut after = after;
        let mut projector = None;
        loop {
            let letters = self.parts.store.open_letters(filter.clone(), after, PAGE).await?;
            let Some(last) = letters.last() else {
                return Ok((healed, None));
            };
            after = last.id;
            let adopted = self.parts.store.adopt(adoption(version.plugin())).await?;
            for letters in by_source(letters) {
                let Some((source, _)) = version.plugin().manifest().source(&letters[0].source) else {
                    continue;
                };
                let (retried, back) = project(version, projector.take(), source, letters).await?;
                projector = Some(back);
                healed += self.parts.store.heal(adopted.clone(), retried).await?;
            }
            if until.is_some_and(|until| Instant::now() > until) {
                return Ok((healed, Some(after)));
            }
        }
    }

    /// Tries what the time before a swap was not enough for.
    pub(super) fn heal_the_rest(self: &Arc<Self>, version: Arc<Version>, after: i64) {
        let inner = Arc::clone(self);
        let stop = self.stop.child_token();
        let name = version.plugin().manifest().name.to_string();
        self.tasks.spawn(async move {
            let healing = inner.heal(&version, of_plugin(&name), after, None);
            tokio::select! {
                () = stop.cancelled() => {}
                result = healing => match result {
                    Ok((healed, _)) => {
                        say(&name, healed);
                        inner.parts.metrics.dead_letters_resolved(&name, healed.resolved);
                        inner.fleet.lock().await.nudge(&name);
                    }
                    Err(error) => tracing::warn!(plugin = name, %error, "dead letters could not all be tried again"),
                }
            }
        });
    }
}

/// All letters of a plugin.
pub(super) fn of_plugin(plugin: &str) -> LetterFilter {
    LetterFilter {
        plugin: Some(plugin.to_owned()),
        ..LetterFilter::default()
    }
}

pub(super) fn say(plugin: &str, healed: Healed) {
    if healed.tried > 0 {
        tracing::info!(
            plugin,
            "{} of {} dead letters now decode",
            healed.resolved,
            healed.tried
        );
    }
}

/// Runs of letters of one source, in order.
fn by_source(letters: Vec<OpenLetter>) -> Vec<Vec<OpenLetter>> {
    let mut runs: Vec<Vec<OpenLetter>> = Vec::new();
    for letter in letters {
        match runs.last_mut() {
            Some(run) if run[0].source == letter.source => run.push(letter),
            _ => runs.push(vec![letter]),
        }
    }
    runs
}

/// Asks the plugin, on a thread that may block. Letters that it could not be asked about are left out.
async fn project(
    version: &Arc<Version>,
    projector: Option<Projector>,
    source: usize,
    letters: Vec<OpenLetter>,
) -> Result<(Vec<Retried>, Projector), LifecycleError> {
    let mut projector = projector.unwrap_or_else(|| version.projector());
    let work = tokio::task::spawn_blocking(move || {
        let deliveries: Vec<Delivery> = letters.iter().map(|letter| letter.delivery.clone()).collect();
        let mut outcomes = Vec::with_capacity(deliveries.len());
        while outcomes.len() < deliveries.len() {
            let projected = projector.project(source, &deliveries[outcomes.len()..], PROJECT_BUDGET);
            let none = projected.outcomes.is_empty();
            outcomes.extend(projected.outcomes);
            if none || projected.halted.is_some() {
                break;
            }
        }
        let retried = letters
            .into_iter()
            .zip(outcomes)
            .map(|(letter, outcome)| Retried {
                id: letter.id,
                origin: letter.origin,
                entry: Entry {
                    delivery: letter.delivery,
                    outcome,
                },
            })
            .collect();
        (retried, projector)
    });
    work.await.map_err(|error| {
        LifecycleError::Unavailable(format!("the host panicked while it called the plugin: {error}"))
    })
}
