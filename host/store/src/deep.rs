//! Compares stored rows with the rows that their messages produce: lists the messages to project again, and finds the
//! differences between the result and the stored rows. It reads through a read-only connection; the caller projects.

mod rows;
mod survey;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::sql::{Connection, params};
use rusqlite::types::Value as Stored;

use super::check::{self, CheckError};
use super::commit::{Counts, Mark, OriginId};
use super::forget::ForgottenValues;
use super::scratch::{Scratch, ScratchError};
use super::segments::OriginTable;
use super::statement::quote_text;
use super::values::{from_sql, to_sql};
use lantern_model::batch::Row;
use lantern_model::schema::description::TableDescription;
use lantern_model::schema::{ColumnName, Manifest, OnConflict};

pub use survey::survey;

/// Differences that are described one by one; the others are only counted.
const DIFFERENCES_SHOWN: usize = 20;
/// Bytes after which a description truncates a value.
const VALUE_BYTES: usize = 80;
/// Microseconds of a day.
const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// A plugin in the database.
#[derive(Clone, Debug)]
pub struct DeepPlugin {
    /// Its name.
    pub name: String,
    /// The operator's settings (JSON).
    pub settings: String,
    /// Its tables.
    pub tables: Vec<DeepTable>,
    /// Each epoch of each of its sources.
    pub sources: Vec<DeepSource>,
    /// Whether a dead letter was resolved later, out of stream order.
    pub resolved: bool,
    /// Whether any message or value was erased.
    pub erased: bool,
}

/// A table of a plugin.
#[derive(Clone, Debug)]
pub struct DeepTable {
    /// Its name.
    pub name: String,
    /// Whether writes update stored rows.
    pub merges: bool,
    /// Rows that were removed because of their age.
    pub expired: u64,
    description: TableDescription,
}

/// One epoch of a source.
#[derive(Clone, Debug)]
pub struct DeepSource {
    /// The number in the database.
    pub origin: OriginId,
    /// The source's name.
    pub source: String,
    /// The number of the epoch.
    pub epoch: u64,
    /// Whether it is the epoch in use.
    pub present: bool,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// When the broker created the stream.
    pub stream_created_ns: Option<i64>,
    /// The last message that took effect.
    pub checkpoint: Mark,
    /// The ledger ranges, in order.
    pub ranges: Vec<DeepRange>,
}

/// Messages that one version handled.
#[derive(Clone, Debug)]
pub struct DeepRange {
    /// The version's digest.
    pub digest: String,
    /// The first sequence.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The counts of the ledger.
    pub counts: Counts,
}

/// The state of a message that was a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterState {
    /// It is still a dead letter, or was discarded: it has no rows.
    Dead,
    /// The version with this digest projected it later.
    ResolvedBy(String),
    /// It was erased: it has no rows, and the stream may hold it no longer.
    Erased,
}

/// The rows that a message produces.
pub struct Expected<'a> {
    /// The message's sequence.
    pub sequence: u64,
    /// When the broker stored the message.
    pub published_ns: i64,
    /// The manifest of the version that wrote the rows.
    pub manifest: &'a Manifest,
    /// The rows.
    pub rows: &'a [Row],
}

/// The result of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Stored rows that equal those of their messages.
    pub same: u64,
    /// Rows whose key an earlier message has used.
    pub present: u64,
    /// Rows that were removed because of their age.
    pub expired: u64,
    /// Rows whose value was erased before.
    pub erased: u64,
    /// Stored rows of messages that are no longer in the stream.
    pub without_message: u64,
    /// The number of differences.
    pub differing: u64,
    /// The first differences, in sentences.
    pub differences: Vec<String>,
}

impl Compared {
    fn differs(&mut self, describe: impl FnOnce() -> String) {
        self.differing += 1;
        if self.differences.len() < DIFFERENCES_SHOWN {
            self.differences.push(describe());
        }
    }
}

/// Compares the rows of one plugin. Its methods block.
pub struct Comparer {
    connection: Connection,
    path: PathBuf,
    tables: Vec<DeepTable>,
    /// Values that were erased.
    values: ForgottenValues,
}

/// A sequence, and the number of a row within its message.
type RowInMessage = (u64, u64);

