//! Rows in pages: any selection, in the order of any column, each page beginning behind the last row of the one before.
//!
//! A page is found in two steps of one statement. The first finds the numbers of its rows, by an index where there is
//! one, and reads nothing else; the second reads those rows. Rows without a value in the column of the order come last,
//! whichever way it goes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::types::ValueRef;

use super::cells::{Cell, cell};
use super::connections::Row;
use super::selection::{Bound, Conditions, Lead, Selection, Test, all};
use super::shape::Shape;
use super::{ReadError, Reader};
use crate::statement::quote;
use lantern_model::batch::Value;
use lantern_model::schema::ColumnType;

/// Rows that are looked at at once where no index finds those that are wanted: few at first, for pages that are full soon,
/// and then more, up to what takes some hundredths of a second.
const STRETCH_FIRST: usize = 2_000;
const STRETCH_LAST: usize = 32_000;

/// Texts up to here stand in the place where a page ends; longer ones are looked up again.
const KEY_BYTES_MAX: usize = 512;

/// In which order rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By the values of this column, and among equal ones by row number; by row number alone where there is none.
    pub column: Option<usize>,
    /// The greatest first.
    pub descending: bool,
}

/// Where a page ends: behind this row.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Its value in the column of the order.
    pub key: Key,
    /// Its number.
    pub row: i64,
}

/// The value by which rows are ordered.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// None, or rows are ordered by number.
    Null,
    /// A whole number, a time, or yes and no.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text.
    Text(String),
    /// What the row holds; too long to be carried about.
    Stored,
}

/// Which rows are wanted, and what of them.
#[derive(Clone, Debug)]
pub struct RowQuery {
    /// Which.
    pub selection: Selection,
    /// In which order.
    pub sort: Sort,
    /// Which columns of them, by position.
    pub columns: Vec<usize>,
    /// At most so many.
    pub limit: u32,
    /// Behind this place; from the beginning where there is none.
    pub after: Option<Place>,
}

/// Which message a row was last written by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowOrigin {
    /// The source's name; none when the origin is unknown.
    pub source: Option<String>,
    /// Its epoch.
    pub epoch: Option<i64>,
    /// The message's sequence.
    pub sequence: i64,
    /// `_origin`.
    pub number: i64,
    /// `_row`: which of that message's rows it is.
    pub row: i64,
}

/// One row.
#[derive(Clone, Debug)]
pub struct RowRecord {
    /// Its number in the table.
    pub row: i64,
    /// In the order of the page's columns.
    pub cells: Vec<Cell>,
    /// Where it comes from.
    pub origin: RowOrigin,
}

/// A page of rows.
#[derive(Clone, Debug)]
pub struct RowPage {
    /// Names of the cells.
    pub columns: Arc<[String]>,
    /// The rows.
    pub items: Vec<RowRecord>,
    /// Where the next page begins, when there is more.
    pub next: Option<Place>,
}

impl Place {
    /// Long texts are left out; they are read again.
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

/// Rows with a value in the column of the order, or those without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Numbered,
    Filled,
    Empty,
}

impl Reader {
    /// One page of rows. Where none of the conditions leads to rows by an index, rows are looked at in stretches until
    /// the page is full or the time is up: then it has fewer rows, or none, and `next` says where to go on.
    ///
    /// # Errors
    /// See [`ReadError`]; [`ReadError::PlaceGone`] when the row that it begins behind would have to be there and is not.
    pub async fn rows(&self, shape: &Shape, query: &RowQuery) -> Result<RowPage, ReadError> {
        let mut after = query.after.clone();
        let mut parts: VecDeque<Part> = match query.sort.column {
            None => [Part::Numbered].into(),
            Some(column) if !shape.columns[column].nullable => [Part::Filled].into(),
            Some(_) if after.as_ref().is_some_and(|place| place.key == Key::Null) => [Part::Empty].into(),
            Some(_) => [Part::Filled, Part::Empty].into(),
        };
        let wanted = query.limit as usize + 1;
        let began = Instant::now();
        let until = began + self.limits.time / 2;
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut stretch = STRETCH_FIRST;
        let mut next = None;
        while let Some(&part) = parts.front() {
            if let (Some(place), Some(column)) = (after.as_mut(), query.sort.column)
                && place.key == Key::Stored
            {
                place.key = self.key_of(shape, column, place.row).await?;
            }
            let finder = Finder::new(shape, query, part, after.as_ref());
            let (sql, bound) = finder.page(&query.columns, wanted - found.len(), stretch);
            // All stretches together have the time of one read.
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
                // What was found before is a page, and the next one begins with this stretch.
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
            // The other part begins at its beginning.
            after = end;
            stretch = (stretch * 4).min(STRETCH_LAST);
            if Instant::now() >= until && after.is_some() {
                next = after;
                break;
            }
        }
        let is_full = found.len() >= wanted || bytes >= self.limits.page_bytes;
        found.truncate(query.limit as usize);
        let last = found.last().filter(|_| is_full).map(|(key, record)| Place {
            key: key.clone(),
            row: record.row,
        });
        let name = |position: &usize| shape.columns[*position].name.to_string();
        Ok(RowPage {
            columns: query.columns.iter().map(name).collect(),
            items: found.into_iter().map(|(_, record)| record).collect(),
            next: last.or(next).map(Place::short),
        })
    }

