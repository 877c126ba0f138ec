//! The end of a rebuild: compares both sets of tables while the live projections commit, then holds their commits,
//! compares what has changed meanwhile, and swaps the tables in one transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::super::running_plugins::Stopping;
use super::super::{Actor, Requester, adoption};
use super::begin::stream_of;
use super::coverage::same_members;
use super::fill::FillTasks;
use super::{RebuildTask, Stopped};
use lantern_model::actor::HostPart;
use lantern_plugin::Plugin;
use lantern_store::{AdoptError, AuditMark, Comparison, Verification, VerifyRequest};

/// How long the new tables may take to catch up with the live ones, and the live projections to finish their batches.
const SWAP_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often changed rows are read again before the hold. Each time takes less than a tenth of a second.
const READ_AGAIN_MAX: u32 = 20;

/// The result of an attempt to swap the tables.
pub(super) enum SwapAttempt {
    Done,
    /// New rows have to be carried over first.
    CarryOver,
    /// The attempt has to be repeated, for this reason.
    Retry(String),
}

impl From<Stopping> for Stopped {
    fn from(_: Stopping) -> Self {
        Self::Cancelled
    }
}

impl RebuildTask<'_> {
    /// Compares the tables while both are written, then holds the commits of the live projections, compares what has
    /// changed meanwhile, swaps the tables, and lets the projections continue.
    pub(super) async fn swap_tables(
        &self,
        fill: &mut FillTasks,
        stop: &CancellationToken,
    ) -> Result<SwapAttempt, Stopped> {
        let result = match self.compare(fill).await {
            Ok(Ok(comparison)) => self.hold_and_swap(fill, stop, comparison).await,
            Ok(Err(why)) => Ok(SwapAttempt::Retry(why)),
            Err(stopped) => Err(stopped),
        };
        if !matches!(result, Ok(SwapAttempt::Done))
            && let Err(error) = self.inner.parts.store.rebuilds().end_comparison(self.id).await
        {
            tracing::warn!(rebuild = self.id.0, %error, "failed to end the record of changed rows");
        }
        result
    }

    /// Reads all rows of the tables once, and those that change meanwhile again, until few are left. `Err` inside: why
    /// the attempt has to be repeated.
    async fn compare(&self, fill: &FillTasks) -> Result<Result<Comparison, String>, Stopped> {
        let manifest = Arc::clone(self.version.plugin().manifest());
        let digest = self.version.plugin().digest().to_string();
        let rebuilds = self.inner.parts.store.rebuilds();
        let begun = rebuilds.begin_comparison(self.id, manifest, self.scopes.clone(), digest);
        let mut comparison = match begun.await {
            Ok(comparison) => comparison,
            Err(error) => return Ok(Err(error.to_string())),
        };
        // Reading a large table takes long, and the new tables lag behind meanwhile. The second pass is short.
        for _ in 0..2 {
            comparison = match self.read_rows(comparison).await? {
                Ok(comparison) => comparison,
                Err(why) => return Ok(Err(why)),
            };
            self.until_caught_up(fill).await?;
            if let Err(why) = self.catch_up(fill).await? {
                return Ok(Err(why));
            }
        }
        Ok(Ok(comparison))
    }

    /// Reads until every row was read and no changed one is left. Under constant changes it ends after a while: the rest
    /// is read during the hold.
    async fn read_rows(&self, mut comparison: Comparison) -> Result<Result<Comparison, String>, Stopped> {
        let threads = self.inner.background.handle();
        let mut again = 0;
        while again < READ_AGAIN_MAX {
            let store = Arc::clone(&self.inner.parts.store);
            let step = threads.spawn(async move { store.rebuilds().continue_comparison(comparison).await });
            let step = tokio::select! {
                () = self.stop.cancelled() => return Err(Stopped::Cancelled),
                step = step => step,
            };
            comparison = match step {
                Ok(Ok(comparison)) => comparison,
                Ok(Err(error)) => return Ok(Err(error.to_string())),
                Err(error) => return Ok(Err(format!("the comparison was interrupted: {error}"))),
            };
            again += u32::from(comparison.has_read_all());
            if comparison.has_read_all() && comparison.chunks_due() == 0 {
                break;
            }
        }
        Ok(Ok(comparison))
    }

    /// Waits until the new tables have everything up to the present live checkpoints. `Err` inside: why they do not.
    async fn catch_up(&self, fill: &FillTasks) -> Result<Result<(), String>, Stopped> {
        if let Some(why) = self.raise_to_checkpoints(fill).await? {
            return Ok(Err(why));
        }
        let through = tokio::time::timeout(SWAP_WAIT_MAX, fill.gate.all_through());
        tokio::select! {
            () = self.stop.cancelled() => Err(Stopped::Cancelled),
            reached = through => Ok(reached
                .map_err(|_| "the new tables have not caught up with the live ones".to_owned())),
        }
    }

    async fn hold_and_swap(
        &self,
        fill: &mut FillTasks,
        stop: &CancellationToken,
        comparison: Comparison,
    ) -> Result<SwapAttempt, Stopped> {
        let inner = self.inner;
        let plugin = self.version.plugin();
        let name = plugin.manifest().name.to_string();
        let lane = inner.operations.enter(&name).await;
        if self.stop.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let began = Instant::now();
        // A plugin without projections commits nothing, and none can start while this operation has the lane.
        let held = match inner.running.hold_of(&lane) {
            Some(hold) => match tokio::time::timeout(SWAP_WAIT_MAX, hold.hold()).await {
                Ok(held) => Some(held),
                Err(_) => {
                    let why = "a live projection has not finished its batches".to_owned();
                    return Ok(SwapAttempt::Retry(why));
                }
            },
            None => None,
        };
        let result = self.verify_and_swap(fill, stop, comparison).await;
        let done = matches!(result, Ok(SwapAttempt::Done));
        if done {
            inner.rebuilds.lock().remove(&self.id);
            let settings = inner.settings_of(&name);
            // Before the hold ends, so that no projection continues with the former version.
            inner
                .running
                .assign(&lane, Arc::clone(self.version), settings)
                .await?;
        }
        drop(held);
        let held_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if done {
            self.record_finished(plugin, &name, held_ms);
        } else {
            tracing::debug!(
                rebuild = self.id.0,
                held_ms,
                "an attempt to swap the tables has ended"
            );
        }
        result
    }

    /// Verifies and swaps while the commits of the live projections are held.
    async fn verify_and_swap(
        &self,
        fill: &mut FillTasks,
        stop: &CancellationToken,
        comparison: Comparison,
    ) -> Result<SwapAttempt, Stopped> {
        let caught_up = self.catch_up(fill).await?;
        stop.cancel();
        fill.end().await;
        if let Err(why) = caught_up {
            return Ok(SwapAttempt::Retry(why));
        }
        let request = match self.verify_request().await {
            Ok(request) => request,
            Err(why) => return Ok(SwapAttempt::Retry(why)),
        };
        let rebuilds = self.inner.parts.store.rebuilds();
        let mut verified = match rebuilds.verify(comparison, request.clone()).await {
            Ok(verified) => verified,
            Err(error) => return Ok(SwapAttempt::Retry(error.to_string())),
        };
        if verified.lacks_carried {
            // A dead letter outside the replay range was resolved meanwhile.
            return Ok(SwapAttempt::CarryOver);
        }
        if verified.lacks_sums {
            return Ok(SwapAttempt::Retry(
                "rows became comparable that were not at the start of the comparison".to_owned(),
            ));
        }
        self.check_verification(&mut verified)?;
        match rebuilds
            .finish(adoption(self.version.plugin()), request, verified, self.mark())
            .await
        {
            Ok(true) => Ok(SwapAttempt::Done),
            Ok(false) => Ok(SwapAttempt::Retry(
                "rows or dead letters changed after the comparison".to_owned(),
            )),
            Err(error @ AdoptError::Refused(_)) => Err(Stopped::Failed(error.to_string())),
            Err(error) => {
                tracing::warn!(rebuild = self.id.0, %error, "failed to finish the rebuild; will retry");
                Ok(SwapAttempt::Retry(error.to_string()))
            }
        }
    }

    /// Rejects the new tables if something is missing, or differs and was not accepted.
    fn check_verification(&self, verified: &mut Verification) -> Result<(), Stopped> {
        let accepts = self.options.request.accept_differences;
        if verified.losses.is_empty() && (verified.differences.is_empty() || accepts) {
            verified.outcome.accepted = std::mem::take(&mut verified.differences);
            return Ok(());
        }
        let mut found = verified.losses.clone();
        found.extend(verified.differences.iter().cloned());
        let hint = match verified.losses.is_empty() {
            true => "; --accept-differences accepts the new tables",
            false => "",
        };
        Err(Stopped::Failed(format!(
            "the new tables differ from the live ones, which stay: {}{hint}",
            found.join("; ")
        )))
    }

    /// The inputs of the comparison. If the version reads other subjects, its messages cannot be compared with the
    /// ledger; that the stream still holds all of them proves that none was missed.
    async fn verify_request(&self) -> Result<VerifyRequest, String> {
        let name = self.version.plugin().manifest().name.as_str();
        let histories = self.inner.parts.store.reader().ledger_histories(name).await;
        let histories = histories.map_err(|error| error.with_cause())?;
        let mut available = Vec::new();
        for scope in &self.scopes {
            let mut all = histories.iter();
            let history = all.find(|history| history.origin == scope.origin);
            let subjects = stream_of(self.version, &scope.source).map(|(_, subjects)| subjects);
            let others = history.filter(|history| {
                let mut again = history.ranges.iter().filter(|range| range.last > scope.after);
                again.any(|range| match (&range.subjects, subjects) {
                    (Some(then), Some(now)) => !same_members(then, now),
                    _ => false,
                })
            });
            available.push(match others {
                Some(history) => Some(
                    self.inner
                        .available(self.version, scope, history)
                        .await
                        .map_err(|error| error.to_string())?
                        .1,
                ),
                None => None,
            });
        }
        Ok(VerifyRequest {
            id: self.id,
            digest: self.version.plugin().digest().to_string(),
            scopes: self.scopes.clone(),
            available,
            drop_undeclared: self.options.request.drop_undeclared,
            keep_old_s: self.options.request.keep_old_s,
        })
    }

    fn record_finished(&self, plugin: &Plugin, name: &str, held_ms: u64) {
        self.inner.clear_plugin_failure(name);
        tracing::info!(plugin = name, rebuild = self.id.0, digest = %plugin.digest(), by = self.options.by, held_ms, "rebuild finished");
    }

    /// The audit entry of the swap.
    fn mark(&self) -> Option<AuditMark> {
        let plugin = self.version.plugin();
        let detail = format!(
            "rebuild {}, started by {}, has finished",
            self.id.0, self.options.by
        );
        let by = Requester::from(&Actor::Host(HostPart::Rebuild));
        let name = plugin.manifest().name.as_str();
        by.mark("rebuild.finish", name, Some(plugin.digest()), detail)
    }
}
