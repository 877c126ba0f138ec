//! Segments: summaries of 1,024 consecutive rows, which a table that only grows by inserts has instead of an index on its
//! origin columns and one for each facet (see docs/adr/0018-segments.md).
//!
//! The newest segment, the one of the greatest row number, has no stored summary, so that a small batch changes no page of
//! summaries: a query reads its rows instead (`rows`). A batch that begins a segment stores the summaries of those
//! before it (`sums`); every other change of rows reads the affected segments again (`refresh`). Both happen in the
//! transaction of the rows. `origin` finds the rows of a message. This module owns all tables whose names begin with
//! `_lantern_segment`, except that the reader reads them.

mod origin;
mod refresh;
mod rows;
mod stored;
mod summary;
mod sums;
#[cfg(test)]
mod tests;
mod verify;

use crate::sql::{Connection, OptionalExtension as _, params};

use super::description::{ColumnRole, TableDescription};
use super::indexes::existing::{self, ExistingIndex};
use super::indexes::needed::needed;
use super::statement::{NewIndex, quote_text};
use super::values::StorageClass;
use lantern_model::schema::{Manifest, OnConflict, Table};

pub(super) use origin::{OriginTable, is_in_newest_segment};
pub(super) use refresh::Touched;
pub(super) use rows::open_segment;
pub(super) use summary::{Appended, LONG_MARKER, NULL_MARKER, Summary};
pub(super) use sums::TableSums;
pub(super) use verify::{Difference, differences};

/// Binary logarithm of the rows of a segment: its number is `rowid >> SEGMENT_BITS`. Summaries are a few pages for a million
/// rows, and reading one segment takes less than a millisecond.
pub(super) const SEGMENT_BITS: u32 = 10;

/// Binary logarithm of the sequences of a block. A message has few segments to search even in a table with many millions of
/// rows, and a source that reads one message in a hundred thousand of its stream still has only one entry for each row.
pub(super) const BLOCK_BITS: u32 = 17;

/// Longest value of a facet that is counted separately, in bytes. Facets of the API leave out longer texts.
pub(super) const FACET_BYTES_MAX: usize = 1 << 10;

/// Facet columns whose values are counted. Each costs a lookup for each row, and few users filter by more facets than this.
const FACETS_MAX: usize = 16;

/// The segments of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentSet {
    pub(super) id: i64,
    /// The table's name in the database.
    pub(super) table: String,
    /// The column whose bounds are stored.
    pub(super) time: Option<String>,
    /// The columns whose values are counted.
    pub(super) facets: Vec<String>,
}

/// Whether a table of a version has segments from the start. Its rows must never be updated. Its row numbers must ascend, so
/// they must not be the values of a column, and must be stable: VACUUM numbers the rows of a table without any index again.
pub(super) fn suits(manifest: &Manifest, table: &Table) -> bool {
    let has_index = !table.primary_key.is_empty()
        || !table.indexes.is_empty()
        || !needed(&TableDescription::from(table), true).is_empty();
    has_index && !has_numeric_key(table) && !is_updated(manifest, table)
}

/// Whether a write of this version updates stored rows of the table.
pub(super) fn is_updated(manifest: &Manifest, table: &Table) -> bool {
    manifest.writes.iter().any(|write| {
        manifest.table_of(write).name == table.name && matches!(write.on_conflict, OnConflict::Update(_))
    })
}

/// Whether the primary key is the row number: SQLite treats a single column of type INTEGER so.
fn has_numeric_key(table: &Table) -> bool {
    let [name] = table.primary_key.as_slice() else {
        return false;
    };
    table
        .column(name)
        .is_some_and(|column| StorageClass::of(column.column_type) == StorageClass::Integer)
}

/// The segments of a table; none if it has indexes instead.
pub(super) fn set_of(connection: &Connection, table: &str) -> Result<Option<SegmentSet>, crate::sql::Error> {
    connection
        .prepare_cached("SELECT id, time_column, facet_columns FROM _lantern_segments WHERE table_name = ?1")?
        .query_row([table], |row| {
            let facets: String = row.get(2)?;
            Ok(SegmentSet {
                id: row.get(0)?,
                table: table.to_owned(),
                time: row.get(1)?,
                facets: serde_json::from_str(&facets).map_err(|error| crate::sql::Error::decode(2, error))?,
            })
        })
        .optional()
}

/// Whether a table has segments.
pub(super) fn has_segments(connection: &Connection, table: &str) -> Result<bool, crate::sql::Error> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM _lantern_segments WHERE table_name = ?1)")?
        .query_row([table], |row| row.get(0))
}

/// The column whose bounds are stored, and those whose values are counted. Columns that the active version no longer declares
/// are included, so that a rollback changes nothing.
fn summarised(description: &TableDescription) -> (Option<String>, Vec<String>) {
    let with = |role: ColumnRole| {
        let columns = description.columns.iter();
        columns.filter(move |column| column.role == Some(role))
    };
    let time = with(ColumnRole::Time)
        .find(|column| !column.retired)
        .or_else(|| with(ColumnRole::Time).next());
    let facets = with(ColumnRole::Facet)
        .filter(|column| column.column_type.is_sortable())
        .take(FACETS_MAX);
    (
        time.map(|column| column.name.clone()),
        facets.map(|column| column.name.clone()).collect(),
    )
}

