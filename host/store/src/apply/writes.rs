//! The rows of messages: the prepared statements of a plugin's writes, their effects, and the sums of the rows that they add
//! to tables with segments.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::CachedStatement;
use rusqlite::hooks::Action;
use rusqlite::types::ValueRef;

use crate::commit::{Adopted, Entry, OriginId, RowEffects};
use crate::description::TableDescription;
use crate::segments::{self, Appended, TableSums};
use crate::sql::{Connection, Error};
use crate::values::to_sql;
use crate::values::{parameter, stored};
use lantern_model::batch::{Outcome, Row, Timestamp, Value};
use lantern_model::schema::{OnConflict, Table, Write};

/// The prepared statements of a plugin's writes, with the number of rows they inserted and updated.
pub(super) struct Writes<'a> {
    connection: &'a Connection,
    file: &'a rusqlite::Connection,
    statements: Vec<CachedStatement<'a>>,
    /// Rows that the connection updated, counted by a hook; none if no write of the plugin updates. The change counter
    /// of SQLite does not distinguish an upsert that inserted from one that updated.
    updates: Option<Arc<AtomicU64>>,
    pub(super) effects: Vec<RowEffects>,
    /// For each table of the manifest; none if it has no segments.
    sums: Vec<Option<TableSums>>,
    /// For each write, where its rows have the summarised values.
    summarised: Vec<Option<SummarisedValues>>,
    /// The rows that the message has added so far, by index. They count only when all rows of the message are written.
    added: Vec<(usize, i64)>,
}

/// Where the rows of a write have the values that a segment summarises; a column that the write omits is null.
struct SummarisedValues {
    table: usize,
    time: Option<usize>,
    facets: Vec<Option<usize>>,
}

impl SummarisedValues {
    fn of(write: &Write, table: &Table, sums: &TableSums) -> Self {
        let position = |name: &String| {
            let mut columns = write.columns.iter();
            columns.position(|&column| table.columns[column].name.as_str() == name)
        };
        let set = sums.set();
        Self {
            table: write.table,
            time: set.time.as_ref().and_then(position),
            facets: set.facets.iter().map(position).collect(),
        }
    }

    fn time(&self, row: &Row) -> Option<i64> {
        match self.time.map(|position| &row.values[position]) {
            Some(Value::Timestamp(Timestamp(time))) => Some(*time),
            _ => None,
        }
    }

    fn facets<'r>(&self, row: &'r Row) -> impl Iterator<Item = ValueRef<'r>> {
        let facets = self.facets.iter();
        facets.map(|position| position.map_or(ValueRef::Null, |position| stored(&row.values[position])))
    }
}

impl<'a> Writes<'a> {
    pub(super) fn prepare(connection: &'a Connection, plugin: &Adopted) -> Result<Self, Error> {
        let file = connection.require_sqlite("a prepared write")?;
        let statements = plugin
            .statements
            .iter()
            .map(|text| file.prepare_cached(text))
            .collect::<Result<Vec<_>, _>>()?;
        let manifest = &plugin.manifest;
        let sums = table_sums(connection, plugin)?;
        let summarised = manifest.writes.iter().map(|write| {
            let sums = sums.get(write.table)?.as_ref()?;
            Some(SummarisedValues::of(write, manifest.table_of(write), sums))
        });
        let summarised = summarised.collect();
        let updates = manifest
            .writes
            .iter()
            .any(|write| matches!(write.on_conflict, OnConflict::Update(_)))
            .then(Arc::<AtomicU64>::default);
        if let Some(updates) = updates.clone() {
            file.update_hook(Some(move |action, _: &str, _: &str, _| {
                if action == Action::SQLITE_UPDATE {
                    updates.fetch_add(1, Ordering::Relaxed);
                }
            }))?;
        }
        Ok(Self {
            connection,
            file,
            effects: vec![RowEffects::default(); statements.len()],
            statements,
            updates,
            sums,
            summarised,
            added: Vec::new(),
        })
    }

    /// Adds the sums of the added rows to the summaries of their segments. Returns the effects of each write.
    pub(super) fn finish(mut self) -> Result<Vec<RowEffects>, Error> {
        for sums in self.sums.iter_mut().flatten() {
            sums.flush(self.connection)?;
        }
        Ok(std::mem::take(&mut self.effects))
    }

    fn updated(&self) -> u64 {
        self.updates
            .as_ref()
            .map_or(0, |updates| updates.load(Ordering::Relaxed))
    }

    pub(super) fn write_entry(&mut self, origin: OriginId, entry: &Entry) -> Result<(), Error> {
        let Outcome::Rows(rows) = &entry.outcome else {
            return Ok(());
        };
        let sequence = to_sql(entry.delivery.sequence);
        self.added.clear();
        for (number, row) in rows.iter().enumerate() {
            let before = self.updated();
            let write = row.write as usize;
            let stamp = [origin.0, sequence, to_sql(number as u64)];
            let changed = write_row(&mut self.statements[write], stamp, row)?;
            let updated = self.updated() - before;
            self.effects[write] += RowEffects {
                inserted: changed.saturating_sub(updated),
                updated,
                present: u64::from(changed == 0),
            };
            if changed > 0 && self.summarised[write].is_some() {
                self.added.push((number, self.file.last_insert_rowid()));
            }
        }
        self.sum_added(origin, sequence, rows);
        Ok(())
    }

    fn sum_added(&mut self, origin: OriginId, sequence: i64, rows: &[Row]) {
        for (number, rowid) in self.added.drain(..) {
            let row = &rows[number];
            let Some(values) = &self.summarised[row.write as usize] else {
                continue;
            };
            let appended = Appended {
                rowid,
                origin: origin.0,
                sequence,
                time: values.time(row),
            };
            if let Some(sums) = &mut self.sums[values.table] {
                sums.add(&appended, values.facets(row));
            }
        }
    }
}

impl Drop for Writes<'_> {
    fn drop(&mut self) {
        if self.updates.is_some() {
            // It fails only on a connection of another owner, where it would have failed at the start.
            drop(self.file.update_hook(None::<fn(Action, &str, &str, i64)>));
        }
    }
}

/// The empty sums of each table of a plugin. The database is read for each batch, because a rebuild may have replaced a table
/// since the version was adopted. A table that this version updates loses its segments.
fn table_sums(connection: &Connection, plugin: &Adopted) -> Result<Vec<Option<TableSums>>, Error> {
    let tables = plugin.manifest.tables.iter().zip(plugin.tables.iter());
    let sums = tables.map(|(table, name)| {
        let Some(set) = segments::set_of(connection, name)? else {
            return Ok(None);
        };
        if segments::is_updated(&plugin.manifest, table) {
            segments::replace_by_indexes(connection, name, &TableDescription::from(table))?;
            return Ok(None);
        }
        Ok(Some(TableSums::new(set)))
    });
    sums.collect()
}

fn write_row(statement: &mut CachedStatement<'_>, stamp: [i64; 3], row: &Row) -> Result<u64, Error> {
    for (index, stamp) in (1_usize..).zip(stamp) {
        statement.raw_bind_parameter(index, stamp)?;
    }
    for (index, value) in (4_usize..).zip(&row.values) {
        statement.raw_bind_parameter(index, parameter(value))?;
    }
    Ok(statement.raw_execute()? as u64)
}
