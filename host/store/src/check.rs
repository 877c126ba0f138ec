//! Verifies the invariants of a database (mainly those of the ledger): for `lantern check`, and a quick check at start.
//! It only reads.

mod audit;
mod epochs;
mod ledger;
mod schema;
mod tables;

use std::path::Path;

use crate::location::Server;
use crate::sql::{Connection, Engine};

use super::AuditHash;
use super::commit::Counts;
use super::connection::open_read_only;
use super::values::from_sql;

/// Up to this size a check of all pages takes less than 0.1 s, so every start can afford it.
const QUICK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Up to this size [`examine`] reads the whole file, which takes some seconds.
const EXAMINED_BYTES_MAX: u64 = 1 << 30;

/// Broken references that are reported one by one.
const REFERENCES_SHOWN: u64 = 10;

/// The result of a check.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One per epoch of each source.
    pub sources: Vec<SourceReport>,
    /// One per table of each plugin.
    pub tables: Vec<TableReport>,
    /// The problems; empty if none was found.
    pub problems: Vec<Problem>,
    /// What this check cannot verify, in sentences, in addition to [`Report::unverified_values`].
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

/// A problem, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The problem.
    pub problem: String,
    /// What an operator can do.
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
    /// Number of rows in the table.
    pub row_count: u64,
    /// Rows that were removed because of their age.
    pub expired: u64,
    /// Whether writes update stored rows.
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

/// The remedy for a damaged file, or for host tables that were changed by hand.
const RESTORE: &str = "restore a copy of the database; the host reads what came later from the streams";

/// The remedy for the tables and the ledger of a plugin.
fn rebuild(plugin: &str) -> String {
    format!("lantern rebuild {plugin}")
}

/// One epoch of one source.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// The plugin's name.
    pub plugin: String,
    /// The source's name.
    pub source: String,
    /// The number of the epoch.
    pub epoch: u64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The last sequence that took effect.
    pub checkpoint: u64,
    /// The sums of the ledger.
    pub counts: Counts,
}

/// Why a database cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The database cannot be read.
    #[error("cannot check the database")]
    Sqlite(#[from] crate::sql::Error),
    /// There is no database.
    #[error("there is no database {0}")]
    Missing(String),
    /// A later version of this program wrote it.
    #[error(
        "this database was written by a newer Lantern (schema {found}, this program knows {known}); use that version, \
         or restore a copy from before the upgrade"
    )]
    Newer {
        /// The schema of the database.
        found: i64,
        /// The latest schema of this program.
        known: i64,
    },
    /// An earlier version of this program wrote it.
    #[error(
        "this database was written by an older Lantern (schema {found}, this program needs {known}); check it with that \
         version, or start `lantern serve` of this one, which upgrades it"
    )]
    Older {
        /// The schema of the database.
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
    check_connection(&open(path)?, audit_head)
}

/// As [`check_with`], for a database of a PostgreSQL server. Blocks, and needs a runtime that is entered on another thread
/// than those of the runtime.
///
/// # Errors
/// As for [`check`].
pub fn check_server(server: &Server, audit_head: Option<AuditHash>) -> Result<Report, CheckError> {
    check_connection(&Connection::Postgres(server.open_reader(None)?), audit_head)
}

fn check_connection(connection: &Connection, audit_head: Option<AuditHash>) -> Result<Report, CheckError> {
    let mut report = Report::default();
    // One snapshot for all reads, so that a running host cannot make them inconsistent.
    connection.begin_snapshot()?;
    schema::check_version(connection)?;
    match connection.engine() {
        Engine::Sqlite => {
            check_file(connection, &mut report)?;
            check_references(connection, &mut report)?;
        }
        // The server rejects changes that would break a reference.
        Engine::Postgres => report
            .unverified
            .push("the files of the server: `pg_amcheck` verifies them".to_owned()),
    }
    ledger::check_sources(connection, &mut report)?;
    tables::check_tables(connection, &mut report)?;
    epochs::check(connection, &mut report)?;
    schema::check_host(connection, &mut report)?;
    schema::check_indexes(connection, &mut report)?;
    audit::check(connection, audit_head, &mut report)?;
    note_erased(connection, &mut report)?;
    note_unverified(&mut report);
    Ok(report)
}

/// Checks the pages of a database file.
fn check_file(connection: &Connection, report: &mut Report) -> Result<(), crate::sql::Error> {
    for problem in strings(connection, "PRAGMA integrity_check(20)")? {
        if problem != "ok" {
            report.problem(format!("the file is damaged: {problem}"), RESTORE);
        }
    }
    Ok(())
}

/// Checks that rows of the host's tables refer to existing rows.
fn check_references(connection: &Connection, report: &mut Report) -> Result<(), crate::sql::Error> {
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
    /// What only the messages can verify: the values of the rows. For a check that does not read the messages.
    pub fn unverified_values(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let rows: u64 = self.tables.iter().map(|table| table.row_count).sum();
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
fn note_erased(connection: &Connection, report: &mut Report) -> Result<(), crate::sql::Error> {
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

/// Notes what the numbers cannot verify.
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

/// The part of `lantern doctor` about a database.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The version of its tables.
    pub schema: i64,
    /// The size of its file.
    pub bytes: u64,
    /// The size of its pages in bytes.
    pub page_bytes: u64,
    /// The first damage, if any was found; none if the file is too large to read now.
    pub damage: Option<Option<String>>,
    /// Open dead letters.
    pub dead_letters: u64,
    /// The streams that it was filled from.
    pub streams: Vec<String>,
}

/// Opens a database and runs only quick checks.
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
        page_bytes: count(&connection, "PRAGMA page_size")?,
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

/// Fails when a later version wrote the database, or when it has not been upgraded to this version.
pub(super) fn version(path: &Path) -> Result<(), CheckError> {
    schema::check_version(&open(path)?).map(|_| ())
}

/// The check at start: returns the first damage, if any. Large databases are left to [`check`], and to SQLite, which
/// detects damage in the pages that it reads.
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

/// Opens a connection that can only read.
pub(super) fn open(path: &Path) -> Result<Connection, crate::sql::Error> {
    open_read_only(path, std::time::Duration::from_secs(5)).map(Connection::from)
}

fn strings(connection: &Connection, sql: &str) -> Result<Vec<String>, crate::sql::Error> {
    connection
        .prepare(sql)?
        .query_map([], |row| row.get(0))?
        .collect()
}

pub(super) fn count(connection: &Connection, sql: &str) -> Result<u64, crate::sql::Error> {
    connection.query_row(sql, [], |row| row.get(0).map(from_sql))
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
