//! The records in the last transaction of a rebuild: its ledger, gaps and dead letters replace those in use. The
//! checkpoint remains, because the rebuild has read exactly up to it.

use crate::sql::{OptionalExtension, Transaction, params};

use super::super::catalog::CatalogError;
use super::super::commit::{OriginId, VersionId};
use super::super::segments::OriginTable;
use super::super::values::{from_sql, to_sql};
use super::survey::sequences;
use super::{RebuildId, ReplayRange, rows_outside};
use lantern_model::batch::Timestamp;

/// The plugin's tables in the last transaction.
pub(super) struct TableSets {
    /// Tables that the new version declares; they are replaced.
    pub(super) replaced: Vec<String>,
    /// Tables that it does not declare and that remain.
    pub(super) kept: Vec<String>,
    /// Tables that it does not declare and that are dropped.
    pub(super) dropped: Vec<String>,
}

/// Removes the records of a source in the replay range, before the records of the rebuild replace them. `head` is the
/// number of messages in the first part of a ledger range that contains the start of the replay range.
pub(super) fn cut(
    transaction: &Transaction<'_>,
    plugin: &str,
    scope: &ReplayRange,
    head: Option<u64>,
    tables: &TableSets,
) -> Result<(), CatalogError> {
    if latest_origin(transaction, plugin, &scope.source)? != Some(scope.origin.0) {
        return Err(CatalogError::refused(format!(
            "source {} has begun a new epoch meanwhile; rebuild again",
            scope.source
        )));
    }
    if let Some(messages) = head {
        split_ledger(transaction, scope, messages, tables)?;
    }
    transaction.execute(
        "DELETE FROM _lantern_ledger WHERE origin = ?1 AND first_sequence > ?2",
        params![scope.origin.0, to_sql(scope.after)],
    )?;
    Ok(())
}

/// Subtracts the rows of dropped tables from the remaining ledger ranges, by counting the rows of the other tables. The
/// updates of a dropped table's rows are not recorded anywhere, so they are recounted as well.
pub(super) fn forget_dropped(
    transaction: &Transaction<'_>,
    plugin: &str,
    tables: &TableSets,
) -> Result<(), crate::sql::Error> {
    if tables.dropped.is_empty() {
        return Ok(());
    }
    let remaining = OriginTable::find_all(transaction, &tables.replaced)?;
    let ranges: Vec<(i64, OriginId, u64, u64)> = transaction
        .prepare(
            "SELECT id, origin, first_sequence, last_sequence FROM _lantern_ledger
             WHERE origin IN (SELECT id FROM _lantern_origin WHERE plugin = ?1)",
        )?
        .query_map([plugin], |row| {
            let sequence = |column| row.get(column).map(from_sql);
            Ok((row.get(0)?, OriginId(row.get(1)?), sequence(2)?, sequence(3)?))
        })?
        .collect::<Result<_, _>>()?;
    for (id, origin, first, last) in ranges {
        let mut rows = 0;
        for table in &remaining {
            rows += table.count(transaction, origin, first, last)?;
        }
        transaction.execute(
            "UPDATE _lantern_ledger SET rows = ?2, changed = ?2, inserted = ?2, updated = 0 WHERE id = ?1",
            [id, to_sql(rows)],
        )?;
    }
    Ok(())
}

/// Expired rows of the remaining ranges: the ledger counts them, and no table contains them.
pub(super) fn expired_of_kept(
    transaction: &Transaction<'_>,
    id: RebuildId,
    plugin: &str,
    scopes: &[ReplayRange],
    tables: &TableSets,
) -> Result<i64, crate::sql::Error> {
    let expired: i64 = transaction.query_row(
        "SELECT coalesce(sum(rows_expired), 0) FROM _lantern_table WHERE plugin = ?1",
        [plugin],
        |row| row.get(0),
    )?;
    let changed: i64 = transaction.query_row(
        "SELECT coalesce(sum(l.changed), 0) FROM _lantern_ledger l JOIN _lantern_origin o ON o.id = l.origin
         WHERE o.plugin = ?1",
        [plugin],
        |row| row.get(0),
    )?;
    let mut kept = 0;
    for table in &tables.replaced {
        kept += rows_outside(transaction, &format!("{table}#{}", id.0), scopes)?;
    }
    for table in &tables.kept {
        kept += rows_outside(transaction, table, scopes)?;
    }
    Ok((changed - to_sql(kept)).clamp(0, expired))
}

