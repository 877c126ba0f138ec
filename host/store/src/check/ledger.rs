//! Checks the ledger of each epoch: contiguous ranges, sums, and the numbers of dead letters and gaps.

use crate::sql::{Connection, Row};

use super::{RESTORE, Report, SourceReport, plural, rebuild};
use crate::commit::{Counts, OriginId};
use crate::sources::ledger_sums;
use crate::values::from_sql;

struct CheckedEpoch {
    id: OriginId,
    plugin: String,
    begins_after: u64,
    checkpoint: u64,
}

pub(super) fn check_sources(connection: &Connection, report: &mut Report) -> Result<(), crate::sql::Error> {
    let mut statement = connection.prepare(
        "SELECT o.id, o.plugin, o.source, o.epoch, o.stream, o.begins_after, coalesce(c.sequence, -1)
         FROM _lantern_origin o LEFT JOIN _lantern_checkpoint c ON c.origin = o.id
         ORDER BY o.plugin, o.source, o.epoch",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = OriginId(row.get(0)?);
        let (plugin, source): (String, String) = (row.get(1)?, row.get(2)?);
        let epoch = from_sql(row.get(3)?);
        let place = format!("{plugin}/{source}, epoch {epoch}");
        let checkpoint: i64 = row.get(6)?;
        if checkpoint < 0 {
            report.problem(format!("{place}: there is no checkpoint"), RESTORE);
        }
        let origin = CheckedEpoch {
            id,
            plugin: plugin.clone(),
            begins_after: from_sql(row.get(5)?),
            checkpoint: from_sql(checkpoint),
        };
        let counts = ledger_sums(connection, id)?;
        check_ledger(connection, &place, &origin, report)?;
        check_sums(connection, &place, &origin, counts, report)?;
        report.sources.push(SourceReport {
            plugin,
            source,
            epoch,
            stream: row.get(4)?,
            checkpoint: origin.checkpoint,
            counts,
        });
    }
    Ok(())
}

/// Checks that the ranges are contiguous from the start of the epoch to the checkpoint, and that each adds up.
fn check_ledger(
    connection: &Connection,
    place: &str,
    origin: &CheckedEpoch,
    report: &mut Report,
) -> Result<(), crate::sql::Error> {
    let mut statement = connection.prepare(
        "SELECT first_sequence, last_sequence, messages, projected, skipped, dead, missing, changed, inserted, updated
         FROM _lantern_ledger WHERE origin = ?1 ORDER BY first_sequence",
    )?;
    let mut rows = statement.query([origin.id.0])?;
    let mut end = origin.begins_after;
    while let Some(row) = rows.next()? {
        let (first, last): (u64, u64) = (row.get(0).map(from_sql)?, row.get(1).map(from_sql)?);
        if first != end + 1 {
            report.problem(
                format!("{place}: the ledger has a hole between {end} and {first}"),
                rebuild(&origin.plugin),
            );
        }
        for problem in range_problems(&row)? {
            report.problem(format!("{place}: {problem}"), rebuild(&origin.plugin));
        }
        end = last;
    }
    if end != origin.checkpoint {
        report.problem(
            format!(
                "{place}: the ledger ends at {end}, the checkpoint is {}",
                origin.checkpoint
            ),
            rebuild(&origin.plugin),
        );
    }
    Ok(())
}

/// What is wrong with the counts of a range.
fn range_problems(row: &Row<'_>) -> Result<Vec<String>, crate::sql::Error> {
    let number = |column: usize| row.get::<_, i64>(column).map(from_sql);
    let (first, last) = (number(0)?, number(1)?);
    let (messages, missing) = (number(2)?, number(6)?);
    let mut problems = Vec::new();
    if messages != number(3)? + number(4)? + number(5)? {
        problems.push(format!(
            "the ledger's counts of messages {first} to {last} do not add up: {messages} is not \
                 {} projected + {} skipped + {} dead",
            number(3)?,
            number(4)?,
            number(5)?
        ));
    }
    if last < first || messages + missing > last - first + 1 {
        problems.push(format!(
            "{first} to {last} cannot hold {messages} messages and {missing} missing"
        ));
    }
    let (changed, inserted, updated) = (number(7)?, number(8)?, number(9)?);
    if inserted + updated > changed {
        problems.push(format!(
            "the ledger's rows of messages {first} to {last} do not add up: {inserted} inserted and \
                 {updated} updated of {changed} changed"
        ));
    }
    Ok(problems)
}

/// Compares the numbers of dead letters and gaps with the ledger.
fn check_sums(
    connection: &Connection,
    place: &str,
    origin: &CheckedEpoch,
    counts: Counts,
    report: &mut Report,
) -> Result<(), crate::sql::Error> {
    let of = |sql: &str| connection.query_row(sql, [origin.id.0], |row| row.get(0).map(from_sql));
    let dead = of("SELECT count(*) FROM _lantern_dead_letter WHERE origin = ?1 AND state <> 'resolved'")?;
    if dead != counts.dead {
        report.problem(
            format!(
                "{place}: {} in the table, {} in the ledger",
                plural(dead, "dead letter"),
                counts.dead
            ),
            rebuild(&origin.plugin),
        );
    }
    let missing = of(
        "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM _lantern_gap WHERE origin = ?1",
    )?;
    if missing != counts.missing {
        report.problem(
            format!(
                "{place}: gaps of {missing} messages recorded, {} in the ledger",
                counts.missing
            ),
            rebuild(&origin.plugin),
        );
    }
    Ok(())
}
