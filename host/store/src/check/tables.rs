//! Checks the rows of plugin tables: their number, and that each comes from one message in the ledger.

use crate::sql::Connection;
use crate::sql::Kind;

use super::{Report, TableReport, count, grouped, plural, rebuild};
use crate::search::{IndexDifference, difference, index_of};
use crate::segments::{Difference, differences, set_of};
use crate::statement::quote_text;
use crate::values::from_sql;

/// Checks that every row comes from a message in the ledger, that none is stored twice, and that as many rows exist as
/// were inserted.
pub(super) fn check_tables(connection: &Connection, report: &mut Report) -> Result<(), crate::sql::Error> {
    let mut statement = connection
        .prepare("SELECT name, plugin, updates, rows_expired FROM _lantern_table ORDER BY plugin, name")?;
    let tables: Vec<TableReport> = statement
        .query_map([], |row| {
            Ok(TableReport {
                table: row.get(0)?,
                plugin: row.get(1)?,
                merges: row.get(2)?,
                expired: row.get(3).map(from_sql)?,
                row_count: 0,
            })
        })?
        .collect::<Result<_, _>>()?;
    for mut table in tables {
        let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
        if !connection.query_row(exists, [&table.table], |row| row.get::<_, bool>(0))? {
            report.problem(
                format!("{}: table {} is missing", table.plugin, table.table),
                rebuild(&table.plugin),
            );
            continue;
        }
        check_rows(connection, &table, report)?;
        check_segments(connection, &table, report)?;
        check_search(connection, &table, report)?;
        table.row_count = count(
            connection,
            &format!("SELECT count(*) FROM {}", quote_text(&table.table)),
        )?;
        report.tables.push(table);
    }
    let mut plugins: Vec<String> = report.tables.iter().map(|table| table.plugin.clone()).collect();
    plugins.dedup();
    for plugin in plugins {
        check_number(connection, &plugin, report)?;
    }
    Ok(())
}

/// Compares the number of rows with the ledger.
fn check_number(connection: &Connection, plugin: &str, report: &mut Report) -> Result<(), crate::sql::Error> {
    let (changed, inserted, updated): (u64, u64, u64) = connection.query_row(
        "SELECT coalesce(sum(l.changed), 0), coalesce(sum(l.inserted), 0), coalesce(sum(l.updated), 0)
         FROM _lantern_ledger l JOIN _lantern_origin o ON o.id = l.origin WHERE o.plugin = ?1",
        [plugin],
        |row| {
            Ok((
                row.get(0).map(from_sql)?,
                row.get(1).map(from_sql)?,
                row.get(2).map(from_sql)?,
            ))
        },
    )?;
    let of_plugin = || report.tables.iter().filter(|table| table.plugin == plugin);
    let held: u64 = of_plugin().map(|table| table.row_count + table.expired).sum();
    // Ranges of earlier versions do not distinguish inserted from updated rows; then the sum is only a limit.
    let known = inserted + updated == changed;
    let least = if known { inserted } else { 0 };
    let most = if known { inserted } else { changed };
    let (word, number) = match held {
        held if held < least => ("missing", least - held),
        held if held > most => ("too many", held - most),
        _ => {
            if !known {
                report.unverified.push(format!(
                    "{plugin}: whether rows are missing: the ledger counts inserted and updated rows together in ranges \
                     of an earlier version"
                ));
            }
            return Ok(());
        }
    };
    let each: Vec<String> = of_plugin()
        .map(|table| format!("{} {}", table.table, grouped(table.row_count + table.expired)))
        .collect();
    let verb = if number == 1 { "is" } else { "are" };
    let problem = format!(
        "{plugin}: {} {verb} {word} (tables {}{}, ledger {})",
        plural(number, "row"),
        grouped(held),
        if each.len() > 1 {
            format!(": {}", each.join(", "))
        } else {
            String::new()
        },
        grouped(most)
    );
    report.problem(problem, rebuild(plugin));
    Ok(())
}

