//! The sums of all columns of a rebuild's tables and of those in use, while both are written. The sums are kept for each
//! chunk of rows. Chunks are read in short snapshots, and a chunk whose rows change afterwards is read again (`watch`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sql::{Connection, OptionalExtension as _};
use rusqlite::types::ValueRef;

use super::survey::{StoredTable, is_same_version, stored_tables};
use super::totals::{SUMS, Total, column_sums, column_sums_where};
use super::watch::{self, CHUNK_BITS};
use super::{RebuildId, Rebuilds, ReplayRange, reachable, rows_outside};
use crate::CommitError;
use crate::read_error::ReadError;
use crate::statement::{ORIGIN_COLUMNS, quote_text};
use lantern_model::schema::{ColumnType, Manifest, Table};

/// How long one step reads. The write-ahead log cannot restart while a snapshot is open, so a snapshot for a whole table
/// would let the log grow.
const STEP_TIME: Duration = Duration::from_millis(50);

/// A comparison of the tables of a rebuild with those in use.
#[derive(Debug)]
pub struct Comparison {
    id: RebuildId,
    manifest: Arc<Manifest>,
    tables: Vec<TableSums>,
}

/// The sums of one table.
#[derive(Debug)]
pub(super) struct TableSums {
    pub(super) name: String,
    /// The summed columns, those of the origin first. Empty if only the rows are counted.
    columns: Vec<String>,
    /// Whether the rows outside the replay ranges are summed separately as well.
    has_outside: bool,
    statement: String,
    /// The row number at which the first pass continues; none when it is done.
    next: Option<i64>,
    /// Chunks to read again.
    due: BTreeSet<i64>,
    chunks: BTreeMap<i64, Vec<Total>>,
}

/// Which rows a sum covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All rows.
    All,
    /// The rows outside the replay ranges.
    Outside,
}

impl Rebuilds<'_> {
    /// Begins to compare the tables of a rebuild with those in use. From here on, changes to their rows are recorded.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn begin_comparison(
        self,
        id: RebuildId,
        manifest: Arc<Manifest>,
        scopes: Vec<ReplayRange>,
        digest: String,
    ) -> Result<Comparison, CommitError> {
        let declared = Arc::clone(&manifest);
        let watched = self
            .0
            .call(move |connection| watch::begin(connection, id, &declared));
        let watched = watched.await?;
        let plan = move |connection: &Connection| -> Result<Comparison, ReadError> {
            Ok(Comparison {
                id,
                tables: plan(connection, id, &manifest, (&scopes, &digest), &watched)?,
                manifest,
            })
        };
        Ok(self.0.reader().long_snapshot(plan).await?)
    }

    /// Reads some of the rows that were not read yet, or have changed since. Does not wait for the writer's batches, and
    /// they do not wait for it.
    ///
    /// # Errors
    /// As for [`Rebuilds::begin_comparison`]. The comparison has to begin again then.
    pub async fn continue_comparison(self, comparison: Comparison) -> Result<Comparison, CommitError> {
        let mut comparison = self.take_changes(comparison).await?;
        let read = move |connection: &Connection| -> Result<Comparison, ReadError> {
            comparison.read(connection, Some(STEP_TIME))?;
            Ok(comparison)
        };
        Ok(self.0.reader().long_snapshot(read).await?)
    }

    /// Ends the record of changes, after a comparison that came to nothing.
    ///
    /// # Errors
    /// As for [`Rebuilds::begin_comparison`].
    pub async fn end_comparison(self, id: RebuildId) -> Result<(), CommitError> {
        self.0.call(move |connection| watch::end(connection, id)).await
    }

    pub(super) async fn take_changes(self, mut comparison: Comparison) -> Result<Comparison, CommitError> {
        let (id, tables) = (comparison.id, comparison.tables.len());
        let changed = self.0.call(move |connection| watch::take(connection, id, tables));
        let Some(changed) = changed.await? else {
            return Err(CommitError::Unavailable(
                "the database was reopened during the comparison".to_owned(),
            ));
        };
        for (table, chunks) in comparison.tables.iter_mut().zip(changed) {
            table.due.extend(chunks);
        }
        Ok(comparison)
    }
}

impl Comparison {
    /// Whether every row was read once.
    pub fn has_read_all(&self) -> bool {
        self.tables.iter().all(|table| table.next.is_none())
    }

