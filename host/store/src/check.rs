//! What a database can show of the host's promises (the invariants of the ledger): for `lantern check`, and a quick
//! look at start. It only reads.

mod audit;
mod epochs;

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

mod schema;

use super::AuditHash;
use super::apply::from_sql;
use super::catalog::ledger_sums;
use super::commit::{Counts, OriginId};
use super::statement::quote_text;

/// Up to this size a look over all pages costs less than 0.1 s, so every start can afford it.
const QUICK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Up to this size [`examine`] reads the whole file, which takes some seconds.
const EXAMINED_BYTES_MAX: u64 = 1 << 30;

/// Broken references that are named one by one.
const REFERENCES_SHOWN: u64 = 10;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each history of each source.
    pub sources: Vec<SourceReport>,
    /// One for each table of each plugin.
    pub tables: Vec<TableReport>,
    /// What is wrong; empty when no problem was found.
    pub problems: Vec<Problem>,
    /// What this check cannot verify, in sentences, besides [`Report::unverified_values`].
    pub unverified: Vec<String>,
    /// The audit.
    pub audit: AuditReport,
}

/// The chain of the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct AuditReport {
    /// Its rows; a change has two.
    pub rows: u64,
    /// The hash of the last row, which stands for all of them; none when there are none.
    pub head: Option<String>,
    /// The row with the hash that was looked for; none when none was, or when there is no such row.
    pub noted_row: Option<i64>,
}

/// Something that is wrong, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// What is wrong.
    pub problem: String,
    /// What an operator does about it.
    pub remedy: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; remedy: {}", self.problem, self.remedy)
    }
}

/// One table of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TableReport {
    /// The plugin's name.
    pub plugin: String,
    /// The table's name.
    pub table: String,
    /// Rows that are there.
    pub rows: u64,
    /// Rows that were removed because of their age.
    pub expired: u64,
    /// Whether writes change rows that are there already.
    pub merges: bool,
}

impl Report {
    fn problem(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem {
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }
}

/// What mends a damaged file, or host tables that were changed by hand.
const RESTORE: &str = "restore a copy of the database; the host reads what came later from the streams";

/// What mends the tables and the ledger of a plugin.
fn rebuild(plugin: &str) -> String {
    format!("lantern rebuild {plugin}")
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
    /// It was written by a later version of this program.
    #[error(
        "this database was written by a newer Lantern (schema {found}, this program knows {known}); use that version, \
         or restore a copy from before the upgrade"
    )]
    Newer {
        /// The database's schema.
        found: i64,
        /// The latest schema of this program.
        known: i64,
    },
    /// It was written by an earlier version of this program.
    #[error(
        "this database was written by an older Lantern (schema {found}, this program needs {known}); check it with that \
         version, or start `lantern serve` of this one, which upgrades it"
    )]
    Older {
        /// The database's schema.
        found: i64,
        /// The schema that this program needs.
        known: i64,
    },
}

/// Checks a database, which may be in use.
///
/// # Errors
/// When it is missing or cannot be read; damage is not an error but a problem in the report.
pub fn check(path: &Path) -> Result<Report, CheckError> {
    check_with(path, None)
}

/// As [`check`], and looks for a hash of the audit that was noted earlier: without it, rows at the end of the audit were
/// removed, or the whole chain was computed again.
///
/// # Errors
/// As for [`check`].
pub fn check_with(path: &Path, audit_head: Option<AuditHash>) -> Result<Report, CheckError> {
    if !path.is_file() {
        return Err(CheckError::Missing(path.display().to_string()));
    }
    let connection = open(path)?;
    let mut report = Report::default();
    // One snapshot for all questions, so that a host at work cannot make them disagree.
    connection.execute_batch("BEGIN")?;
    schema::check_version(&connection)?;
    for problem in strings(&connection, "PRAGMA integrity_check(20)")? {
        if problem != "ok" {
            report.problem(format!("the file is damaged: {problem}"), RESTORE);
        }
    }
    check_references(&connection, &mut report)?;
    check_sources(&connection, &mut report)?;
    check_tables(&connection, &mut report)?;
    epochs::check(&connection, &mut report)?;
    schema::check_host(&connection, &mut report)?;
    schema::check_indexes(&connection, &mut report)?;
    audit::check(&connection, audit_head, &mut report)?;
    note_erased(&connection, &mut report)?;
    note_unverified(&mut report);
    Ok(report)
}

