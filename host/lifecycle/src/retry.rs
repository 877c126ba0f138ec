//! Retries of dead letters: all open ones of a plugin when another version is activated, or those that an operator
//! selects.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::lanes::Lane;
use super::running_plugins::{RunningPlugins, Stopping};
use super::{Actor, Inner, Lifecycle, LifecycleError, Requester, adoption};
use lantern_model::batch::Delivery;
use lantern_plugin::Projector;
use lantern_projection::LoadedVersion;
use lantern_store::{Entry, OpenDeadLetter, OpenDeadLetterFilter, RetriedDeadLetter, RetryTotals};

/// Dead letters read, projected and written together: few, so that a waiting commit is not delayed noticeably.
const PAGE_DEAD_LETTERS: u32 = 256;
/// How long one call into the plugin may take for the dead letters of one page.
const PROJECT_BUDGET: Duration = Duration::from_millis(250);
/// How long a swap holds the commits for the retry; the rest is retried in the background.
const RETRY_BEFORE_SWAP: Duration = Duration::from_secs(1);

/// How long a swap waits for the projections to finish their commits.
const HOLD_WAIT_MAX: Duration = Duration::from_secs(5);

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
            inner.require_all_here(filter.plugin.as_deref())?;
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
        self.inner.require_all_here(filter.plugin.as_deref())?;
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
            let dead_letters = store
                .reader()
                .open_dead_letters(filter.clone(), after, PAGE_DEAD_LETTERS)
                .await?;
            if dead_letters.is_empty() {
                return Ok((total, None));
            }
            let adopted = store.plugins().adopt(adoption(version.plugin())).await?;
            for dead_letters in by_source(dead_letters) {
                let last = dead_letters.last().map_or(after, |last| last.id);
                let manifest = version.plugin().manifest();
                let Some((source, _)) = dead_letters
                    .first()
                    .and_then(|dead_letter| manifest.source(&dead_letter.source))
                else {
                    after = last;
                    continue;
                };
                let over = self.until_retry_is_over(version, until);
                let tried = project(version, projector.take(), source, dead_letters, over).await?;
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

    /// Waits until a retry has to end, which interrupts its call into the plugin.
    async fn until_retry_is_over(&self, version: &Arc<LoadedVersion>, until: RetryUntil) {
        let over = async {
            match until {
                RetryUntil::Done => std::future::pending().await,
                RetryUntil::Deadline(deadline) => tokio::time::sleep_until(deadline.into()).await,
                RetryUntil::Replaced => self.running.until_replaced(version).await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = over => {}
        }
    }

    /// Retries the dead letters of earlier versions before the new version handles new messages. Returns the result, and
    /// where to continue if there are more.
    pub(super) async fn retry_before_swap(&self, version: &Arc<LoadedVersion>) -> (RetryTotals, Option<i64>) {
        let name = version.plugin().manifest().name.as_str();
        let until = RetryUntil::Deadline(Instant::now() + RETRY_BEFORE_SWAP);
        match self.retry(version, dead_letters_of(name), 0, until).await {
            Ok(retried) => retried,
            Err(error) => {
                tracing::warn!(plugin = name, %error, "failed to retry dead letters");
                (RetryTotals::default(), None)
            }
        }
    }

    /// Assigns a version to its projections and retries the dead letters. The assignment interrupts the calls of the
    /// previous version. The commits are held meanwhile, so that the retry finds every dead letter of the previous
    /// version, and the new version stores old messages before new ones.
    pub(super) async fn swap_and_retry(
        &self,
        lane: &Lane,
        version: &Arc<LoadedVersion>,
    ) -> Result<(RetryTotals, Option<i64>), Stopping> {
        let settings = self.settings_of(lane.plugin());
        let Some(hold) = self.running.hold_of(lane) else {
            // No projection commits yet.
            let retried = self.retry_before_swap(version).await;
            self.running.assign(lane, Arc::clone(version), settings).await?;
            return Ok(retried);
        };
        let holding = tokio::time::timeout(HOLD_WAIT_MAX, hold.hold());
        tokio::pin!(holding);
        // The first poll requests the hold: the new version commits nothing before the retry.
        let early = futures_util::poll!(holding.as_mut());
        self.running.assign(lane, Arc::clone(version), settings).await?;
        let held = match early {
            Poll::Ready(held) => held,
            Poll::Pending => holding.await,
        };
        if held.is_err() {
            tracing::warn!(
                plugin = lane.plugin(),
                "a projection did not finish its commits in time"
            );
        }
        let retried = self.retry_before_swap(version).await;
        // The projections may have counted the open dead letters before the retry.
        self.running.notify(lane.plugin());
        Ok(retried)
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
fn by_source(dead_letters: Vec<OpenDeadLetter>) -> Vec<Vec<OpenDeadLetter>> {
    let mut runs: Vec<Vec<OpenDeadLetter>> = Vec::new();
    for dead_letter in dead_letters {
        match runs.last_mut() {
            Some(run) if run[0].source == dead_letter.source => run.push(dead_letter),
            _ => runs.push(vec![dead_letter]),
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

/// Projects dead letters on a blocking thread until `over` interrupts the plugin. Leaves out those that the plugin did not
/// answer.
async fn project(
    version: &Arc<LoadedVersion>,
    projector: Option<Projector>,
    source: usize,
    dead_letters: Vec<OpenDeadLetter>,
    over: impl Future<Output = ()>,
) -> Result<Tried, LifecycleError> {
    let mut projector = projector.unwrap_or_else(|| version.projector());
    let interrupt = projector.interrupt();
    let interrupted = interrupt.clone();
    let mut work = tokio::task::spawn_blocking(move || {
        let deliveries: Vec<Delivery> = dead_letters
            .iter()
            .map(|dead_letter| dead_letter.delivery.clone())
            .collect();
        let mut outcomes = Vec::with_capacity(deliveries.len());
        let mut untried = None;
        while outcomes.len() < deliveries.len() {
            let projected = projector.project(source, &deliveries[outcomes.len()..], PROJECT_BUDGET);
            let none = projected.outcomes.is_empty();
            outcomes.extend(projected.outcomes);
            if interrupted.is_set() {
                untried = dead_letters.get(outcomes.len()).map(|dead_letter| dead_letter.id);
                break;
            }
            if none || projected.halted.is_some() {
                break;
            }
        }
        let retried = dead_letters
            .into_iter()
            .zip(outcomes)
            .map(|(dead_letter, outcome)| RetriedDeadLetter {
                id: dead_letter.id,
                origin: dead_letter.origin,
                entry: Entry {
                    delivery: dead_letter.delivery,
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
    let ended = tokio::select! {
        ended = &mut work => ended,
        () = over => {
            interrupt.set();
            work.await
        }
    };
    ended.map_err(|error| {
        LifecycleError::Unavailable(format!("the host panicked while it called the plugin: {error}"))
    })
}