    /// The last row of the stretch that was looked at; none where it was the last stretch.
    async fn end_of_stretch(&self, finder: &Finder<'_>, rows: usize) -> Result<Option<Place>, ReadError> {
        let mut bound = Bound::default();
        let found = finder.find(&mut bound, rows);
        let sql = format!("SELECT r, k FROM ({found}) LIMIT 1 OFFSET {}", rows - 1);
        let mut ends = self
            .fetch_sized(&sql, bound.arguments(), 1, |row| {
                let place = Place {
                    key: key(row, 1)?,
                    row: row.get(0).map_err(ReadError::Sql)?,
                };
                Ok((place, 0))
            })
            .await?;
        Ok(ends.pop())
    }

    /// The row with this number, when there is one.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn row(&self, shape: &Shape, row: i64) -> Result<Option<RowRecord>, ReadError> {
        let columns: Vec<usize> = (0..shape.columns.len()).collect();
        let mut bound = Bound::default();
        let number = bound.integer(row);
        let found = format!(
            "SELECT _rowid_, NULL FROM {} WHERE _rowid_ = {number}",
            quote(&shape.entry.name)
        );
        let sql = reading(shape, &columns, &found);
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
            Some(Key::Stored) | None => Err(ReadError::PlaceGone),
            Some(key) => Ok(key),
        }
    }
}

/// The statement for the first part of a page, and its parameters.
#[cfg(test)]
pub(super) fn plan_of(shape: &Shape, query: &RowQuery) -> (String, Vec<Value>) {
    let part = query.sort.column.map_or(Part::Numbered, |_| Part::Filled);
    let finder = Finder::new(shape, query, part, query.after.as_ref());
    let (sql, bound) = finder.page(&query.columns, query.limit as usize, STRETCH_FIRST);
    (sql, bound.into_values())
}

/// The selection once for each value of its leading condition.
fn alternatives(selection: &Selection, position: usize) -> impl Iterator<Item = Selection> {
    let values = match selection
        .conditions
        .get(position)
        .map(|condition| &condition.test)
    {
        Some(Test::OneOf { values, .. }) => values.clone(),
        _ => Vec::new(),
    };
    values.into_iter().map(move |value| {
        let mut selection = selection.clone();
        selection.conditions[position].test = Test::OneOf {
            values: vec![value],
            null: false,
        };
        selection
    })
}

impl Sort {
    fn direction(self) -> &'static str {
        if self.descending { "DESC" } else { "ASC" }
    }
}

/// Finds the numbers of the rows of a page.
struct Finder<'a> {
    shape: &'a Shape,
    selection: &'a Selection,
    lead: Lead,
    sort: Sort,
    part: Part,
    after: Option<&'a Place>,
}