/// Rows of the host's tables refer to rows that are there.
fn check_references(connection: &Connection, report: &mut Report) -> Result<(), rusqlite::Error> {
    let mut statement =
        connection.prepare("SELECT \"table\", rowid, parent FROM pragma_foreign_key_check ORDER BY 1, 2")?;
    let mut rows = statement.query([])?;
    let mut found = 0_u64;
    while let Some(row) = rows.next()? {
        found += 1;
        if found <= REFERENCES_SHOWN {
            let (table, number, parent): (String, Option<i64>, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let number = number.map_or_else(|| "?".to_owned(), |number| number.to_string());
            report.problem(
                format!("broken reference: {table} row {number} refers to a missing row of {parent}"),
                RESTORE,
            );
        }
    }
    if found > REFERENCES_SHOWN {
        report.problem(
            format!("{} more broken references", found - REFERENCES_SHOWN),
            RESTORE,
        );
    }
    Ok(())
}

impl Report {
    /// What only the messages could show: the values of the rows. For a check that does not read the messages.
    pub fn unverified_values(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let rows: u64 = self.tables.iter().map(|table| table.rows).sum();
        if rows > 0 {
            notes.push(
                "the values in the tables: `lantern check --deep` compares them with the messages".to_owned(),
            );
        }
        let merging: Vec<&str> = self
            .tables
            .iter()
            .filter(|table| table.merges)
            .map(|table| table.table.as_str())
            .collect();
        if !merging.is_empty() {
            notes.push(format!(
                "which messages the rows of {} are made of: their writes update stored rows, so only the number of \
                 rows is checked",
                merging.join(", ")
            ));
        }
        notes
    }
}

/// Reports messages that were erased: the ledger counts them as dead.
fn note_erased(connection: &Connection, report: &mut Report) -> Result<(), rusqlite::Error> {
    let erased = count(
        connection,
        "SELECT count(*) FROM _lantern_dead_letter WHERE state = 'forgotten'",
    )?;
    if erased > 0 {
        report.unverified.push(format!(
            "{}: `lantern forget` removed their rows and their content",
            plural(erased, "erased message")
        ));
    }
    Ok(())
}

/// Says what the numbers cannot show.
fn note_unverified(report: &mut Report) {
    let mut notes = Vec::new();
    let skipped: u64 = report.sources.iter().map(|source| source.counts.skipped).sum();
    if skipped > 0 {
        notes.push(format!(
            "{}: they left nothing that could be compared",
            plural(skipped, "skipped message")
        ));
    }
    let expired: u64 = report.tables.iter().map(|table| table.expired).sum();
    if expired > 0 {
        notes.push(format!(
            "{}: they were removed because of their age",
            plural(expired, "expired row")
        ));
    }
    report.unverified.extend(notes);
}

/// `1 row`, `2 rows`, `1,000 rows`.
pub fn plural(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A number with a comma before each three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What `lantern doctor` shows of a database.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The version of its tables.
    pub schema: i64,
    /// The size of its file.
    pub bytes: u64,
    /// The first damage, if any was found; none where the file is too large to be read now.
    pub damage: Option<Option<String>>,
    /// Dead letters that are open.
    pub dead_letters: u64,
    /// The streams that it was made from.
    pub streams: Vec<String>,
}

/// Opens a database and reads what is quick to read.
///
/// # Errors
/// As for [`check`].
pub fn examine(path: &Path) -> Result<Examined, CheckError> {
    let connection = open(path)?;
    let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let schema = schema::check_version(&connection)?;
    let damage = if bytes <= EXAMINED_BYTES_MAX {
        let found = strings(&connection, "PRAGMA quick_check(1)")?;
        Some(found.into_iter().find(|line| line != "ok"))
    } else {
        None
    };
    Ok(Examined {
        schema,
        bytes,
        damage,
        dead_letters: count(
            &connection,
            "SELECT count(*) FROM _lantern_dead_letter WHERE state = 'open'",
        )?,
        streams: strings(
            &connection,
            "SELECT DISTINCT stream FROM _lantern_origin WHERE stream IS NOT NULL ORDER BY stream",
        )?,
    })
}

/// Fails when the database was written by a later version, or has not been upgraded to this one.
pub(super) fn version(path: &Path) -> Result<(), CheckError> {
    schema::check_version(&open(path)?).map(|_| ())
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

pub(super) fn count(connection: &Connection, sql: &str) -> Result<u64, rusqlite::Error> {
    connection.query_row(sql, [], |row| row.get(0).map(from_sql))
}

struct Origin {
    id: OriginId,
    plugin: String,
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
            report.problem(format!("{place}: there is no checkpoint"), RESTORE);
        }
        let origin = Origin {
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

/// Ranges follow each other without a hole from the epoch's beginning to the checkpoint, and each adds up.
fn check_ledger(
    connection: &Connection,
    place: &str,
    origin: &Origin,
    report: &mut Report,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT first_sequence, last_sequence, messages, projected, skipped, dead, missing, changed, inserted, updated
         FROM _lantern_ledger WHERE origin = ?1 ORDER BY first_sequence",
    )?;
    let mut rows = statement.query([origin.id.0])?;
    let mut end = origin.begins_after;
    while let Some(row) = rows.next()? {
        let number = |column: usize| row.get::<_, i64>(column).map(from_sql);
        let (first, last) = (number(0)?, number(1)?);
        let (messages, missing) = (number(2)?, number(6)?);
        if first != end + 1 {
            report.problem(
                format!("{place}: the ledger has a hole between {end} and {first}"),
                rebuild(&origin.plugin),
            );
        }
        if messages != number(3)? + number(4)? + number(5)? {
            report.problem(
                format!(
                    "{place}: the ledger's counts of messages {first} to {last} do not add up: {messages} is not \
                     {} projected + {} skipped + {} dead",
                    number(3)?,
                    number(4)?,
                    number(5)?
                ),
                rebuild(&origin.plugin),
            );
        }
        if last < first || messages + missing > last - first + 1 {
            report.problem(
                format!("{place}: {first} to {last} cannot hold {messages} messages and {missing} missing"),
                rebuild(&origin.plugin),
            );
        }
        let (changed, inserted, updated) = (number(7)?, number(8)?, number(9)?);
        if inserted + updated > changed {
            report.problem(
                format!(
                    "{place}: the ledger's rows of messages {first} to {last} do not add up: {inserted} inserted and \
                     {updated} updated of {changed} changed"
                ),
                rebuild(&origin.plugin),
            );
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

/// Every row comes from a message that the ledger knows, none twice, and as many rows are there as were inserted.
fn check_tables(connection: &Connection, report: &mut Report) -> Result<(), rusqlite::Error> {
    let mut statement = connection
        .prepare("SELECT name, plugin, updates, rows_expired FROM _lantern_table ORDER BY plugin, name")?;
    let tables: Vec<TableReport> = statement
        .query_map([], |row| {
            Ok(TableReport {
                table: row.get(0)?,
                plugin: row.get(1)?,
                merges: row.get(2)?,
                expired: row.get(3).map(from_sql)?,
                rows: 0,
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
        table.rows = count(
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

/// As many rows as the ledger says.
fn check_number(connection: &Connection, plugin: &str, report: &mut Report) -> Result<(), rusqlite::Error> {
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
    let held: u64 = of_plugin().map(|table| table.rows + table.expired).sum();
    // Ranges of earlier versions do not tell inserted from updated rows; then the sum is only a limit.
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
        .map(|table| format!("{} {}", table.table, grouped(table.rows + table.expired)))
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
) -> Result<(), rusqlite::Error> {
    let TableReport { table, plugin, .. } = table;
    let quoted = quote_text(table);
    let mut say = |number: u64, what: &str| {
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
    say(astray, "from messages that the ledger does not know");
    let doubled = count(
        connection,
        &format!(
            "SELECT count(*) FROM (SELECT 1 FROM {quoted} GROUP BY _origin, _sequence, _row HAVING count(*) > 1)"
        ),
    )?;
    say(doubled, "stored more than once");
    let dead = count(
        connection,
        &format!(
            "SELECT count(*) FROM {quoted} t JOIN _lantern_dead_letter d
             ON d.origin = t._origin AND d.sequence = t._sequence AND d.state = 'open'"
        ),
    )?;
    say(dead, "from messages that are open dead letters");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_one_is_not_many() {
        for (number, text) in [
            (0, "0 rows"),
            (1, "1 row"),
            (999, "999 rows"),
            (1_000, "1,000 rows"),
            (139_999, "139,999 rows"),
            (1_234_567, "1,234,567 rows"),
        ] {
            assert_eq!(plural(number, "row"), text);
        }
    }
}