fn check_rows(
    connection: &Connection,
    table: &TableReport,
    report: &mut Report,
) -> Result<(), crate::sql::Error> {
    let TableReport { table, plugin, .. } = table;
    let quoted = quote_text(table);
    let mut report_rows = |number: u64, what: &str| {
        if number > 0 {
            report.problem(
                format!("{plugin}: table {table}: {} {what}", plural(number, "row")),
                rebuild(plugin),
            );
        }
    };
    let astray = count(
        connection,
        &format!(
            "SELECT count(*) FROM {quoted} t LEFT JOIN _lantern_origin o ON o.id = t._origin
             LEFT JOIN _lantern_checkpoint c ON c.origin = t._origin
             WHERE o.id IS NULL OR c.origin IS NULL OR t._sequence <= o.begins_after OR t._sequence > c.sequence"
        ),
    )?;
    report_rows(astray, "from messages that the ledger does not know");
    let doubled = count(
        connection,
        &format!(
            "SELECT count(*) FROM (SELECT 1 FROM {quoted} GROUP BY _origin, _sequence, _row HAVING count(*) > 1) AS r"
        ),
    )?;
    report_rows(doubled, "stored more than once");
    let dead = count(
        connection,
        &format!(
            "SELECT count(*) FROM {quoted} t JOIN _lantern_dead_letter d
             ON d.origin = t._origin AND d.sequence = t._sequence AND d.state = 'open'"
        ),
    )?;
    report_rows(dead, "from messages that are open dead letters");
    Ok(())
}

/// Segments with wrong summaries that are reported one by one.
const SEGMENTS_SHOWN: usize = 10;

/// Compares the summaries of the segments of a table with its rows.
fn check_segments(
    connection: &Connection,
    table: &TableReport,
    report: &mut Report,
) -> Result<(), crate::sql::Error> {
    let TableReport { table, plugin, .. } = table;
    let Some(set) = set_of(connection, table)? else {
        return Ok(());
    };
    let found = differences(connection, &set)?;
    for Difference { segment, part } in found.iter().take(SEGMENTS_SHOWN) {
        report.problem(
            format!(
                "{plugin}: table {table}, segment {segment}: {part} in the summary does not match the rows"
            ),
            rebuild(plugin),
        );
    }
    let more = found.len().saturating_sub(SEGMENTS_SHOWN);
    if more > 0 {
        report.problem(
            format!(
                "{plugin}: table {table}: summaries of {} more do not match the rows",
                plural(more as u64, "segment")
            ),
            rebuild(plugin),
        );
    }
    Ok(())
}

/// Compares the full-text index of a table with its rows.
fn check_search(
    connection: &Connection,
    table: &TableReport,
    report: &mut Report,
) -> Result<(), crate::sql::Error> {
    let TableReport { table, plugin, .. } = table;
    let Some(index) = index_of(connection, table)? else {
        return Ok(());
    };
    let remedy = format!("lantern table search off {table} && lantern table search on {table}");
    let IndexDifference {
        missing,
        stray,
        incomplete,
        missing_triggers,
    } = match difference(connection, &index) {
        Err(error) if error.kind() == Kind::Corrupt => {
            let problem = format!("{plugin}: full-text index of table {table} is damaged: {error}");
            report.problem(problem, remedy);
            return Ok(());
        }
        found => found?,
    };
    if missing_triggers > 0 {
        report.problem(
            format!(
                "{plugin}: full-text index of table {table}: {}, so that it misses changes of rows",
                plural(missing_triggers, "missing trigger")
            ),
            &remedy,
        );
    }
    for (rows, what) in [
        (missing, "without an entry"),
        (incomplete, "of a sample with a word that is missing"),
        (stray, "that no longer exist with an entry"),
    ] {
        if rows > 0 {
            report.problem(
                format!(
                    "{plugin}: full-text index of table {table}: {} {what}",
                    plural(rows, "row")
                ),
                &remedy,
            );
        }
    }
    Ok(())
}