/// The records of the rebuild become the records in use.
pub(super) fn adopt_history(
    transaction: &Transaction<'_>,
    id: RebuildId,
    plugin: &str,
    scope: &ReplayRange,
    version: VersionId,
    tables: &TableSets,
) -> Result<(), CatalogError> {
    let Some(new) = latest_origin(transaction, &id.name_of(plugin), &scope.source)? else {
        return Err(CatalogError::refused(format!(
            "nothing of source {} was read",
            scope.source
        )));
    };
    let old = scope.origin.0;
    let sequence = |origin: i64| {
        let sql = "SELECT sequence FROM _lantern_checkpoint WHERE origin = ?1";
        transaction.query_row(sql, [origin], |row| row.get(0).map(from_sql))
    };
    let (end, checkpoint) = (sequence(new)?.max(scope.after), sequence(old)?);
    if end > checkpoint {
        return Err(CatalogError::refused(format!(
            "source {}: the rebuild has read up to sequence {end}, the tables in use only up to {checkpoint}",
            scope.source
        )));
    }
    let erased = adopt_dead_letters(transaction, scope, new, version)?;
    let still_missing = adopt_gaps(transaction, scope, new, end)?;
    transaction.execute(
        "UPDATE _lantern_ledger SET origin = ?1 WHERE origin = ?2",
        [old, new],
    )?;
    extend_ledger(transaction, scope, end, checkpoint, still_missing, version)?;
    transaction.execute(
        "UPDATE _lantern_ledger SET messages = messages + ?3, dead = dead + ?3
         WHERE origin = ?1 AND last_sequence = ?2",
        params![old, to_sql(checkpoint), erased],
    )?;
    let parts = sequences(transaction, &tables.kept)?;
    if !parts.is_empty() && checkpoint > scope.after {
        let kept: i64 = transaction.query_row(
            &format!("SELECT count(*) FROM ({}) AS r", parts.join(" UNION ALL ")),
            params![old, to_sql(scope.after + 1), to_sql(checkpoint)],
            |row| row.get(0),
        )?;
        transaction.execute(
            "UPDATE _lantern_ledger SET rows = rows + ?3, changed = changed + ?3, inserted = inserted + ?3
             WHERE origin = ?1 AND last_sequence = ?2",
            params![old, to_sql(checkpoint), kept],
        )?;
    }
    Ok(())
}

/// Dead letters of messages that were read again: a discarded one stays discarded, and one whose message was now
/// projected is resolved by the version that projected it. Returns how many dead
/// letters of erased messages the rebuild did not read.
fn adopt_dead_letters(
    transaction: &Transaction<'_>,
    scope: &ReplayRange,
    new: i64,
    version: VersionId,
) -> Result<i64, crate::sql::Error> {
    let old = scope.origin.0;
    let after = to_sql(scope.after);
    transaction.execute(
        "UPDATE _lantern_dead_letter AS n SET first_at = o.first_at, attempts = o.attempts + 1,
             state = CASE WHEN o.state = 'discarded' AND n.state <> 'forgotten' THEN 'discarded' ELSE n.state END
         FROM _lantern_dead_letter AS o
         WHERE n.origin = ?2 AND o.origin = ?1 AND o.sequence = n.sequence AND o.sequence > ?3",
        params![old, new, after],
    )?;
    transaction.execute(
        "DELETE FROM _lantern_dead_letter AS o WHERE o.origin = ?1 AND o.sequence > ?3 AND EXISTS (
             SELECT 1 FROM _lantern_dead_letter n WHERE n.origin = ?2 AND n.sequence = o.sequence)",
        params![old, new, after],
    )?;
    transaction.execute(
        "UPDATE _lantern_dead_letter SET resolved_by = ?3, attempts = attempts + 1, last_at = ?4, state = 'resolved'
         WHERE origin = ?1 AND sequence > ?2 AND state <> 'forgotten'",
        params![old, after, version.0, Timestamp::now().0],
    )?;
    // Erased messages after the last one that the stream holds: no batch has covered them.
    let erased = transaction.query_row(
        "SELECT count(*) FROM _lantern_dead_letter WHERE origin = ?1 AND sequence > ?2 AND state = 'forgotten'",
        [old, after],
        |row| row.get(0),
    )?;
    transaction.execute(
        "UPDATE _lantern_dead_letter SET origin = ?1 WHERE origin = ?2",
        [old, new],
    )?;
    Ok(erased)
}

/// Gaps in the replay range up to `end` are those that the rebuild found; the others remain. Returns the number of
/// missing sequences after `end`.
fn adopt_gaps(
    transaction: &Transaction<'_>,
    scope: &ReplayRange,
    new: i64,
    end: u64,
) -> Result<i64, crate::sql::Error> {
    let (old, after, end) = (scope.origin.0, to_sql(scope.after), to_sql(end));
    transaction.execute(
        "INSERT INTO _lantern_gap (origin, first_sequence, last_sequence, exact, reason, recorded_at)
         SELECT origin, max(first_sequence, CAST(?3 AS BIGINT) + 1), last_sequence, exact, reason, recorded_at FROM _lantern_gap
         WHERE origin = ?1 AND first_sequence <= ?2 AND last_sequence > ?3",
        [old, after, end],
    )?;
    transaction.execute(
        "UPDATE _lantern_gap SET last_sequence = ?2 WHERE origin = ?1 AND first_sequence <= ?2 AND last_sequence > ?2",
        [old, after],
    )?;
    transaction.execute(
        "DELETE FROM _lantern_gap WHERE origin = ?1 AND first_sequence > ?2 AND last_sequence <= ?3",
        [old, after, end],
    )?;
    transaction.execute(
        "UPDATE _lantern_gap SET first_sequence = CAST(?3 AS BIGINT) + 1
         WHERE origin = ?1 AND first_sequence > ?2 AND first_sequence <= ?3",
        [old, after, end],
    )?;
    transaction.execute(
        "UPDATE _lantern_gap SET origin = ?1 WHERE origin = ?2",
        [old, new],
    )?;
    transaction.query_row(
        "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM _lantern_gap
         WHERE origin = ?1 AND first_sequence > ?2",
        [old, end],
        |row| row.get(0),
    )
}

