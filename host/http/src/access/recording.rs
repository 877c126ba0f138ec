//! Writes API requests to the audit: changes before and after they run; refusals and reads within a budget per token.

use std::sync::Arc;
use std::time::Duration;

use super::{Access, Known};
use crate::problem::Problem;
use lantern_model::actor::Actor;
use lantern_store::{AuditEntry, AuditId, CommitError};
use lantern_telemetry::Throttle;

/// Refusals per actor and minute that are written to the audit. Each token is an actor, and all clients without a valid
/// token together are one, so that their flood cannot hide the attempts of a token. At most a thousand bytes each: a
/// flood of one day takes 43 MB.
pub(super) const REFUSALS_MAX: u32 = 30;

/// Reads per actor and minute that are written to the audit.
pub(super) const READS_MAX: u32 = 60;

/// Maximum time that the response to a recorded read waits for its audit entry, which is written in any case.
const READ_ENTRY_TIME: Duration = Duration::from_secs(1);

/// Pause between attempts to record the end of a change.
const END_PAUSE: Duration = Duration::from_secs(1);

impl Access {
    /// Records the start of a change.
    ///
    /// # Errors
    /// If the entry cannot be written. The change must not start then.
    pub(crate) async fn begin(&self, entry: AuditEntry) -> Result<AuditId, Problem> {
        self.0.store.begin_audit(entry).await.map_err(|error| {
            tracing::error!(%error, "rejected a change because its audit entry cannot be written");
            Problem::unrecorded(&error)
        })
    }

    /// Records the end of a change. While the database is not writable, retries until the host stops; the next start then
    /// records that the change was interrupted.
    pub(crate) async fn end(&self, begun: AuditId, entry: AuditEntry) {
        let Err(error) = self.0.store.end_audit(begun, entry.clone()).await else {
            return;
        };
        let (actor, action) = (&entry.actor, &entry.action);
        tracing::error!(%actor, action, %error, "failed to record the end of a change; will retry");
        let store = Arc::downgrade(&self.0.store);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(END_PAUSE).await;
                let Some(store) = store.upgrade() else { return };
                match store.end_audit(begun, entry.clone()).await {
                    Ok(()) | Err(CommitError::Closed) => return,
                    Err(_) => {}
                }
            }
        });
    }

    /// Writes an entry for a request that changes nothing. If the database is not writable, logs the failure.
    async fn record(&self, entry: AuditEntry) {
        let (actor, action) = (entry.actor.clone(), entry.action.clone());
        if let Err(error) = self.0.store.append_audit(entry).await {
            tracing::error!(%actor, action, %error, "failed to write audit entry");
        }
    }

    /// Writes a refusal to the audit, unless the actor exceeded its limit; the next entry has the number of omitted ones.
    pub(crate) async fn record_rejection(&self, entry: AuditEntry) {
        let budget = self.budget_of(&entry.actor, |known| &known.refusals);
        let noted = budget.unwrap_or_else(|| self.0.anonymous_refusals.note());
        if let Some(entry) = bounded(entry, noted, "refusals") {
            self.record(entry).await;
        }
    }

    /// Writes a read with a token to the audit, unless the token exceeded its limit; the next entry has the number of
    /// omitted ones.
    pub(crate) async fn record_read(&self, entry: AuditEntry) {
        // A token that was revoked in the meantime has no budget; its last read is recorded.
        let noted = self
            .budget_of(&entry.actor, |known| &known.reads)
            .unwrap_or(Ok(0));
        let Some(entry) = bounded(entry, noted, "reads") else {
            return;
        };
        let access = self.clone();
        let writing = tokio::spawn(async move { access.record(entry).await });
        // The entry is written even if the wait times out.
        drop(tokio::time::timeout(READ_ENTRY_TIME, writing).await);
    }

    /// Takes one unit from a budget of the actor's token; none if it has no token.
    fn budget_of(
        &self,
        actor: &Actor,
        budget: impl Fn(&Known) -> &Throttle,
    ) -> Option<Result<u64, Duration>> {
        self.read_tokens(|tokens| {
            let known = tokens.values().find(|known| known.principal.actor() == *actor)?;
            Some(budget(known).note())
        })
    }
}

/// Adds the number of previously omitted entries; none if this entry is omitted too.
fn bounded(mut entry: AuditEntry, noted: Result<u64, Duration>, what: &str) -> Option<AuditEntry> {
    let missing = noted.ok()?;
    if missing > 0 {
        entry.detail = format!("{} (and {missing} {what} before it)", entry.detail);
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_store::AuditOutcome;

    #[test]
    fn the_next_entry_has_the_number_of_omitted_ones() {
        let entry = |noted| {
            let entry = AuditEntry {
                actor: Actor::parse("ann"),
                action: "token.list".into(),
                plugin: None,
                digest: None,
                outcome: AuditOutcome::Done,
                detail: "all".into(),
            };
            bounded(entry, noted, "reads").map(|entry| entry.detail)
        };
        assert_eq!(entry(Ok(0)).as_deref(), Some("all"));
        assert_eq!(entry(Ok(7)).as_deref(), Some("all (and 7 reads before it)"));
        assert_eq!(entry(Err(MINUTE)), None);
    }

    const MINUTE: Duration = Duration::from_secs(60);
}
