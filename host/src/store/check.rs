//! What a database can show of the host's promises (the invariants of the ledger): for `lantern check`, and a quick
//! look at start. It only reads.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::apply::from_sql;
use super::catalog::ledger_sums;
use super::commit::{Counts, OriginId};
use super::statement::quote_text;

/// Up to this size a look over all pages costs less than 0.1 s, so every start can afford it.
const QUICK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each history of each source.
    pub sources: Vec<SourceReport>,
    /// What is wrong, in words; empty when all is well.
    pub problems: Vec<String>,
}

/// One history of one source.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// The plugin's name.
    pub plugin: String,
    /// The source's name.
    pub source: String,
    /// Which of its histories.
    pub epoch: u64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The last sequence that took effect.
    pub checkpoint: u64,
    /// The ledger's sums.
    pub counts: Counts,
}

/// Why a database cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is none, or it cannot be read.
    #[error("cannot check the database")]
    Sqlite(#[from] rusqlite::Error),
    /// There is none.
    #[error("there is no database {0}")]
    Missing(String),
}

/// Checks a database, which may be in use.
///
/// # Errors
/// When it is missing or cannot be read; damage is not an error but a problem in the report.
pub fn check(path: &Path) -> Result<Report, CheckError> {
    if !path.is_file() {
        return Err(CheckError::Missing(path.display().to_string()));
    }
    let connection = open(path)?;
    let mut report = Report::default();
    // One snapshot for all questions, so that a host at work cannot make them disagree.
    connection.execute_batch("BEGIN")?;
    for problem in strings(&connection, "PRAGMA integrity_check(20)")? {
        if problem != "ok" {
            report.problems.push(format!("integrity: {problem}"));
        }
    }
    let dangling = count(&connection, "SELECT count(*) FROM pragma_foreign_key_check")?;
    if dangling > 0 {
        report
            .problems
            .push(format!("{dangling} rows refer to something that is not there"));
    }
    check_sources(&connection, &mut report)?;
    check_tables(&connection, &mut report)?;
    Ok(report)
}

/// The look at start: the first damage that is found, if any. Large databases are left to [`check`], and to SQLite,
/// which notices damage in the pages that it reads.
pub(super) fn quick(path: &Path) -> Result<(), String> {
    let large = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > QUICK_BYTES_MAX);
    if large {
        return Ok(());
    }
    let found = open(path)
        .and_then(|connection| strings(&connection, "PRAGMA quick_check(1)"))
        .map_err(|error| error.to_string())?;
    match found.into_iter().find(|line| line != "ok") {
        Some(problem) => Err(problem),
        None => Ok(()),
    }
}

/// A connection that can only read.
pub(super) fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

