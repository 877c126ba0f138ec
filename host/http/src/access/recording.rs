//! Writes calls of the API to the audit: changes before and after they are carried out, refusals and reads within a budget
//! for each token.

use std::sync::Arc;
use std::time::Duration;

use super::{Access, Known};
use crate::problem::Problem;
use lantern_store::{AuditEntry, AuditId, CommitError};
use lantern_telemetry::Throttle;

/// Refusals of one actor that are written to the audit in a minute. The holder of each token is an actor, and all clients
/// without a good token together are one, so that their flood cannot hide what the holder of a token tried. A thousand
/// bytes each at worst: a flood of a whole day leaves 43 MB and not a full disk.
pub(super) const REFUSALS_MAX: u32 = 30;

/// Reads of one actor that are written to the audit in a minute.
pub(super) const READS_MAX: u32 = 60;

/// Longest time that the answer to a recorded read waits for its entry in the audit, which is written in any case.
const READ_ENTRY_TIME: Duration = Duration::from_secs(1);

/// How long the host waits before it tries again to record how a change ended.
const END_PAUSE: Duration = Duration::from_secs(1);

impl Access {
    /// Records in the audit that a change is about to begin.
    ///
    /// # Errors
    /// The entry cannot be written. The change must not begin then.
    pub(crate) async fn begin(&self, entry: AuditEntry) -> Result<AuditId, Problem> {
        self.0.store.begin_audit(entry).await.map_err(|error| {
            tracing::error!(%error, "a change was refused because its audit entry cannot be written");
            Problem::unrecorded(&error)
        })
    }

    /// Records in the audit how a change ended. While the database cannot be written, the host tries again until it stops;
    /// the next start records then that the change was interrupted.
    pub(crate) async fn end(&self, begun: AuditId, entry: AuditEntry) {
        let Err(error) = self.0.store.end_audit(begun, entry.clone()).await else {
            return;
        };
        let (actor, action) = (&entry.actor, &entry.action);
        tracing::error!(actor, action, %error, "failed to record how a change ended; will retry");
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

    /// Writes to the audit what changes nothing. A database that cannot be written is only logged.
    async fn record(&self, entry: AuditEntry) {
        let (actor, action) = (entry.actor.clone(), entry.action.clone());
        if let Err(error) = self.0.store.append_audit(entry).await {
            tracing::error!(actor, action, %error, "failed to write audit entry");
        }
    }

    /// Writes a refusal to the audit, unless the actor had too many in the last minute; the next one says how many are
    /// missing.
    pub(crate) async fn record_refusal(&self, entry: AuditEntry) {
        let budget = self.budget_of(&entry.actor, |known| &known.refusals);
        let noted = budget.unwrap_or_else(|| self.0.anonymous_refusals.note());
        if let Some(entry) = bounded(entry, noted, "refusals") {
            self.record(entry).await;
        }
    }

    /// Writes a read by the holder of a token to the audit, unless that token had too many in the last minute; the next one
    /// says how many are missing.
    pub(crate) async fn record_read(&self, entry: AuditEntry) {
        // A token that was revoked meanwhile has no budget, and its last read is recorded.
        let noted = self
            .budget_of(&entry.actor, |known| &known.reads)
            .unwrap_or(Ok(0));
        let Some(entry) = bounded(entry, noted, "reads") else {
            return;
        };
        let access = self.clone();
        let writing = tokio::spawn(async move { access.record(entry).await });
        // The entry is written also when this wait ends before it.
        drop(tokio::time::timeout(READ_ENTRY_TIME, writing).await);
    }

    /// Takes one from a budget of the token with this name; none when there is no such token.
    fn budget_of(&self, name: &str, budget: impl Fn(&Known) -> &Throttle) -> Option<Result<u64, Duration>> {
        self.read_tokens(|tokens| {
            let known = tokens.values().find(|known| known.principal.name == name)?;
            Some(budget(known).note())
        })
    }
}

/// The entry with the number of those before it that were left out; none when this one is left out as well.
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
    fn the_next_entry_says_how_many_are_missing() {
        let entry = |noted| {
            let entry = AuditEntry {
                actor: "ann".into(),
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