/// Begins the segments of a new, empty table.
pub(super) fn begin(
    connection: &Connection,
    table: &str,
    description: &TableDescription,
) -> Result<(), crate::sql::Error> {
    // A table of this name that was dropped by hand may have left its segments.
    drop_segments(connection, table)?;
    let (time, facets) = summarised(description);
    connection
        .execute(
            "INSERT INTO _lantern_segments (table_name, time_column, facet_columns) VALUES (?1, ?2, ?3)",
            params![table, time, to_json(&facets)?],
        )
        .map(|_| ())
}

fn to_json(names: &[String]) -> Result<String, crate::sql::Error> {
    serde_json::to_string(names).map_err(crate::sql::Error::encode)
}

/// Adapts the summaries of a table to its description, after a version has changed its columns. `added` are columns that are
/// null in all stored rows. Counting other columns reads the whole table.
pub(super) fn adapt(
    connection: &Connection,
    table: &str,
    description: &TableDescription,
    added: &[&str],
) -> Result<(), crate::sql::Error> {
    let Some(set) = set_of(connection, table)? else {
        return Ok(());
    };
    let (time, facets) = summarised(description);
    if (&set.time, &set.facets) == (&time, &facets) {
        return Ok(());
    }
    let is_added = |name: &String| added.contains(&name.as_str());
    let only_grows = set.facets.iter().all(|old| facets.contains(old))
        && facets.iter().all(|new| set.facets.contains(new) || is_added(new));
    let same_time = set.time == time;
    connection.execute(
        "UPDATE _lantern_segments SET time_column = ?2, facet_columns = ?3 WHERE id = ?1",
        params![set.id, time, to_json(&facets)?],
    )?;
    if only_grows && same_time {
        let new = facets.iter().filter(|name| !set.facets.contains(name));
        for column in new {
            refresh::count_as_null(connection, set.id, column)?;
        }
        return Ok(());
    }
    refresh::refresh_all(connection, table)
}

/// Gives a table the indexes of a table without segments, and removes its segments. For a version that begins to update
/// rows.
pub(super) fn replace_by_indexes(
    connection: &Connection,
    table: &str,
    description: &TableDescription,
) -> Result<(), crate::sql::Error> {
    if !has_segments(connection, table)? {
        return Ok(());
    }
    existing::create_declared(connection, &NewIndex::of_origin(table))?;
    let present: Vec<ExistingIndex> = existing::indexes_of(connection, table)?;
    for columns in existing::missing_columns(&present, description, false) {
        existing::create_index(connection, table, &columns)?;
    }
    drop_segments(connection, table)
}

/// Removes the segments of a table.
pub(super) fn drop_segments(connection: &Connection, table: &str) -> Result<(), crate::sql::Error> {
    while drop_some(connection, table, i64::MAX)? {}
    Ok(())
}

/// The tables of summaries.
const SUMMARIES: [(&str, &str); 3] = [
    ("_lantern_segment", "segments, segment"),
    ("_lantern_segment_origin", "segments, origin, block, segment"),
    ("_lantern_segment_facet", "segments, \"column\", value, segment"),
];

/// Removes at most `limit` entries of the segments of a table, and the set when it is empty. Returns whether there is more to
/// do.
pub(super) fn drop_some(connection: &Connection, table: &str, limit: i64) -> Result<bool, crate::sql::Error> {
    let Some(set) = set_of(connection, table)? else {
        return Ok(false);
    };
    for (summaries, key) in SUMMARIES {
        let sql = format!(
            "DELETE FROM {summaries} WHERE ({key}) IN (SELECT {key} FROM {summaries} WHERE segments = ?1 LIMIT ?2)"
        );
        if connection.execute(&sql, [set.id, limit])? > 0 {
            return Ok(true);
        }
    }
    connection.execute("DELETE FROM _lantern_segments WHERE id = ?1", [set.id])?;
    Ok(false)
}

/// Gives the segments of a renamed table its new name.
pub(super) fn rename(connection: &Connection, from: &str, to: &str) -> Result<(), crate::sql::Error> {
    connection
        .execute(
            "UPDATE _lantern_segments SET table_name = ?2 WHERE table_name = ?1",
            [from, to],
        )
        .map(|_| ())
}

/// The segments of rows from `first` to `last`.
pub(super) fn segments_between(first: i64, last: i64) -> impl Iterator<Item = i64> {
    let last = if last < first {
        (first >> SEGMENT_BITS) - 1
    } else {
        last >> SEGMENT_BITS
    };
    first >> SEGMENT_BITS..=last
}

/// The newest segment of a table: that of its greatest row number. None if the table is empty.
fn newest(connection: &Connection, table: &str) -> Result<Option<i64>, crate::sql::Error> {
    connection
        .prepare_cached(&format!(
            "SELECT max(_rowid_) >> {SEGMENT_BITS} FROM {}",
            quote_text(table)
        ))?
        .query_row([], |row| row.get(0))
}