impl Comparer {
    /// Opens the database to compare the rows of a plugin.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path, plugin: &DeepPlugin) -> Result<Self, CheckError> {
        let connection = check::open(path)?;
        Ok(Self {
            values: ForgottenValues::load(&connection, &plugin.name, i64::MIN)?,
            connection,
            path: path.to_owned(),
            tables: plugin.tables.clone(),
        })
    }

    /// Returns the messages of a range that are or were dead letters.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn dead_letters(
        &self,
        origin: OriginId,
        first: u64,
        last: u64,
    ) -> Result<BTreeMap<u64, DeadLetterState>, CheckError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT d.sequence, CASE d.state WHEN 'resolved' THEN p.digest END, d.state = 'forgotten'
             FROM _lantern_dead_letter d LEFT JOIN _lantern_plugin p ON p.id = d.resolved_by
             WHERE d.origin = ?1 AND d.sequence BETWEEN ?2 AND ?3",
        )?;
        let found = statement.query_map(params![origin.0, to_sql(first), to_sql(last)], |row| {
            let state = match row.get(1)? {
                Some(digest) => DeadLetterState::ResolvedBy(digest),
                None if row.get(2)? => DeadLetterState::Erased,
                None => DeadLetterState::Dead,
            };
            Ok((row.get(0).map(from_sql)?, state))
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Compares the stored rows of a stretch with those of its messages, in tables whose writes do not update rows.
    /// `read` are the messages of the stretch that were read; `expected` contains the rows of those that produce some.
    /// Rows of other sequences cannot be compared.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn compare(
        &self,
        origin: OriginId,
        (first, last): (u64, u64),
        read: &BTreeSet<u64>,
        expected: &[Expected<'_>],
        found: &mut Compared,
    ) -> Result<(), CheckError> {
        for table in self.tables.iter().filter(|table| !table.merges) {
            let mut stored = self.stored(table, origin, first, last)?;
            for message in expected {
                for (number, row) in (0_u64..).zip(message.rows) {
                    let Some(write) = message.manifest.writes.get(row.write as usize) else {
                        continue;
                    };
                    if message.manifest.table_of(write).name.as_str() != table.name {
                        continue;
                    }
                    let wanted = table.wanted(message.manifest, row);
                    let place = (message.sequence, number);
                    match stored.remove(&place) {
                        Some(there) => table.compare(place, &there, &wanted, found),
                        None if self.is_erased(table, message, row) => found.erased += 1,
                        None => self.absent(table, message.manifest, row, place, &wanted, found)?,
                    }
                }
            }
            for (sequence, number) in stored.into_keys() {
                if read.contains(&sequence) {
                    found.differs(|| {
                        format!(
                            "table {}: row {number} of message {sequence} is stored, but the message does not produce it",
                            table.name
                        )
                    });
                } else {
                    found.without_message += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether a value of the row was erased.
    fn is_erased(&self, table: &DeepTable, message: &Expected<'_>, row: &Row) -> bool {
        let write = &message.manifest.writes[row.write as usize];
        let columns = &message.manifest.table_of(write).columns;
        write.columns.iter().zip(&row.values).any(|(&column, value)| {
            let place = (table.name.as_str(), columns[column].name.as_str());
            self.values.holds(place, value, message.published_ns)
        })
    }

    fn stored(
        &self,
        table: &DeepTable,
        origin: OriginId,
        first: u64,
        last: u64,
    ) -> Result<BTreeMap<RowInMessage, Vec<Stored>>, CheckError> {
        let columns = table.columns();
        let list: Vec<String> = columns
            .iter()
            .map(|column| format!(", {}", quote_text(column)))
            .collect();
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT t._sequence, t._row{} {}",
            list.concat(),
            OriginTable::find(&self.connection, &table.name)?.rows("?1", "?2", "?3")
        ))?;
        let found = statement.query_map(params![origin.0, to_sql(first), to_sql(last)], |row| {
            let place = (row.get(0).map(from_sql)?, row.get(1).map(from_sql)?);
            let values = (0..columns.len()).map(|column| row.get(2 + column));
            Ok((place, values.collect::<Result<Vec<Stored>, _>>()?))
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Handles a row of a message that is not stored: because another row has its key, because of its age, or as a
    /// difference.
    fn absent(
        &self,
        table: &DeepTable,
        manifest: &Manifest,
        row: &Row,
        (sequence, number): RowInMessage,
        wanted: &[Stored],
        found: &mut Compared,
    ) -> Result<(), CheckError> {
        let write = &manifest.writes[row.write as usize];
        if write.on_conflict == OnConflict::Ignore {
            let declared = manifest.table_of(write);
            let unique = declared.indexes.iter().filter(|index| index.unique);
            let keys = std::iter::once(&declared.primary_key).chain(unique.map(|index| &index.columns));
            for key in keys.filter(|key| !key.is_empty()) {
                if self.has_key(table, key, wanted)? {
                    found.present += 1;
                    return Ok(());
                }
            }
        }
        if table.is_too_old(wanted) {
            found.expired += 1;
            return Ok(());
        }
        found.differs(|| {
            format!(
                "table {}: row {number} of message {sequence} is missing",
                table.name
            )
        });
        Ok(())
    }

    fn has_key(&self, table: &DeepTable, key: &[ColumnName], wanted: &[Stored]) -> Result<bool, CheckError> {
        let columns = table.columns();
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        for name in key {
            let Some(position) = columns.iter().position(|column| *column == name.as_str()) else {
                return Ok(false);
            };
            values.push(wanted[position].clone());
            conditions.push(format!("{} = ?{}", quote_text(name.as_str()), values.len()));
        }
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE {})",
            quote_text(&table.name),
            conditions.join(" AND ")
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        Ok(statement.query_row(crate::sql::from_iter(values), |row| row.get(0))?)
    }

    /// Compares the tables whose writes update rows with those that the whole history produces, by their keys. Ignores
    /// rows that messages after `through` wrote.
    ///
    /// # Errors
    /// When a database cannot be read.
    pub fn compare_whole(
        &self,
        scratch: &Scratch,
        through: u64,
        found: &mut Compared,
    ) -> Result<(), ScratchError> {
        let connection = check::open(&self.path)?;
        let file = scratch.file.0.display().to_string();
        connection.execute("ATTACH DATABASE ?1 AS scratch", [file])?;
        for table in self.tables.iter().filter(|table| table.merges) {
            whole::compare_whole(&connection, table, through, found)?;
        }
        Ok(())
    }
}