    /// Chunks of rows that have changed since they were read, as far as known.
    pub fn chunks_due(&self) -> usize {
        self.tables.iter().map(|table| table.due.len()).sum()
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The number of watched tables.
    pub(super) fn watched(&self) -> usize {
        self.tables.len()
    }

    pub(super) fn table(&self, name: &str) -> Option<&TableSums> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Reads outstanding chunks for at most `time`.
    pub(super) fn read(
        &mut self,
        connection: &Connection,
        time: Option<Duration>,
    ) -> Result<(), crate::sql::Error> {
        let began = Instant::now();
        for table in &mut self.tables {
            let mut reading = ChunkReader::prepare(connection, table)?;
            while reading.step()? {
                if time.is_some_and(|time| began.elapsed() >= time) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Which columns of which tables are summed. A table whose rows nothing can be compared with is only counted.
fn plan(
    connection: &Connection,
    id: RebuildId,
    manifest: &Manifest,
    (scopes, digest): (&[ReplayRange], &str),
    watched: &[String],
) -> Result<Vec<TableSums>, crate::sql::Error> {
    let plugin = manifest.name.as_str();
    let same_version = is_same_version(connection, plugin, scopes, digest)?;
    let mut sums: BTreeMap<String, TableSums> = BTreeMap::new();
    for stored in stored_tables(connection, plugin)? {
        let declared = manifest
            .tables
            .iter()
            .find(|table| table.name.as_str() == stored.name);
        let Some(declared) = declared else {
            continue;
        };
        let new = declared.name.of_rebuild(id.0);
        let both = [stored.name.as_str(), new.as_str()];
        let mut has_outside = false;
        for table in both {
            has_outside |= rows_outside(connection, table, scopes)? > 0;
        }
        let columns = if same_version || has_outside {
            summed_columns(&stored, declared)
        } else {
            Vec::new()
        };
        for table in both {
            let outside = has_outside.then_some(scopes);
            sums.insert(table.to_owned(), TableSums::new(table, &columns, outside));
        }
    }
    let all = watched.iter();
    let all = all.map(|name| {
        sums.remove(name)
            .unwrap_or_else(|| TableSums::new(name, &[], None))
    });
    Ok(all.collect())
}

/// The columns of the origin, and those that both tables have.
fn summed_columns(stored: &StoredTable, declared: &Table) -> Vec<(String, ColumnType)> {
    let of_origin = ORIGIN_COLUMNS
        .iter()
        .map(|column| ((*column).to_owned(), ColumnType::Integer));
    let shared = declared.columns.iter().filter(|column| {
        let mut old = stored.description.columns.iter();
        old.any(|old| old.name == column.name.as_str())
    });
    let shared = shared.map(|column| (column.name.as_str().to_owned(), column.column_type));
    of_origin.chain(shared).collect()
}

impl TableSums {
    fn new(table: &str, columns: &[(String, ColumnType)], outside: Option<&[ReplayRange]>) -> Self {
        let mut sums = vec!["count(*)".to_owned()];
        for (column, column_type) in columns {
            sums.extend(column_sums(column, *column_type));
        }
        if let Some(scopes) = outside {
            let outer = format!("NOT ({})", reachable(scopes));
            sums.push(format!("count(CASE WHEN {outer} THEN 1 END)"));
            for (column, column_type) in columns {
                sums.extend(column_sums_where(column, *column_type, &outer));
            }
        }
        Self {
            name: table.to_owned(),
            columns: columns.iter().map(|(column, _)| column.clone()).collect(),
            has_outside: outside.is_some(),
            statement: format!(
                "SELECT {} FROM {} WHERE _rowid_ BETWEEN ?1 AND ?2",
                sums.join(", "),
                quote_text(table)
            ),
            next: Some(i64::MIN),
            due: BTreeSet::new(),
            chunks: BTreeMap::new(),
        }
    }

    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether a part was summed.
    pub(super) fn has(&self, part: Part) -> bool {
        part == Part::All || self.has_outside
    }

    /// The number of rows, then the sums of each column.
    pub(super) fn totals(&self, part: Part) -> Vec<Total> {
        let width = 1 + self.columns.len() * SUMS;
        let from = if part == Part::All { 0 } else { width };
        let mut totals = vec![Total::Integer(0); width];
        for chunk in self.chunks.values() {
            for (total, one) in totals.iter_mut().zip(&chunk[from..from + width]) {
                *total = *total + *one;
            }
        }
        totals
    }

    /// The number of rows.
    pub(super) fn rows(&self, part: Part) -> u64 {
        let width = 1 + self.columns.len() * SUMS;
        let at = if part == Part::All { 0 } else { width };
        self.chunks.values().map(|chunk| chunk[at].count()).sum()
    }
}

/// Reads the chunks of one table.
struct ChunkReader<'a> {
    table: &'a mut TableSums,
    sums: crate::sql::Statement<'a>,
    /// Finds the next row.
    rows: crate::sql::Statement<'a>,
}

impl<'a> ChunkReader<'a> {
    fn prepare(connection: &'a Connection, table: &'a mut TableSums) -> Result<Self, crate::sql::Error> {
        let sums = connection.prepare(&table.statement)?;
        let rows = connection.prepare(&format!(
            "SELECT _rowid_ FROM {} WHERE _rowid_ >= ?1 ORDER BY _rowid_ LIMIT 1",
            quote_text(&table.name)
        ))?;
        Ok(Self { table, sums, rows })
    }

    /// Reads one chunk. Returns false when none is left.
    fn step(&mut self) -> Result<bool, crate::sql::Error> {
        if let Some(next) = self.table.next {
            let row: Option<i64> = self.rows.query_row([next], |row| row.get(0)).optional()?;
            let chunk = row.map(|row| row >> CHUNK_BITS);
            if let Some(chunk) = chunk {
                self.chunk(chunk)?;
            }
            self.table.next = chunk.and_then(|chunk| (chunk + 1).checked_mul(1 << CHUNK_BITS));
            return Ok(true);
        }
        let Some(chunk) = self.table.due.pop_first() else {
            return Ok(false);
        };
        self.chunk(chunk)?;
        Ok(true)
    }

    fn chunk(&mut self, chunk: i64) -> Result<(), crate::sql::Error> {
        let first = chunk << CHUNK_BITS;
        let width = self.sums.column_count();
        let totals = self
            .sums
            .query_row([first, first + (1 << CHUNK_BITS) - 1], |row| {
                (0..width)
                    .map(|column| match row.get_ref(column)? {
                        ValueRef::Integer(number) => Ok(Total::Integer(number)),
                        ValueRef::Real(number) => Ok(Total::Real(number)),
                        other => Err(crate::sql::Error::decode(
                            column,
                            format!("{} is no sum", other.data_type()),
                        )),
                    })
                    .collect::<Result<Vec<_>, _>>()
            })?;
        if totals.first().is_some_and(|rows| rows.count() > 0) {
            self.table.chunks.insert(chunk, totals);
        } else {
            self.table.chunks.remove(&chunk);
        }
        Ok(())
    }
}
