//! Rows in pages: any selection, in the order of any column; each page begins after the last row of the previous one.
//!
//! One statement finds a page in two steps. The first finds the numbers of its rows, by an index if there is one, and
//! reads nothing else; the second reads those rows. Rows without a value in the sort column come last in either
//! direction.

mod finder;
pub(super) mod pager;
mod searcher;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::types::ValueRef;

use super::bound::Bound;
use super::connections::Row;
use super::selection::Selection;
use super::shape::Shape;
use super::{ReadError, Reader};
use crate::segments::OriginTable;
use crate::statement::quote;
use finder::{Finder, select_rows};
use lantern_model::batch::Value;
use lantern_model::identity::RowIdentity;

/// Rows that are scanned at a time if no index finds the selected ones: few at first, for pages that fill quickly, then
/// more, up to some hundredths of a second.
const STRETCH_FIRST: usize = 2_000;
const STRETCH_LAST: usize = 32_000;

/// Texts up to this length are stored in the position of a page; longer ones are read again.
const KEY_BYTES_MAX: usize = 512;

/// The order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The sort column, and among equal values the row number; only the row number if there is none.
    pub column: Option<usize>,
    /// Descending.
    pub descending: bool,
}

/// The end of a page: after this row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowPosition {
    /// Its value in the sort column.
    pub key: Key,
    /// Its number.
    pub row: i64,
}

/// The value of a row in the sort column.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// None, or the sort is by row number.
    Null,
    /// A whole number, a time, or a boolean.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text.
    Text(String),
    /// The stored text, which is too long for a position.
    Stored,
}

/// A query for a page of rows.
#[derive(Clone, Debug)]
pub struct RowQuery {
    /// The selected rows.
    pub selection: Selection,
    /// Their order.
    pub sort: Sort,
    /// Their columns, by position.
    pub columns: Vec<usize>,
    /// The maximum number of rows.
    pub limit: u32,
    /// The position after which the page begins; none for the first page.
    pub after: Option<RowPosition>,
}

/// One row.
#[derive(Clone, Debug)]
pub struct RowRecord {
    /// SQLite's number of the row, for [`RowPosition`] only: a rebuild changes it.
    pub rowid: i64,
    /// In the order of the page's columns.
    pub values: Vec<Value>,
    /// Its identity.
    pub id: RowIdentity,
}

/// A page of rows.
#[derive(Clone, Debug)]
pub struct RowPage {
    /// Names of the values.
    pub columns: Arc<[String]>,
    /// The rows.
    pub items: Vec<RowRecord>,
    /// The position of the next page, if there is more.
    pub next: Option<RowPosition>,
}

impl RowPage {
    /// A page of the rows that were found. If they fill it, the next page begins after the last one, otherwise at `next`.
    fn new(
        shape: &Shape,
        query: &RowQuery,
        mut found: Vec<(Key, RowRecord)>,
        is_full: bool,
        next: Option<RowPosition>,
    ) -> Self {
        found.truncate(query.limit as usize);
        let last = found.last().filter(|_| is_full).map(|(key, record)| RowPosition {
            key: key.clone(),
            row: record.rowid,
        });
        Self {
            columns: shape.names(&query.columns),
            items: found.into_iter().map(|(_, record)| record).collect(),
            next: last.or(next).map(RowPosition::short),
        }
    }
}

impl RowPosition {
    /// Long texts are omitted; they are read again.
    fn short(self) -> Self {
        match self.key {
            Key::Text(text) if text.len() > KEY_BYTES_MAX => Self {
                key: Key::Stored,
                ..self
            },
            key => Self { key, ..self },
        }
    }
}

/// Rows with a value in the sort column, or those without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Numbered,
    Filled,
    Empty,
}

impl Reader {
    /// One page of rows. If no condition can use an index, the reader scans rows in chunks until the page is full or
    /// the time is over: then the page has fewer rows, or none, and `next` continues the scan.
    ///
    /// # Errors
    /// See [`ReadError`]; [`ReadError::PositionGone`] when the row after which it begins is needed and gone.
    pub async fn rows(&self, shape: &Shape, query: &RowQuery) -> Result<RowPage, ReadError> {
        if let Some(page) = self.rows_by_search(shape, query).await? {
            return Ok(page);
        }
        if let Some(page) = self.rows_by_segments(shape, query).await? {
            return Ok(page);
        }
        self.rows_in_order(shape, query).await
    }