impl<'a> Finder<'a> {
    fn new(shape: &'a Shape, query: &'a RowQuery, part: Part, after: Option<&'a Place>) -> Self {
        Self {
            shape,
            selection: &query.selection,
            lead: Lead::of(shape, &query.selection, query.sort.column),
            sort: query.sort,
            part,
            after,
        }
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            shape: self.shape,
            selection: self.selection,
            lead: self.lead,
        }
    }

    /// Whether rows have to be looked at that are not wanted in the end.
    fn is_in_stretches(&self) -> bool {
        let led = match self.lead {
            Lead::Order => 0,
            Lead::Choice(_) => 1,
            Lead::Key => self.selection.conditions.len(),
        };
        let range_follows = self.selection.has_range() && !self.range_leads();
        self.selection.conditions.len() > led || self.selection.search.is_some() || range_follows
    }

    fn is_sorted_by_time(&self) -> bool {
        self.sort.column.is_some() && self.sort.column == self.shape.time()
    }

    /// Whether rows are found by their time. In another order they have to be sorted then.
    fn range_leads(&self) -> bool {
        let sort_is_served = self
            .sort
            .column
            .is_some_and(|column| self.shape.is_indexed(column));
        self.is_sorted_by_time()
            || (self.selection.has_range() && (self.lead == Lead::Order || !sort_is_served))
    }

    /// Reads the rows whose numbers are found, in their order: `p` is looped over as it was made, and nothing is sorted
    /// again, so that no more than one row is in memory at a time.
    fn page(&self, columns: &[usize], limit: usize, stretch: usize) -> (String, Bound) {
        let mut bound = Bound::default();
        let found = self.find(&mut bound, if self.is_in_stretches() { stretch } else { limit });
        let mut sql = reading(self.shape, columns, &found);
        if self.is_in_stretches() {
            let mut following = self.conditions().following(&mut bound);
            if !self.range_leads() {
                following.extend(self.conditions().range(&mut bound, false));
            }
            sql = format!("{sql} WHERE {} LIMIT {limit}", all(&following));
        }
        (sql, bound)
    }

    /// The numbers of rows in the order wanted, by what leads to them; their values in the order's column as `k`.
    fn find(&self, bound: &mut Bound, limit: usize) -> String {
        let branches: Vec<String> = match self.lead {
            Lead::Choice(position) => alternatives(self.selection, position)
                .map(|selection| self.select(bound, &selection, limit))
                .collect(),
            Lead::Order | Lead::Key => vec![self.select(bound, self.selection, limit)],
        };
        match branches.as_slice() {
            [one] => one.clone(),
            many => {
                let each: Vec<String> = many
                    .iter()
                    .map(|one| format!("SELECT r, k FROM ({one})"))
                    .collect();
                let direction = self.sort.direction();
                format!(
                    "{} ORDER BY 2 {direction}, 1 {direction} LIMIT {limit}",
                    each.join(" UNION ALL ")
                )
            }
        }
    }

    fn select(&self, bound: &mut Bound, selection: &Selection, limit: usize) -> String {
        let conditions = Conditions {
            selection,
            ..self.conditions()
        };
        let mut every = conditions.leading(bound);
        if self.range_leads() {
            every.extend(conditions.range(bound, true));
        }
        every.extend(self.behind(bound));
        let direction = self.sort.direction();
        let order = match (self.key(), self.part) {
            (Some(key), Part::Filled) => format!("{key} {direction}, t._rowid_ {direction}"),
            _ => format!("t._rowid_ {direction}"),
        };
        format!(
            "SELECT t._rowid_ AS r, {} AS k FROM {} AS t WHERE {} ORDER BY {order} LIMIT {limit}",
            self.shown_key(),
            quote(&self.shape.entry.name),
            all(&every),
        )
    }

    /// The value of a row in the column of the order. A long text is replaced by a blob, so that a page does not hold each
    /// of them twice; it is read again where it is needed. Where several alternatives are merged by it, it has to be whole.
    fn shown_key(&self) -> String {
        let Some(column) = self.sort.column.filter(|_| self.part == Part::Filled) else {
            return "NULL".to_owned();
        };
        let column = &self.shape.columns[column];
        let name = format!("t.{}", quote(&column.name));
        let is_merged = matches!(self.lead, Lead::Choice(_));
        if column.column_type == ColumnType::Text && !is_merged {
            format!("iif(octet_length({name}) > {KEY_BYTES_MAX}, x'', {name})")
        } else {
            name
        }
    }

    fn key(&self) -> Option<String> {
        let column = self.sort.column?;
        // The sign keeps SQLite from taking the order's index where the range of time leads.
        let leads = self.is_sorted_by_time() || !(self.range_leads() && self.selection.has_range());
        let sign = if leads { "" } else { "+" };
        Some(format!("{sign}t.{}", quote(&self.shape.columns[column].name)))
    }

    /// The conditions that say in which part a row is, and that it comes behind the place.
    fn behind(&self, bound: &mut Bound) -> Vec<String> {
        let sign = if self.sort.descending { "<" } else { ">" };
        let mut conditions = Vec::new();
        match (self.part, self.key()) {
            (Part::Filled, Some(key)) if self.sort_is_nullable() => {
                conditions.push(format!("{key} IS NOT NULL"))
            }
            (Part::Empty, Some(key)) => conditions.push(format!("{key} IS NULL")),
            _ => {}
        }
        let Some(place) = self.after else {
            return conditions;
        };
        let key = match (&place.key, self.part) {
            (Key::Integer(number), Part::Filled) => Some(Value::Integer(*number)),
            (Key::Real(number), Part::Filled) => Some(Value::Real(*number)),
            (Key::Text(text), Part::Filled) => Some(Value::Text(text.clone())),
            _ => None,
        };
        let row = bound.integer(place.row);
        conditions.push(match (self.key(), key) {
            (Some(column), Some(value)) => {
                let value = bound.add(value);
                format!("({column}, t._rowid_) {sign} ({value}, {row})")
            }
            _ => format!("t._rowid_ {sign} {row}"),
        });
        conditions
    }

    fn sort_is_nullable(&self) -> bool {
        self.sort
            .column
            .is_some_and(|column| self.shape.columns[column].nullable)
    }
}

