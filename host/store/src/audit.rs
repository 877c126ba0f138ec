//! Writes the audit: actor, action and outcome. Rows are only added, and [`chain`] links each row to the previous one.
//! `reader` lists the entries, `check` verifies them.
//!
//! A change has an entry that is committed before the change begins ([`Store::begin_audit`]), and a second row when it
//! ends ([`Store::end_audit`]). No change takes effect without an entry. A change that is one transaction writes its
//! last row in that transaction ([`AuditMark`], [`Store::change`]). Entries that have not ended when the host stops are ended as
//! [`AuditOutcome::Interrupted`] at the next start.

pub(super) mod chain;
mod nodes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::sql::{Connection, OptionalExtension as _, Transaction, params};

use super::{CommitError, NodeConfig, Store};
pub use chain::AuditHash;
use lantern_model::actor::Actor;
use lantern_model::batch::{Timestamp, clean_text};
pub use lantern_model::results::audit::AuditOutcome;

/// Maximum length of a text in an audit entry, in bytes; it may come from a request.
const TEXT_BYTES_MAX: usize = 1024;

/// Detail of an entry whose change was interrupted.
const INTERRUPTED: &str = "the host stopped before the change ended; it may have taken effect";

/// Actor, action and outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Who acted.
    pub actor: Actor,
    /// Action, as `noun.verb`.
    pub action: String,
    /// Affected plugin.
    pub plugin: Option<String>,
    /// Affected version.
    pub digest: Option<String>,
    /// Outcome.
    pub outcome: AuditOutcome,
    /// Description of the change, or the reason why nothing changed.
    pub detail: String,
}

/// An entry that was committed before its change began. The hash distinguishes it from an entry with the same number in
/// another database, such as a copy that replaced this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditId {
    id: i64,
    hash: AuditHash,
}

/// An entry that a change writes in its own transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditMark {
    entry: AuditEntry,
    ends: Option<AuditId>,
}

/// A change without an earlier entry.
impl From<AuditEntry> for AuditMark {
    fn from(entry: AuditEntry) -> Self {
        Self { entry, ends: None }
    }
}

impl AuditMark {
    /// Ends the entry of a change that has begun.
    pub fn ending(begun: AuditId, entry: AuditEntry) -> Self {
        Self {
            entry,
            ends: Some(begun),
        }
    }

    /// Takes plugin, version and description from `entry` where this mark has none.
    #[must_use]
    pub fn or(mut self, entry: AuditEntry) -> Self {
        let own = &mut self.entry;
        own.plugin = own.plugin.take().or(entry.plugin);
        own.digest = own.digest.take().or(entry.digest);
        if own.detail.is_empty() {
            own.detail = entry.detail;
        }
        self
    }

    /// Appends what is only known in the transaction, such as a number of rows, to the description.
    pub(super) fn append_detail(&mut self, more: &str) {
        let detail = &mut self.entry.detail;
        if !detail.is_empty() && !more.is_empty() {
            detail.push_str(": ");
        }
        detail.push_str(more);
    }

    /// Adds the row. Does nothing if the entry has ended.
    pub(super) fn write(&self, transaction: &Transaction<'_>) -> Result<(), crate::sql::Error> {
        let ends = match self.ends {
            None => None,
            Some(begun) => match has_ended(transaction, begun)? {
                Some(true) => return Ok(()),
                Some(false) => Some(begun.id),
                // The database was replaced during the change. The row still records what happened.
                None => None,
            },
        };
        append(transaction, &self.entry, ends).map(|_| ())
    }
}

impl Store {
    /// Records that a change is about to begin. The entry is synced to disk when this returns; its outcome
    /// is [`AuditOutcome::Started`], regardless of `entry`.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`]; the change must not begin in this case.
    pub async fn begin_audit(&self, entry: AuditEntry) -> Result<AuditId, CommitError> {
        let settled = Arc::clone(&self.audit_settled);
        let node = self.node.clone();
        let entry = AuditEntry {
            outcome: AuditOutcome::Started,
            ..entry
        };
        self.call(move |connection| {
            connection.make_durable()?;
            let transaction = connection.begin()?;
            if !settled.load(Ordering::Relaxed) {
                close_interrupted(&transaction, node.as_ref())?;
            }
            let begun = append(&transaction, &entry, None)?;
            if let Some(node) = &node {
                nodes::record(&transaction, begun, node)?;
            }
            transaction.commit()?;
            settled.store(true, Ordering::Relaxed);
            Ok(begun)
        })
        .await
    }

    /// Records how a change ended. Does nothing if the change recorded it in its own transaction.
    ///
    /// # Errors
    /// As for [`Store::begin_audit`].
    pub async fn end_audit(&self, begun: AuditId, entry: AuditEntry) -> Result<(), CommitError> {
        self.write_audit(AuditMark::ending(begun, entry)).await
    }

    /// Records an action without a change, such as a rejected request or a read.
    ///
    /// # Errors
    /// As for [`Store::begin_audit`].
    pub async fn append_audit(&self, entry: AuditEntry) -> Result<(), CommitError> {
        self.write_audit(entry.into()).await
    }

