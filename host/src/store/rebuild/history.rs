//! The last transaction of a rebuild, as far as it is about what happened: ledger, gaps, dead letters and checkpoints of the
//! rebuild come in the place of those that they make true again.

use rusqlite::{OptionalExtension, Transaction, params};

use super::super::apply::to_sql;
use super::super::catalog::CatalogError;
use super::super::statement::quote_text;
use super::{RebuildId, Scope, tables_of, unreachable_rows};

/// Makes room for what the rebuild remembers of a source: what lies behind the scope's beginning is forgotten.
pub(super) fn cut(transaction: &Transaction<'_>, plugin: &str, scope: &Scope) -> Result<(), CatalogError> {
    if latest_origin(transaction, plugin, &scope.source)? != Some(scope.origin.0) {
        return Err(CatalogError::Refused(vec![format!(
            "source {} has begun a new epoch meanwhile; rebuild again",
            scope.source
        )]));
    }
    split_ledger(transaction, plugin, scope)?;
    for (table, column) in [
        ("ledger", "first_sequence"),
        ("gap", "first_sequence"),
        ("dead_letter", "sequence"),
    ] {
        transaction.execute(
            &format!("DELETE FROM _lantern_{table} WHERE origin = ?1 AND {column} > ?2"),
            params![scope.origin.0, to_sql(scope.after)],
        )?;
    }
    Ok(())
}

/// Rows of the kept part that have gone by age: the ledger knows them, and no table has them.
pub(super) fn expired_of_kept(
    transaction: &Transaction<'_>,
    plugin: &str,
    scopes: &[Scope],
) -> Result<i64, rusqlite::Error> {
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
    let kept: u64 = unreachable_rows(transaction, plugin, scopes)?
        .iter()
        .map(|table| table.rows)
        .sum();
    Ok((changed - to_sql(kept)).clamp(0, expired))
}

/// What the rebuild remembers of a source becomes what is in use.
pub(super) fn adopt_history(
    transaction: &Transaction<'_>,
    id: RebuildId,
    plugin: &str,
    scope: &Scope,
) -> Result<(), CatalogError> {
    let Some(new) = latest_origin(transaction, &id.name_of(plugin), &scope.source)? else {
        return Err(CatalogError::Refused(vec![format!(
            "nothing of source {} was read",
            scope.source
        )]));
    };
    let old = scope.origin.0;
    for table in ["ledger", "gap", "dead_letter"] {
        transaction.execute(
            &format!("UPDATE _lantern_{table} SET origin = ?1 WHERE origin = ?2"),
            [old, new],
        )?;
    }
    transaction.execute(
        "UPDATE _lantern_checkpoint SET (sequence, published_ns, payload_sha256, committed_at) =
             (SELECT sequence, published_ns, payload_sha256, committed_at FROM _lantern_checkpoint WHERE origin = ?2)
         WHERE origin = ?1",
        [old, new],
    )?;
    Ok(())
}

fn latest_origin(
    transaction: &Transaction<'_>,
    plugin: &str,
    source: &str,
) -> Result<Option<i64>, rusqlite::Error> {
    transaction
        .query_row(
            "SELECT id FROM _lantern_origin WHERE plugin = ?1 AND source = ?2 ORDER BY epoch DESC LIMIT 1",
            [plugin, source],
            |row| row.get(0),
        )
        .optional()
}

/// Cuts the range of the ledger that lies on both sides of where the rebuild begins, and a gap that does. The part that
/// stays is counted from what is there: rows, dead letters and gaps exactly; messages that were skipped on purpose left
/// no trace, and are taken to lie in it as far as they fit.
fn split_ledger(transaction: &Transaction<'_>, plugin: &str, scope: &Scope) -> Result<(), rusqlite::Error> {
    let (origin, after) = (scope.origin.0, to_sql(scope.after));
    transaction.execute(
        "UPDATE _lantern_gap SET last_sequence = ?2 WHERE origin = ?1 AND first_sequence <= ?2 AND last_sequence > ?2",
        [origin, after],
    )?;
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
    let mut rows = 0;
    let mut each = Vec::new();
    for (table, _) in tables_of(transaction, plugin)? {
        let part = format!(
            "SELECT _sequence FROM {} WHERE _origin = {origin} AND _sequence BETWEEN {first} AND {after}",
            quote_text(&table)
        );
        let sql = format!("SELECT count(*) FROM ({part})");
        rows += transaction.query_row(&sql, [], |row| row.get::<_, i64>(0))?;
        each.push(part);
    }
    let projected: i64 = if each.is_empty() {
        0
    } else {
        let sql = format!("SELECT count(*) FROM ({})", each.join(" UNION "));
        transaction.query_row(&sql, [], |row| row.get(0))?
    };
    let count = |sql: &str| transaction.query_row(sql, [origin, first, after], |row| row.get::<_, i64>(0));
    let dead = count(
        "SELECT count(*) FROM _lantern_dead_letter
         WHERE origin = ?1 AND sequence BETWEEN ?2 AND ?3 AND state <> 'resolved'",
    )?;
    let missing = count(
        "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM _lantern_gap
         WHERE origin = ?1 AND first_sequence >= ?2 AND last_sequence <= ?3",
    )?;
    let skipped = skipped.min(after - first + 1 - projected - dead - missing).max(0);
    transaction
        .execute(
            "UPDATE _lantern_ledger SET last_sequence = ?2, messages = ?3, projected = ?4, skipped = ?5, dead = ?6,
                 missing = ?7, rows = ?8, changed = ?8, inserted = ?8, updated = 0 WHERE id = ?1",
            params![
                range,
                after,
                projected + skipped + dead,
                projected,
                skipped,
                dead,
                missing,
                rows
            ],
        )
        .map(|_| ())
}
