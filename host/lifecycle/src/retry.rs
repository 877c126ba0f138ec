//! Retries of dead letters: all open ones of a plugin when another version is activated, or those that an operator
//! selects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Actor, Inner, Lifecycle, LifecycleError, adoption};
use lantern_model::batch::Delivery;
use lantern_plugin::Projector;
use lantern_projection::LoadedVersion;
use lantern_store::{Entry, OpenDeadLetter, OpenDeadLetterFilter, RetriedDeadLetter, RetryTotals};

/// Dead letters read, projected and written together: few, so that a waiting commit is not delayed noticeably.
const PAGE_LETTERS: u32 = 256;
/// How long one call into the plugin may take for the dead letters of one page.
const PROJECT_BUDGET: Duration = Duration::from_millis(250);
/// How long a swap waits for the retry before the new version takes over; the rest is retried in the background.
pub(super) const RETRY_BEFORE_SWAP: Duration = Duration::from_secs(1);

impl Lifecycle {
    /// Retries open dead letters with the active versions.
    ///
    /// # Errors
    /// See [`LifecycleError`]. Dead letters resolved before the error stay resolved.
    pub async fn retry_dead_letters(
        &self,
        filter: OpenDeadLetterFilter,
        by: &Actor,
    ) -> Result<RetryTotals, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let by = by.clone();
        self.detached(async move {
            let versions = inner.plugins.lock().await.versions();
            let mut retried = RetryTotals::default();
            for version in versions {
                let name = version.plugin().manifest().name.to_string();
                if filter.plugin.as_ref().is_some_and(|plugin| *plugin != name) {
                    continue;
                }
                let filter = OpenDeadLetterFilter {
                    plugin: Some(name.clone()),
                    ..filter.clone()
                };
                let (some, _) = inner.retry(&version, filter, 0, None).await?;
                inner.plugins.lock().await.notify(&name);
                inner.parts.metrics.dead_letters_resolved(&name, some.resolved);
                retried += some;
            }
            tracing::info!(
                tried = retried.tried,
                resolved = retried.resolved,
                %by,
                "retried dead letters"
            );
            Ok(retried)
        })
        .await
    }

    /// Discards open dead letters. They stay readable, and their messages stay accounted for. Returns their number.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn discard_dead_letters(
        &self,
        filter: OpenDeadLetterFilter,
        by: &Actor,
    ) -> Result<u64, LifecycleError> {
        let discarded = self.inner.parts.store.dead_letters().discard(filter).await?;
        let plugins = self.inner.plugins.lock().await;
        for version in plugins.versions() {
            plugins.notify(version.plugin().manifest().name.as_str());
        }
        if discarded > 0 {
            tracing::warn!(discarded, %by, "discarded dead letters");
        }
        Ok(discarded)
    }
}

impl Inner {
    /// Retries open dead letters of a plugin with a version, starting after `after`, until all were tried or the time
    /// is over. Returns the result, and where to continue if there are more.
    pub(super) async fn retry(
        &self,
        version: &Arc<LoadedVersion>,
        filter: OpenDeadLetterFilter,
        after: i64,
        until: Option<Instant>,
    ) -> Result<(RetryTotals, Option<i64>), LifecycleError> {
        let mut total = RetryTotals::default();
        let mut after = after;
        let mut projector = None;
        loop {
            let letters = self
                .parts
                .store
                .reader()
                .open_dead_letters(filter.clone(), after, PAGE_LETTERS)
                .await?;
            let Some(last) = letters.last() else {
                return Ok((total, None));
            };
            after = last.id;
            let adopted = self
                .parts
                .store
                .plugins()
                .adopt(adoption(version.plugin()))
                .await?;
            for letters in by_source(letters) {
                let Some((source, _)) = version.plugin().manifest().source(&letters[0].source) else {
                    continue;
                };
                let (retried, used) = project(version, projector.take(), source, letters).await?;
                projector = Some(used);
                total += self
                    .parts
                    .store
                    .dead_letters()
                    .record_retries(adopted.clone(), retried)
                    .await?;
            }
            if until.is_some_and(|until| Instant::now() > until) {
                return Ok((total, Some(after)));
            }
        }
    }

    /// Retries the dead letters that the time before a swap was too short for.
    pub(super) fn retry_in_background(self: &Arc<Self>, version: Arc<LoadedVersion>, after: i64) {
        let inner = Arc::clone(self);
        let stop = self.stop.child_token();
        let name = version.plugin().manifest().name.to_string();
        self.tasks.spawn(async move {
            let retrying = inner.retry(&version, dead_letters_of(&name), after, None);
            tokio::select! {
                () = stop.cancelled() => {}
                result = retrying => match result {
                    Ok((retried, _)) => {
                        log_retried(&name, retried);
                        inner.parts.metrics.dead_letters_resolved(&name, retried.resolved);
                        inner.plugins.lock().await.notify(&name);
                    }
                    Err(error) => tracing::warn!(plugin = name, %error, "failed to retry all dead letters"),
                }
            }
        });
    }
}

/// A filter for all dead letters of a plugin.
pub(super) fn dead_letters_of(plugin: &str) -> OpenDeadLetterFilter {
    OpenDeadLetterFilter {
        plugin: Some(plugin.to_owned()),
        ..OpenDeadLetterFilter::default()
    }
}

pub(super) fn log_retried(plugin: &str, retried: RetryTotals) {
    if retried.tried > 0 {
        tracing::info!(
            plugin,
            "{} of {} dead letters now decode",
            retried.resolved,
            retried.tried
        );
    }
}

/// Consecutive dead letters of one source, in order.
fn by_source(letters: Vec<OpenDeadLetter>) -> Vec<Vec<OpenDeadLetter>> {
    let mut runs: Vec<Vec<OpenDeadLetter>> = Vec::new();
    for letter in letters {
        match runs.last_mut() {
            Some(run) if run[0].source == letter.source => run.push(letter),
            _ => runs.push(vec![letter]),
        }
    }
    runs
}

/// Projects dead letters on a blocking thread. Leaves out those that the plugin did not answer.
async fn project(
    version: &Arc<LoadedVersion>,
    projector: Option<Projector>,
    source: usize,
    letters: Vec<OpenDeadLetter>,
) -> Result<(Vec<RetriedDeadLetter>, Projector), LifecycleError> {
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
            .map(|(letter, outcome)| RetriedDeadLetter {
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