/// The last range ends at the checkpoint, even if the stream holds no message after `end`.
fn extend_ledger(
    transaction: &Transaction<'_>,
    scope: &ReplayRange,
    end: u64,
    checkpoint: u64,
    missing: i64,
    version: VersionId,
) -> Result<(), crate::sql::Error> {
    let (old, after) = (scope.origin.0, to_sql(scope.after));
    if checkpoint == end {
        return Ok(());
    }
    let extended = transaction.execute(
        "UPDATE _lantern_ledger SET last_sequence = ?4, missing = missing + ?5
         WHERE origin = ?1 AND first_sequence > ?2 AND last_sequence = ?3",
        params![old, after, to_sql(end), to_sql(checkpoint), missing],
    )?;
    if extended == 0 {
        transaction.execute(
            "INSERT INTO _lantern_ledger (origin, plugin_version, first_sequence, last_sequence, messages, projected,
                 skipped, dead, missing, rows, changed, first_at, last_at)
             VALUES (?1, ?2, ?3, ?4, 0, 0, 0, 0, ?5, 0, 0, ?6, ?6)",
            params![
                old,
                version.0,
                to_sql(end + 1),
                to_sql(checkpoint),
                missing,
                Timestamp::now().0
            ],
        )?;
    }
    Ok(())
}

pub(super) fn latest_origin(
    connection: &crate::sql::Connection,
    plugin: &str,
    source: &str,
) -> Result<Option<i64>, crate::sql::Error> {
    connection
        .query_row(
            "SELECT id FROM _lantern_origin WHERE plugin = ?1 AND source = ?2 ORDER BY epoch DESC LIMIT 1",
            [plugin, source],
            |row| row.get(0),
        )
        .optional()
}

/// Cuts the ledger range that contains the start of the replay range. The rows, dead letters and gaps of the first part
/// are counted; the number of its messages follows from the messages that were read again.
fn split_ledger(
    transaction: &Transaction<'_>,
    scope: &ReplayRange,
    messages: u64,
    tables: &TableSets,
) -> Result<(), crate::sql::Error> {
    let (origin, after) = (scope.origin.0, to_sql(scope.after));
    let spanning: Option<(i64, i64, i64)> = transaction
        .query_row(
            "SELECT id, first_sequence, skipped FROM _lantern_ledger
             WHERE origin = ?1 AND first_sequence <= ?2 AND last_sequence > ?2",
            [origin, after],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((range, first, skipped)) = spanning else {
        return Ok(());
    };
    let all = [&tables.replaced, &tables.kept, &tables.dropped]
        .into_iter()
        .flatten();
    let parts = sequences(transaction, &all.cloned().collect::<Vec<_>>())?;
    let count = |sql: &str| transaction.query_row(sql, [origin, first, after], |row| row.get::<_, i64>(0));
    let (mut rows, mut with_rows) = (0, 0);
    if !parts.is_empty() {
        let parts = parts.join(" UNION ALL ");
        rows = count(&format!("SELECT count(*) FROM ({parts}) AS r"))?;
        with_rows = count(&format!("SELECT count(DISTINCT s) FROM ({parts}) AS r"))?;
    }
    let dead = count(
        "SELECT count(*) FROM _lantern_dead_letter
         WHERE origin = ?1 AND sequence BETWEEN ?2 AND ?3 AND state <> 'resolved'",
    )?;
    let missing = count(
        "SELECT coalesce(sum(min(last_sequence, ?3) - max(first_sequence, ?2) + 1), 0) FROM _lantern_gap
         WHERE origin = ?1 AND first_sequence <= ?3 AND last_sequence >= ?2",
    )?;
    let messages = to_sql(messages).max(with_rows + dead);
    // Messages that left nothing were skipped, or their rows have expired.
    let skipped = skipped.min(messages - with_rows - dead);
    transaction
        .execute(
            "UPDATE _lantern_ledger SET last_sequence = ?2, messages = ?3, projected = ?4, skipped = ?5, dead = ?6,
                 missing = ?7, rows = ?8, changed = ?8, inserted = ?8, updated = 0 WHERE id = ?1",
            params![
                range,
                after,
                messages,
                messages - skipped - dead,
                skipped,
                dead,
                missing,
                rows
            ],
        )
        .map(|_| ())
}
