//! Retries of dead letters: all open ones of a plugin when another version is activated, or those that an operator
//! selects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::running_plugins::{RunningPlugins, Stopping};
use super::{Actor, Inner, Lifecycle, LifecycleError, Requester, adoption};
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

/// When a retry ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum RetryUntil {
    /// When all dead letters were tried.
    Done,
    /// Then, or at this time.
    Deadline(Instant),
    /// When all dead letters were tried, or another version is active.
    Replaced,
}

impl RetryUntil {
    fn is_over(self, running: &RunningPlugins, version: &LoadedVersion) -> bool {
        match self {
            Self::Done => false,
            Self::Deadline(deadline) => Instant::now() > deadline,
            Self::Replaced => !running.is_active(version),
        }
    }
}

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
            let versions = inner.running.versions();
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
                let (some, _) = inner.retry(&version, filter, 0, RetryUntil::Done).await?;
                inner.running.notify(&name);
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
        by: impl Into<Requester>,
    ) -> Result<u64, LifecycleError> {
        let by = by.into();
        let mark = by.mark(
            "dead-letters.discard",
            filter.plugin.as_deref(),
            None,
            String::new(),
        );
        let store = &self.inner.parts.store;
        let discarded = store.dead_letters().discard(filter, mark).await?;
        let running = &self.inner.running;
        for version in running.versions() {
            running.notify(version.plugin().manifest().name.as_str());
        }
        if discarded > 0 {
            tracing::warn!(discarded, %by, "discarded dead letters");
        }
        Ok(discarded)
    }
}

impl Inner {
    /// Retries open dead letters of a plugin with a version, starting after `after`. Returns the result, and where to
    /// continue if some were not tried.
    pub(super) async fn retry(
        &self,
        version: &Arc<LoadedVersion>,
        filter: OpenDeadLetterFilter,
        after: i64,
        until: RetryUntil,
    ) -> Result<(RetryTotals, Option<i64>), LifecycleError> {
        let mut total = RetryTotals::default();
        let mut after = after;
        let mut projector = None;
        loop {
            if self.ends_retry(version, until)? {
                return Ok((total, Some(after)));
            }
            let store = &self.parts.store;
            let letters = store
                .reader()
                .open_dead_letters(filter.clone(), after, PAGE_LETTERS)
                .await?;
            if letters.is_empty() {
                return Ok((total, None));
            }
            let adopted = store.plugins().adopt(adoption(version.plugin())).await?;
            for letters in by_source(letters) {
                let last = letters.last().map_or(after, |last| last.id);
                let manifest = version.plugin().manifest();
                let Some((source, _)) = letters.first().and_then(|letter| manifest.source(&letter.source))
                else {
                    after = last;
                    continue;
                };
                let stop = self.retry_stop(version, until);
                let tried = project(version, projector.take(), source, letters, stop).await?;
                projector = Some(tried.projector);
                total += store
                    .dead_letters()
                    .record_retries(adopted.clone(), tried.retried)
                    .await?;
                if let Some(untried) = tried.untried {
                    after = untried - 1;
                    break;
                }
                after = last;
            }
        }
    }

    /// Whether a retry has to end before the next page.
    fn ends_retry(&self, version: &Arc<LoadedVersion>, until: RetryUntil) -> Result<bool, LifecycleError> {
        if self.stop.is_cancelled() {
            return Err(Stopping.into());
        }
        Ok(until.is_over(&self.running, version))
    }

    /// Whether a retry has to end between two calls into the plugin.
    fn retry_stop(
        &self,
        version: &Arc<LoadedVersion>,
        until: RetryUntil,
    ) -> impl Fn() -> bool + Send + 'static {
        let (stop, running, version) = (self.stop.clone(), self.running.clone(), Arc::clone(version));
        move || stop.is_cancelled() || until.is_over(&running, &version)
    }

    /// Retries the dead letters that the time before a swap was too short for. Ends when another version is active,
    /// which has its own retry.
    pub(super) fn retry_in_background(self: &Arc<Self>, version: Arc<LoadedVersion>, after: i64) {
        let inner = Arc::clone(self);
        let name = version.plugin().manifest().name.to_string();
        self.tasks.spawn(async move {
            let retrying = inner.retry(&version, dead_letters_of(&name), after, RetryUntil::Replaced);
            match retrying.await {
                Ok((retried, _)) => {
                    log_retried(&name, retried);
                    inner.parts.metrics.dead_letters_resolved(&name, retried.resolved);
                    inner.running.notify(&name);
                }
                Err(_) if inner.stop.is_cancelled() => {}
                Err(error) => tracing::warn!(plugin = name, %error, "failed to retry all dead letters"),
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

/// Dead letters that were tried.
struct Tried {
    /// Those that the plugin answered.
    retried: Vec<RetriedDeadLetter>,
    projector: Projector,
    /// The first one that was not tried, because the retry had to stop.
    untried: Option<i64>,
}

/// Projects dead letters on a blocking thread until `stop`, but at least one. Leaves out those that the plugin did not
/// answer.
async fn project(
    version: &Arc<LoadedVersion>,
    projector: Option<Projector>,
    source: usize,
    letters: Vec<OpenDeadLetter>,
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<Tried, LifecycleError> {
    let mut projector = projector.unwrap_or_else(|| version.projector());
    let work = tokio::task::spawn_blocking(move || {
        let deliveries: Vec<Delivery> = letters.iter().map(|letter| letter.delivery.clone()).collect();
        let mut outcomes = Vec::with_capacity(deliveries.len());
        let mut untried = None;
        while outcomes.len() < deliveries.len() {
            let projected = projector.project(source, &deliveries[outcomes.len()..], PROJECT_BUDGET);
            let none = projected.outcomes.is_empty();
            outcomes.extend(projected.outcomes);
            if none || projected.halted.is_some() {
                break;
            }
            if stop() {
                untried = letters.get(outcomes.len()).map(|letter| letter.id);
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
        Tried {
            retried,
            projector,
            untried,
        }
    });
    work.await.map_err(|error| {
        LifecycleError::Unavailable(format!("the host panicked while it called the plugin: {error}"))
    })
}
