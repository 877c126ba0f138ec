//! Writes the audit: who did what, and how it ended. Rows are only added, and [`chain`] links each one to the row before
//! it. The list is in `reader`, the verification in `check`.
//!
//! A change has an entry that is committed before the change begins ([`Store::begin_audit`]), and a second row when it
//! ends ([`Store::end_audit`]). So no change takes effect without an entry. A change that is one transaction writes its
//! last row in that transaction ([`AuditMark`]). Entries that have not ended when the host stops are ended as
//! [`AuditOutcome::Interrupted`] at the next start.

pub(super) mod chain;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::access::durable;
use super::{CommitError, Store, Synchronous};
pub use chain::AuditHash;
use lantern_model::batch::{Timestamp, clean_text};

/// Longest text of an audit entry's parts, in bytes; they may hold text from a request.
const TEXT_BYTES_MAX: usize = 1024;

/// How long the start waits for another process that holds the database's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The detail of an entry whose change was interrupted.
const INTERRUPTED: &str = "the host stopped before the change ended; it may have taken effect";

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum AuditOutcome {
    /// It has not ended.
    Started,
    /// It took effect.
    Done,
    /// It was not allowed, or made no sense; nothing changed.
    Refused,
    /// The host could not do it.
    Failed,
    /// The host stopped before it ended; it may have taken effect.
    Interrupted,
}

impl AuditOutcome {
    /// `started`, `done`, `refused`, `failed` or `interrupted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Who did what, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// A token's name, [`AuditEntry::HOST`] or [`AuditEntry::NOBODY`].
    pub actor: String,
    /// What was done, as `noun.verb`.
    pub action: String,
    /// The plugin that it was about.
    pub plugin: Option<String>,
    /// The version that it was about.
    pub digest: Option<String>,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// For people: what changed, or why not.
    pub detail: String,
}

impl AuditEntry {
    /// The actor of what the host does by itself. No token can have this name.
    pub const HOST: &str = "(host)";
    /// The actor of a request without a good token. No token can have this name.
    pub const NOBODY: &str = "(nobody)";
}

/// An entry that was committed before its change began. The hash tells it from an entry with the same number in another
/// database, for example a copy that replaced this one meanwhile.
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

    /// Adds the row. Does nothing where the entry has ended already.
    pub(super) fn write(&self, transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        let ends = match self.ends {
            None => None,
            Some(begun) => match has_ended(transaction, begun)? {
                Some(true) => return Ok(()),
                Some(false) => Some(begun.id),
                // The database was replaced meanwhile: this row tells what happened all the same.
                None => None,
            },
        };
        append(transaction, &self.entry, ends).map(|_| ())
    }
}

impl Store {
    /// Records that a change is about to begin. The entry is on the disk when this returns; its outcome is
    /// [`AuditOutcome::Started`], whatever `entry` says.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`]; the change must not begin then.
    pub async fn begin_audit(&self, entry: AuditEntry) -> Result<AuditId, CommitError> {
        let settled = Arc::clone(&self.audit_settled);
        let entry = AuditEntry {
            outcome: AuditOutcome::Started,
            ..entry
        };
        self.call(move |connection| {
            durable(connection)?;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !settled.load(Ordering::Relaxed) {
                close_interrupted(&transaction)?;
            }
            let begun = append(&transaction, &entry, None)?;
            transaction.commit()?;
            settled.store(true, Ordering::Relaxed);
            Ok(begun)
        })
        .await
    }

    /// Records how a change ended. Does nothing where the change recorded that in its own transaction.
    ///
    /// # Errors
    /// As for [`Store::begin_audit`].
    pub async fn end_audit(&self, begun: AuditId, entry: AuditEntry) -> Result<(), CommitError> {
        self.write_audit(AuditMark::ending(begun, entry)).await
    }

    /// Records something that changes nothing, such as a refusal or a read.
    ///
    /// # Errors
    /// As for [`Store::begin_audit`].
    pub async fn append_audit(&self, entry: AuditEntry) -> Result<(), CommitError> {
        self.write_audit(entry.into()).await
    }

    async fn write_audit(&self, mark: AuditMark) -> Result<(), CommitError> {
        self.call(move |connection| {
            durable(connection)?;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            mark.write(&transaction)?;
            transaction.commit()
        })
        .await
    }
}

/// Adds an entry at the present time.
fn append(
    transaction: &Transaction<'_>,
    entry: &AuditEntry,
    ends: Option<i64>,
) -> Result<AuditId, rusqlite::Error> {
    let clean = |text: &String| clean_text(text, TEXT_BYTES_MAX);
    chain::begin(transaction)?;
    let (last, previous) = chain::last(transaction)?;
    let row = chain::Row {
        id: last + 1,
        at: Timestamp::now().0,
        actor: clean(&entry.actor),
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

/// Whether an entry has ended; none when it is not in this database.
fn has_ended(connection: &Connection, begun: AuditId) -> Result<Option<bool>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM _lantern_audit e WHERE e.ends = s.id)
             FROM _lantern_audit s WHERE s.id = ?1 AND s.hash = ?2",
        )?
        .query_row(params![begun.id, begun.hash.as_bytes()], |row| row.get(0))
        .optional()
}

/// At the start, before any change can begin: adds the entries of an earlier version to the chain, and ends those whose
/// changes were interrupted. Returns how many were.
pub(super) fn settle(path: &Path) -> Result<usize, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if chain::is_begun(&connection)? && interrupted(&connection)?.is_empty() {
        return Ok(0);
    }
    connection.execute_batch(Synchronous::Full.pragma())?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    chain::begin(&transaction)?;
    let closed = close_interrupted(&transaction)?;
    transaction.commit()?;
    Ok(closed)
}

fn close_interrupted(transaction: &Transaction<'_>) -> Result<usize, rusqlite::Error> {
    let found = interrupted(transaction)?;
    for (id, entry) in &found {
        append(transaction, entry, Some(*id))?;
    }
    Ok(found.len())
}

/// The entries that have not ended, as they are to be ended.
fn interrupted(connection: &Connection) -> Result<Vec<(i64, AuditEntry)>, rusqlite::Error> {
    connection
        .prepare(
            "SELECT id, actor, action, plugin, digest, detail FROM _lantern_audit s WHERE outcome = 'started'
             AND NOT EXISTS (SELECT 1 FROM _lantern_audit e WHERE e.ends = s.id) ORDER BY id",
        )?
        .query_map([], |row| {
            let call: String = row.get(5)?;
            let entry = AuditEntry {
                actor: row.get(1)?,
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
        .collect()
}

#[cfg(test)]
mod tests;