    /// A page that SQLite finds along an index or by a scan in chunks.
    async fn rows_in_order(&self, shape: &Shape, query: &RowQuery) -> Result<RowPage, ReadError> {
        let mut after = query.after.clone();
        let mut parts = parts_of(shape, query);
        let wanted = query.limit as usize + 1;
        let began = Instant::now();
        let until = began + self.limits.time / 2;
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut stretch = STRETCH_FIRST;
        let mut next = None;
        while let Some(&part) = parts.front() {
            self.read_stored_key(shape, query, after.as_mut()).await?;
            let finder = Finder::new(shape, query, part, after.as_ref());
            let (sql, bound) = finder.page(&query.columns, wanted - found.len(), stretch);
            // All chunks together have the time of one read.
            let reader = self.within(self.limits.time.saturating_sub(began.elapsed()));
            let (rows_before, mut size_of_stretch) = (found.len(), 0);
            let more = reader.fetch_sized(&sql, bound.arguments(), wanted, |row| {
                let (key, record, size) = record(shape, &query.columns, row)?;
                size_of_stretch += size;
                Ok(((key, record), size))
            });
            let end = match more.await {
                Ok(more) => {
                    found.extend(more);
                    bytes += size_of_stretch;
                    if found.len() >= wanted || bytes >= self.limits.page_bytes {
                        break;
                    }
                    match finder.is_in_stretches() {
                        true => reader.end_of_stretch(&finder, stretch).await,
                        false => Ok(None),
                    }
                }
                Err(error) => Err(error),
            };
            let end = match end {
                Ok(end) => end,
                // The rows that were found form a page, and the next one begins with this chunk.
                Err(ReadError::TimeLimit { .. }) if stretch > STRETCH_FIRST && after.is_some() => {
                    found.truncate(rows_before);
                    next = after;
                    break;
                }
                Err(error) => return Err(error),
            };
            if end.is_none() {
                parts.pop_front();
            }
            // The other part begins at its start.
            after = end;
            stretch = (stretch * 4).min(STRETCH_LAST);
            if Instant::now() >= until && after.is_some() {
                next = after;
                break;
            }
        }
        let is_full = found.len() >= wanted || bytes >= self.limits.page_bytes;
        Ok(RowPage::new(shape, query, found, is_full, next))
    }

    /// The query with the sort value of its position.
    async fn with_stored_key(&self, shape: &Shape, query: &RowQuery) -> Result<RowQuery, ReadError> {
        let mut after = query.after.clone();
        self.read_stored_key(shape, query, after.as_mut()).await?;
        Ok(RowQuery {
            after,
            ..query.clone()
        })
    }

    /// Reads the sort value of a position that does not contain it.
    async fn read_stored_key(
        &self,
        shape: &Shape,
        query: &RowQuery,
        position: Option<&mut RowPosition>,
    ) -> Result<(), ReadError> {
        if let (Some(position), Some(column)) = (position, query.sort.column)
            && position.key == Key::Stored
        {
            position.key = self.key_of(shape, column, position.row).await?;
        }
        Ok(())
    }

    /// The last row of the scanned chunk; none if it was the last chunk.
    async fn end_of_stretch(
        &self,
        finder: &Finder<'_>,
        rows: usize,
    ) -> Result<Option<RowPosition>, ReadError> {
        let mut bound = Bound::default();
        let found = finder.find(&mut bound, rows);
        let sql = format!("SELECT r, k FROM ({found}) AS found LIMIT 1 OFFSET {}", rows - 1);
        let mut ends = self
            .fetch_sized(&sql, bound.arguments(), 1, |row| {
                let place = RowPosition {
                    key: key(row, 1)?,
                    row: row.get(0).map_err(ReadError::Sql)?,
                };
                Ok((place, 0))
            })
            .await?;
        Ok(ends.pop())
    }