    /// Runs a change and ends its audit entry in one transaction, which is synced to disk if there is an entry. `describe`
    /// returns the rest of the entry's description, or `None` if the change had no effect; then the entry does not end.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        mark: Option<AuditMark>,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, crate::sql::Error> + Send + 'static,
        describe: impl FnOnce(&T) -> Option<String> + Send + 'static,
    ) -> Result<T, CommitError> {
        self.call(move |connection| {
            if mark.is_some() {
                connection.make_durable()?;
            }
            let transaction = connection.begin()?;
            let changed = change(&transaction)?;
            if let Some(mut mark) = mark
                && let Some(detail) = describe(&changed)
            {
                mark.append_detail(&detail);
                mark.write(&transaction)?;
            }
            transaction.commit()?;
            Ok(changed)
        })
        .await
    }

    async fn write_audit(&self, mark: AuditMark) -> Result<(), CommitError> {
        self.call(move |connection| {
            connection.make_durable()?;
            let transaction = connection.begin()?;
            mark.write(&transaction)?;
            transaction.commit()
        })
        .await
    }
}

/// Writes the mark of a change that manages its transaction itself.
pub(super) fn write_mark(
    transaction: &Transaction<'_>,
    mark: Option<&AuditMark>,
) -> Result<(), crate::sql::Error> {
    mark.map_or(Ok(()), |mark| mark.write(transaction))
}

/// Makes the next transaction of this connection durable if it ends an audit entry.
pub(super) fn durable_if(connection: &Connection, mark: Option<&AuditMark>) -> Result<(), crate::sql::Error> {
    mark.map_or(Ok(()), |_| connection.make_durable())
}

/// Adds an entry with the current time.
fn append(
    transaction: &Transaction<'_>,
    entry: &AuditEntry,
    ends: Option<i64>,
) -> Result<AuditId, crate::sql::Error> {
    let clean = |text: &String| clean_text(text, TEXT_BYTES_MAX);
    transaction.lock_audit()?;
    chain::begin(transaction)?;
    let (last, previous) = chain::last(transaction)?;
    let row = chain::Row {
        id: last + 1,
        at: Timestamp::now().0,
        actor: clean(&entry.actor.to_string()),
        action: clean(&entry.action),
        plugin: entry.plugin.as_ref().map(clean),
        digest: entry.digest.as_ref().map(clean),
        outcome: entry.outcome.as_str().to_owned(),
        detail: clean(&entry.detail),
        ends,
    };
    let hash = row.hash(previous);
    transaction
        .prepare_cached(
            "INSERT INTO _lantern_audit (id, at, actor, action, plugin, digest, outcome, detail, ends, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            row.id,
            row.at,
            row.actor,
            row.action,
            row.plugin,
            row.digest,
            row.outcome,
            row.detail,
            row.ends,
            hash.as_bytes(),
        ])?;
    Ok(AuditId { id: row.id, hash })
}

/// Whether an entry has ended; `None` if this database does not contain it.
fn has_ended(connection: &Connection, begun: AuditId) -> Result<Option<bool>, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM _lantern_audit e WHERE e.ends = s.id)
             FROM _lantern_audit s WHERE s.id = ?1 AND s.hash = ?2",
        )?
        .query_row(params![begun.id, begun.hash.as_bytes()], |row| row.get(0))
        .optional()
}

/// At the start, before any change can begin: adds the entries of an earlier version to the chain, and ends those whose
/// changes were interrupted. Returns their number.
pub(super) fn settle(
    connection: &mut Connection,
    node: Option<&NodeConfig>,
) -> Result<usize, crate::sql::Error> {
    if chain::is_begun(connection)? && interrupted(connection, node)?.is_empty() {
        return Ok(0);
    }
    connection.make_durable()?;
    let transaction = connection.begin()?;
    chain::begin(&transaction)?;
    let closed = close_interrupted(&transaction, node)?;
    transaction.commit()?;
    Ok(closed)
}

fn close_interrupted(
    transaction: &Transaction<'_>,
    node: Option<&NodeConfig>,
) -> Result<usize, crate::sql::Error> {
    let found = interrupted(transaction, node)?;
    for (id, entry) in &found {
        append(transaction, entry, Some(*id))?;
    }
    Ok(found.len())
}

/// Returns the closing rows of the entries that have not ended, except those of other hosts that live.
fn interrupted(
    connection: &Connection,
    node: Option<&NodeConfig>,
) -> Result<Vec<(i64, AuditEntry)>, crate::sql::Error> {
    let of_others = match node {
        Some(node) => nodes::in_progress(connection, node)?,
        None => BTreeSet::new(),
    };
    let found: Vec<(i64, AuditEntry)> = connection
        .prepare(
            "SELECT id, actor, action, plugin, digest, detail FROM _lantern_audit s WHERE outcome = 'started'
             AND NOT EXISTS (SELECT 1 FROM _lantern_audit e WHERE e.ends = s.id) ORDER BY id",
        )?
        .query_map([], |row| {
            let call: String = row.get(5)?;
            let entry = AuditEntry {
                actor: Actor::parse(&row.get::<_, String>(1)?),
                action: row.get(2)?,
                plugin: row.get(3)?,
                digest: row.get(4)?,
                outcome: AuditOutcome::Interrupted,
                detail: match call.as_str() {
                    "" => INTERRUPTED.to_owned(),
                    call => format!("{call}: {INTERRUPTED}"),
                },
            };
            Ok((row.get(0)?, entry))
        })?
        .collect::<Result<_, _>>()?;
    Ok(found
        .into_iter()
        .filter(|(id, _)| !of_others.contains(id))
        .collect())
}

#[cfg(test)]
mod tests;
