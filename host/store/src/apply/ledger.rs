//! Gaps and ledger ranges of a batch.

use crate::sql::{Connection, OptionalExtension, params};

use crate::commit::{Commit, Counts, NewGap, OriginId};
use crate::values::to_sql;
use lantern_model::batch::Timestamp;

/// Records a gap. A gap that continues the last recorded one of the origin extends it, so that a stream which is
/// trimmed all day does not fill the table.
pub(super) fn write_gap(
    connection: &Connection,
    origin: OriginId,
    gap: &NewGap,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    let extended = connection
        .prepare_cached(
            "UPDATE _lantern_gap SET last_sequence = ?3, recorded_at = ?6
             WHERE origin = ?1 AND last_sequence = CAST(?2 AS BIGINT) - 1 AND exact = ?4 AND reason = ?5",
        )?
        .execute(params![
            origin.0,
            to_sql(gap.first),
            to_sql(gap.last),
            gap.exact,
            gap.reason,
            now.0
        ])?;
    if extended == 0 {
        connection
            .prepare_cached(
                "INSERT INTO _lantern_gap (origin, first_sequence, last_sequence, exact, reason, recorded_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                origin.0,
                to_sql(gap.first),
                to_sql(gap.last),
                gap.exact,
                gap.reason,
                now.0
            ])?;
    }
    Ok(())
}

/// Extends the last range of the origin if it has the same version; otherwise begins one.
pub(super) fn write_ledger(
    connection: &Connection,
    commit: &Commit,
    counts: Counts,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    let last: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT id, plugin_version FROM _lantern_ledger WHERE origin = ?1 ORDER BY first_sequence DESC LIMIT 1",
        )?
        .query_row([commit.origin.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match last {
        Some((id, version)) if version == commit.plugin.version.0 => {
            extend_range(connection, id, commit, counts, now)
        }
        _ => begin_range(connection, commit, counts, now),
    }
}

fn extend_range(
    connection: &Connection,
    id: i64,
    commit: &Commit,
    counts: Counts,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    connection
        .prepare_cached(
            "UPDATE _lantern_ledger SET last_sequence = ?2, messages = messages + ?3,
                     projected = projected + ?4, skipped = skipped + ?5, dead = dead + ?6,
                     missing = missing + ?7, rows = rows + ?8, changed = changed + ?9, last_at = ?10,
                     inserted = inserted + ?11, updated = updated + ?12
                 WHERE id = ?1",
        )?
        .execute(params![
            id,
            to_sql(commit.through.sequence),
            to_sql(counts.messages),
            to_sql(counts.projected),
            to_sql(counts.skipped),
            to_sql(counts.dead),
            to_sql(counts.missing),
            to_sql(counts.rows),
            to_sql(counts.changed),
            now.0,
            to_sql(counts.inserted),
            to_sql(counts.updated)
        ])
        .map(|_| ())
}

fn begin_range(
    connection: &Connection,
    commit: &Commit,
    counts: Counts,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    connection
        .prepare_cached(
            "INSERT INTO _lantern_ledger (origin, plugin_version, first_sequence, last_sequence, messages,
                     projected, skipped, dead, missing, rows, changed, first_at, last_at, inserted, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13, ?14)",
        )?
        .execute(params![
            commit.origin.0,
            commit.plugin.version.0,
            to_sql(commit.after + 1),
            to_sql(commit.through.sequence),
            to_sql(counts.messages),
            to_sql(counts.projected),
            to_sql(counts.skipped),
            to_sql(counts.dead),
            to_sql(counts.missing),
            to_sql(counts.rows),
            to_sql(counts.changed),
            now.0,
            to_sql(counts.inserted),
            to_sql(counts.updated)
        ])
        .map(|_| ())
}
