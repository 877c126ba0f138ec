//! The end of a rebuild: suspends the live projections, compares both sets of tables and swaps them in one transaction.

use std::sync::Arc;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::running_plugins::Stopping;
use super::super::{Actor, Requester, adoption};
use super::begin::stream_of;
use super::coverage::same_members;
use super::task::{FillTasks, RebuildTask, Stopped};
use lantern_model::actor::HostPart;
use lantern_plugin::Plugin;
use lantern_store::{AdoptError, AuditMark, Verification, VerifyRequest};

/// How long the live projections wait for the new tables.
const SWAP_WAIT_MAX: Duration = Duration::from_secs(5);

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
    /// Suspends the live projections after the batch in hand, waits until the new tables have caught up, compares and
    /// swaps the tables, and resumes the projections.
    pub(super) async fn swap_tables(
        &self,
        fill: &mut FillTasks,
        stop: &CancellationToken,
    ) -> Result<SwapAttempt, Stopped> {
        let inner = self.inner;
        let plugin = self.version.plugin();
        let name = plugin.manifest().name.to_string();
        let lane = inner.operations.enter(&name).await;
        if self.stop.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let suspended = inner.running.version(&name);
        inner.running.suspend(&lane).await?;
        let result = self.verify_and_swap(fill, stop).await;
        let done = matches!(result, Ok(SwapAttempt::Done));
        if done {
            inner.rebuilds.lock().remove(&self.id);
        }
        let version = if done {
            Some(Arc::clone(self.version))
        } else {
            suspended
        };
        if let Some(version) = version {
            let settings = inner.settings_of(&name);
            inner.running.assign(&lane, version, settings).await?;
        }
        if done {
            self.record_finished(plugin, &name);
        }
        result
    }

    /// Verifies and swaps while the live projections are suspended.
    async fn verify_and_swap(
        &self,
        fill: &mut FillTasks,
        stop: &CancellationToken,
    ) -> Result<SwapAttempt, Stopped> {
        if let Some(why) = self.raise_to_checkpoints(fill).await? {
            return Ok(SwapAttempt::Retry(why));
        }
        let reached = tokio::time::timeout(SWAP_WAIT_MAX, fill.gate.all_through()).await;
        stop.cancel();
        fill.end().await;
        if reached.is_err() {
            return Ok(SwapAttempt::Retry(
                "the new tables have not caught up with the live ones".to_owned(),
            ));
        }
        let request = match self.verify_request().await {
            Ok(request) => request,
            Err(why) => return Ok(SwapAttempt::Retry(why)),
        };
        let store = &self.inner.parts.store;
        let manifest = Arc::clone(self.version.plugin().manifest());
        let mut verified = match store.reader().verify_rebuild(manifest, request.clone()).await {
            Ok(verified) => verified,
            Err(error) => return Ok(SwapAttempt::Retry(error.with_cause())),
        };
        if verified.lacks_carried {
            // A dead letter outside the replay range was resolved meanwhile.
            return Ok(SwapAttempt::CarryOver);
        }
        self.check_verification(&mut verified)?;
        match store
            .rebuilds()
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
            true => {
                "; the version and its messages are the same as before; --accept-differences accepts the new tables"
            }
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

    fn record_finished(&self, plugin: &Plugin, name: &str) {
        self.inner.clear_plugin_failure(name);
        tracing::info!(plugin = name, rebuild = self.id.0, digest = %plugin.digest(), by = self.options.by, "rebuild finished");
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
