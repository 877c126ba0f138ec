//! The ledger ranges after a reprojection.

use crate::sql::{Transaction, params};

use super::Rewrite;
use super::split::{Division, Stretch};
use super::survey::Survey;
use crate::commit::{Counts, OriginId, VersionId};
use crate::values::to_sql;
use lantern_model::batch::Timestamp;

/// Replaces the range with the pieces and the rest.
pub(super) fn write_ranges(
    transaction: &Transaction<'_>,
    rewrite: &Rewrite,
    survey: &Survey,
    stretches: &[Stretch],
    division: &Division,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    let range = &survey.range;
    transaction.execute("DELETE FROM _lantern_ledger WHERE id = ?1", [range.id])?;
    let origin = rewrite.origin;
    let old = (rewrite.bad, range.first_at, range.last_at);
    let new = (rewrite.plugin.version, now.0, now.0);
    for (stretch, counts) in stretches.iter().zip(&division.stretches) {
        let by = if stretch.new.is_some() { new } else { old };
        insert_range(transaction, origin, by, stretch.first, stretch.last, counts)?;
    }
    if range.last > rewrite.through {
        let first = rewrite.through + 1;
        insert_range(transaction, origin, old, first, range.last, &division.rest)?;
    }
    Ok(())
}

fn insert_range(
    transaction: &Transaction<'_>,
    origin: OriginId,
    (version, first_at, last_at): (VersionId, i64, i64),
    first: u64,
    last: u64,
    counts: &Counts,
) -> Result<(), crate::sql::Error> {
    transaction
        .prepare_cached(
            "INSERT INTO _lantern_ledger (origin, plugin_version, first_sequence, last_sequence, messages,
                 projected, skipped, dead, missing, rows, changed, first_at, last_at, inserted, updated)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            origin.0,
            version.0,
            to_sql(first),
            to_sql(last),
            to_sql(counts.messages),
            to_sql(counts.projected),
            to_sql(counts.skipped),
            to_sql(counts.dead),
            to_sql(counts.missing),
            to_sql(counts.rows),
            to_sql(counts.changed),
            first_at,
            last_at,
            to_sql(counts.inserted),
            to_sql(counts.updated)
        ])
        .map(|_| ())
}

/// Merges adjacent ranges of the same version, from the one before `first` to the one after `last`.
pub(super) fn merge_ranges(
    transaction: &Transaction<'_>,
    origin: OriginId,
    first: u64,
    last: u64,
) -> Result<(), crate::sql::Error> {
    let near: Vec<(i64, i64)> = transaction
        .prepare_cached(
            "SELECT id, plugin_version FROM _lantern_ledger
             WHERE origin = ?1 AND last_sequence >= CAST(?2 AS BIGINT) - 1 AND first_sequence <= CAST(?3 AS BIGINT) + 1 ORDER BY first_sequence",
        )?
        .query_map(params![origin.0, to_sql(first), to_sql(last)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut kept: Option<(i64, i64)> = None;
    for (id, version) in near {
        match kept {
            Some((into, same)) if same == version => {
                transaction
                    .prepare_cached(
                        "UPDATE _lantern_ledger AS l SET last_sequence = m.last_sequence,
                             messages = l.messages + m.messages, projected = l.projected + m.projected,
                             skipped = l.skipped + m.skipped, dead = l.dead + m.dead,
                             missing = l.missing + m.missing, rows = l.rows + m.rows,
                             changed = l.changed + m.changed, inserted = l.inserted + m.inserted,
                             updated = l.updated + m.updated, first_at = min(l.first_at, m.first_at),
                             last_at = max(l.last_at, m.last_at)
                         FROM _lantern_ledger AS m WHERE l.id = ?1 AND m.id = ?2",
                    )?
                    .execute([into, id])?;
                transaction.execute("DELETE FROM _lantern_ledger WHERE id = ?1", [id])?;
            }
            _ => kept = Some((id, version)),
        }
    }
    Ok(())
}