fn strings(connection: &Connection, sql: &str) -> Result<Vec<String>, rusqlite::Error> {
    connection
        .prepare(sql)?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn count(connection: &Connection, sql: &str) -> Result<u64, rusqlite::Error> {
    connection.query_row(sql, [], |row| row.get(0).map(from_sql))
}

struct Origin {
    id: OriginId,
    begins_after: u64,
    checkpoint: u64,
}

fn check_sources(connection: &Connection, report: &mut Report) -> Result<(), rusqlite::Error> {
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
            report.problems.push(format!("{place}: there is no checkpoint"));
        }
        let origin = Origin {
            id,
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

/// Ranges follow each other without a hole from the epoch's beginning to the checkpoint, and each adds up.
fn check_ledger(
    connection: &Connection,
    place: &str,
    origin: &Origin,
    report: &mut Report,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT first_sequence, last_sequence, messages, projected, skipped, dead, missing
         FROM _lantern_ledger WHERE origin = ?1 ORDER BY first_sequence",
    )?;
    let mut rows = statement.query([origin.id.0])?;
    let mut end = origin.begins_after;
    while let Some(row) = rows.next()? {
        let number = |column: usize| row.get::<_, i64>(column).map(from_sql);
        let (first, last) = (number(0)?, number(1)?);
        let (messages, missing) = (number(2)?, number(6)?);
        if first != end + 1 {
            report.problems.push(format!(
                "{place}: the ledger has a hole between {end} and {first}"
            ));
        }
        if messages != number(3)? + number(4)? + number(5)? {
            report
                .problems
                .push(format!("{place}: the counts of {first} to {last} do not add up"));
        }
        if last < first || messages + missing > last - first + 1 {
            report.problems.push(format!(
                "{place}: {first} to {last} cannot hold {messages} messages and {missing} missing"
            ));
        }
        end = last;
    }
    if end != origin.checkpoint {
        report.problems.push(format!(
            "{place}: the ledger ends at {end}, the checkpoint is {}",
            origin.checkpoint
        ));
    }
    Ok(())
}

/// Dead letters and gaps are as many as the ledger says.
fn check_sums(
    connection: &Connection,
    place: &str,
    origin: &Origin,
    counts: Counts,
    report: &mut Report,
) -> Result<(), rusqlite::Error> {
    let of = |sql: &str| connection.query_row(sql, [origin.id.0], |row| row.get(0).map(from_sql));
    let dead = of("SELECT count(*) FROM _lantern_dead_letter WHERE origin = ?1 AND state <> 'resolved'")?;
    if dead != counts.dead {
        report.problems.push(format!(
            "{place}: {dead} dead letters, the ledger says {}",
            counts.dead
        ));
    }
    let missing = of(
        "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM _lantern_gap WHERE origin = ?1",
    )?;
    if missing != counts.missing {
        report.problems.push(format!(
            "{place}: gaps of {missing}, the ledger says {}",
            counts.missing
        ));
    }
    Ok(())
}

/// Every row comes from a message that the ledger knows, none twice, and no more rows than were written.
fn check_tables(connection: &Connection, report: &mut Report) -> Result<(), rusqlite::Error> {
    let mut statement = connection
        .prepare("SELECT name, plugin, updates, rows_expired FROM _lantern_table ORDER BY plugin, name")?;
    let tables: Vec<(String, String, bool, u64)> = statement
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3).map(from_sql)?))
        })?
        .collect::<Result<_, _>>()?;
    for (name, _, _, _) in &tables {
        check_rows(connection, name, report)?;
    }
    for plugin in tables.chunk_by(|a, b| a.1 == b.1) {
        let name = &plugin[0].1;
        let mut held = 0;
        for (table, _, _, expired) in plugin {
            held += count(connection, &format!("SELECT count(*) FROM {}", quote_text(table)))? + expired;
        }
        let changed: u64 = connection.query_row(
            "SELECT coalesce(sum(l.changed), 0) FROM _lantern_ledger l
             JOIN _lantern_origin o ON o.id = l.origin WHERE o.plugin = ?1",
            [name],
            |row| row.get(0).map(from_sql),
        )?;
        let exact = plugin.iter().all(|(_, _, updates, _)| !updates);
        if held > changed || (exact && held != changed) {
            report.problems.push(format!(
                "plugin {name}: its tables have had {held} rows, the ledger says {changed} were written"
            ));
        }
    }
    Ok(())
}

fn check_rows(connection: &Connection, table: &str, report: &mut Report) -> Result<(), rusqlite::Error> {
    let quoted = quote_text(table);
    let astray = count(
        connection,
        &format!(
            "SELECT count(*) FROM {quoted} t LEFT JOIN _lantern_origin o ON o.id = t._origin
             LEFT JOIN _lantern_checkpoint c ON c.origin = t._origin
             WHERE o.id IS NULL OR c.origin IS NULL OR t._sequence <= o.begins_after OR t._sequence > c.sequence"
        ),
    )?;
    if astray > 0 {
        report.problems.push(format!(
            "table {table}: {astray} rows come from messages that the ledger does not know"
        ));
    }
    let doubled = count(
        connection,
        &format!(
            "SELECT count(*) FROM (SELECT 1 FROM {quoted} GROUP BY _origin, _sequence, _row HAVING count(*) > 1)"
        ),
    )?;
    if doubled > 0 {
        report
            .problems
            .push(format!("table {table}: {doubled} rows are there more than once"));
    }
    let dead = connection.query_row(
        &format!(
            "SELECT count(*) FROM {quoted} t JOIN _lantern_dead_letter d
             ON d.origin = t._origin AND d.sequence = t._sequence AND d.state = 'open'"
        ),
        params![],
        |row| row.get(0).map(from_sql),
    )?;
    if dead > 0 {
        report.problems.push(format!(
            "table {table}: {dead} rows come from messages that are dead letters too"
        ));
    }
    Ok(())
}