/// Reads the rows whose numbers `found` finds.
fn reading(shape: &Shape, columns: &[usize], found: &str) -> String {
    let names: Vec<String> = columns
        .iter()
        .map(|&position| format!(", t.{}", quote(&shape.columns[position].name)))
        .collect();
    format!(
        "WITH p (r, k) AS MATERIALIZED ({found}) \
         SELECT t._rowid_, p.k, t._sequence, o.source, o.epoch, t._origin, t._row{} FROM p \
         CROSS JOIN {} AS t ON t._rowid_ = p.r LEFT JOIN _lantern_origin AS o ON o.id = t._origin",
        names.concat(),
        quote(&shape.entry.name)
    )
}

/// Columns that stand before those asked for.
const LEADING: usize = 7;

/// A row with the value by which it is ordered, and about how many bytes it has.
pub(super) fn record(
    shape: &Shape,
    columns: &[usize],
    row: &mut Row,
) -> Result<(Key, RowRecord, usize), ReadError> {
    let mut cells = Vec::with_capacity(columns.len());
    let mut bytes = 0;
    for (index, &position) in columns.iter().enumerate() {
        let column = &shape.columns[position];
        let what = || format!("column {} of table {}", column.name, shape.entry.name);
        let (cell, size) = cell(row, LEADING + index, column.column_type, what)?;
        cells.push(cell);
        bytes += size;
    }
    let (row_number, origin) = row_origin(row).map_err(ReadError::Sql)?;
    let record = RowRecord {
        row: row_number,
        cells,
        origin,
    };
    Ok((key(row, 1)?, record, bytes))
}

fn row_origin(row: &Row) -> Result<(i64, RowOrigin), rusqlite::Error> {
    let origin = RowOrigin {
        sequence: row.get(2)?,
        source: row.get(3)?,
        epoch: row.get(4)?,
        number: row.get(5)?,
        row: row.get(6)?,
    };
    Ok((row.get(0)?, origin))
}

fn key(row: &Row, index: usize) -> Result<Key, ReadError> {
    Ok(match row.value(index).map_err(ReadError::Sql)? {
        ValueRef::Null => Key::Null,
        ValueRef::Integer(number) => Key::Integer(number),
        ValueRef::Real(number) => Key::Real(number),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Key::Text(text.to_owned()),
            // It cannot be a parameter, so it is looked up again.
            Err(_) => Key::Stored,
        },
        // Stands for a long text, see `Finder::shown_key`.
        ValueRef::Blob(_) => Key::Stored,
    })
}

/// Columns by which rows can be ordered.
pub fn can_sort(column_type: ColumnType) -> bool {
    !matches!(column_type, ColumnType::Json | ColumnType::Blob)
}