    /// The row with this identity, if it exists.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn row(&self, shape: &Shape, id: RowIdentity) -> Result<Option<RowRecord>, ReadError> {
        let columns: Vec<usize> = (0..shape.columns.len()).collect();
        let name = shape.entry.name.to_string();
        let stored = self
            .snapshot(move |connection| Ok::<_, ReadError>(OriginTable::find(connection, &name)?))
            .await?;
        let mut bound = Bound::default();
        let [origin, sequence, row] = [id.origin, id.sequence, id.row].map(|number| bound.integer(number));
        let rows = stored.rows(&origin, &sequence, &sequence);
        let found = format!("SELECT t._rowid_, NULL {rows} AND t._row = {row}");
        let sql = select_rows(shape, &columns, &found).sql;
        let mut rows = self
            .fetch_sized(&sql, bound.arguments(), 1, |row| {
                Ok((record(shape, &columns, row)?.1, 0))
            })
            .await?;
        Ok(rows.pop())
    }

    async fn key_of(&self, shape: &Shape, column: usize, row: i64) -> Result<Key, ReadError> {
        let name = quote(&shape.columns[column].name);
        let sql = format!(
            "SELECT {name} FROM {} WHERE _rowid_ = ?1",
            quote(&shape.entry.name)
        );
        let arguments = vec![row.into()];
        let mut found = self
            .fetch_sized(&sql, arguments, 1, |row| Ok((key(row, 0)?, 0)))
            .await?;
        match found.pop() {
            Some(Key::Stored) | None => Err(ReadError::PositionGone),
            Some(key) => Ok(key),
        }
    }
}

/// The parts of the table that a page may contain, in order.
fn parts_of(shape: &Shape, query: &RowQuery) -> VecDeque<Part> {
    let is_after_values = query.after.as_ref().is_some_and(|after| after.key == Key::Null);
    match query.sort.column {
        None => [Part::Numbered].into(),
        Some(column) if !shape.columns[column].nullable => [Part::Filled].into(),
        Some(_) if is_after_values => [Part::Empty].into(),
        Some(_) => [Part::Filled, Part::Empty].into(),
    }
}

/// The statement for the first part of a page, with its parameters.
#[cfg(test)]
pub(super) fn plan_of(shape: &Shape, query: &RowQuery) -> (String, Vec<lantern_model::batch::Value>) {
    let part = query.sort.column.map_or(Part::Numbered, |_| Part::Filled);
    let finder = Finder::new(shape, query, part, query.after.as_ref());
    let (sql, bound) = finder.page(&query.columns, query.limit as usize, STRETCH_FIRST);
    (sql, bound.into_values())
}

impl Sort {
    fn direction(self) -> &'static str {
        if self.descending { "DESC" } else { "ASC" }
    }
}

/// Columns before the requested ones.
const LEADING: usize = 5;

/// A row with its sort value and its approximate size.
pub(super) fn record(
    shape: &Shape,
    columns: &[usize],
    row: &mut Row,
) -> Result<(Key, RowRecord, usize), ReadError> {
    let mut values = Vec::with_capacity(columns.len());
    let mut bytes = 0;
    for (index, &position) in columns.iter().enumerate() {
        let (value, size) = shape.value(position, row, LEADING + index)?;
        values.push(value);
        bytes += size;
    }
    let (rowid, id) = identity(row).map_err(ReadError::Sql)?;
    Ok((key(row, 1)?, RowRecord { rowid, values, id }, bytes))
}

fn identity(row: &Row) -> Result<(i64, RowIdentity), crate::sql::Error> {
    let id = RowIdentity {
        origin: row.get(2)?,
        sequence: row.get(3)?,
        row: row.get(4)?,
    };
    Ok((row.get(0)?, id))
}

fn key(row: &Row, index: usize) -> Result<Key, ReadError> {
    Ok(match row.value(index).map_err(ReadError::Sql)? {
        ValueRef::Null => Key::Null,
        ValueRef::Integer(number) => Key::Integer(number),
        ValueRef::Real(number) => Key::Real(number),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Key::Text(text.to_owned()),
            // A parameter cannot hold it, so it is read again.
            Err(_) => Key::Stored,
        },
        // A short text of PostgreSQL, see `Finder::shown_key`.
        ValueRef::Blob([1, text @ ..]) => match std::str::from_utf8(text) {
            Ok(text) => Key::Text(text.to_owned()),
            Err(_) => Key::Stored,
        },
        // Represents a long text.
        ValueRef::Blob(_) => Key::Stored,
    })
}
