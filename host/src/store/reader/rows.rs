//! Rows in pages: any selection, in the order of any column, each page beginning behind the last row of the one before.
//!
//! A page is found in two steps of one statement. The first finds the numbers of its rows, by an index where there is
//! one, and reads nothing else; the second reads those rows. Rows without a value in the column of the order come last,
//! whichever way it goes.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

use super::cells::{Cell, cell};
use super::selection::{Bound, Conditions, Lead, Selection, Test, all};
use super::shape::Shape;
use super::{ReadError, Reader, bind};
use crate::batch::Value;
use crate::schema::ColumnType;
use crate::store::statement::quote;

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

/// Rows with a value in the column of the order, or those without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Numbered,
    Filled,
    Empty,
}

impl Reader {
    /// One page of rows.
    ///
    /// # Errors
    /// See [`ReadError`]; [`ReadError::PlaceGone`] when the row that it begins behind would have to be there and is not.
    pub async fn rows(&self, shape: &Shape, query: &RowQuery) -> Result<RowPage, ReadError> {
        let mut after = query.after.clone();
        if let (Some(place), Some(column)) = (after.as_mut(), query.sort.column)
            && place.key == Key::Stored
        {
            place.key = self.key_of(shape, column, place.row).await?;
        }
        let parts: &[Part] = match query.sort.column {
            None => &[Part::Numbered],
            Some(column) if !shape.columns[column].nullable => &[Part::Filled],
            Some(_) if after.as_ref().is_some_and(|place| place.key == Key::Null) => &[Part::Empty],
            Some(_) => &[Part::Filled, Part::Empty],
        };
        let wanted = query.limit as usize + 1;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for part in parts {
            // The place is in the first part that is looked at; the others are read from their beginning.
            let after = after.take();
            let (sql, bound) = statement(shape, query, *part, after.as_ref(), wanted - found.len());
            let more = self
                .fetch_sized(&sql, bound.arguments()?, wanted, |row| {
                    let (key, record, size) = record(shape, &query.columns, row)?;
                    bytes += size;
                    Ok(((key, record), size))
                })
                .await?;
            found.extend(more);
            if found.len() >= wanted || bytes >= self.limits.page_bytes {
                break;
            }
        }
        let more = found.len() >= wanted || bytes >= self.limits.page_bytes;
        found.truncate(query.limit as usize);
        let next = found.last().filter(|_| more).map(|(key, record)| Place {
            key: match key {
                Key::Text(text) if text.len() > KEY_BYTES_MAX => Key::Stored,
                key => key.clone(),
            },
            row: record.row,
        });
        let name = |position: &usize| shape.columns[*position].name.to_string();
        Ok(RowPage {
            columns: query.columns.iter().map(name).collect(),
            items: found.into_iter().map(|(_, record)| record).collect(),
            next,
        })
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
            .fetch_sized(&sql, bound.arguments()?, 1, |row| {
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
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, row)?;
        let mut found = self
            .fetch_sized(&sql, arguments, 1, |row| Ok((key(row, 0)?, 0)))
            .await?;
        match found.pop() {
            Some(Key::Stored) | None => Err(ReadError::PlaceGone),
            Some(key) => Ok(key),
        }
    }
}

/// The statement for one part of a page.
fn statement(
    shape: &Shape,
    query: &RowQuery,
    part: Part,
    after: Option<&Place>,
    limit: usize,
) -> (String, Bound) {
    let mut bound = Bound::default();
    let lead = Lead::of(shape, &query.selection, query.sort.column);
    let finder = Finder {
        shape,
        sort: query.sort,
        part,
        after,
        limit,
    };
    let branches: Vec<String> = match lead {
        Lead::Choice(position) => alternatives(&query.selection, position)
            .map(|selection| finder.select(&mut bound, &selection, lead))
            .collect(),
        Lead::Order | Lead::Key => vec![finder.select(&mut bound, &query.selection, lead)],
    };
    let found = match branches.as_slice() {
        [one] => one.clone(),
        many => {
            let each: Vec<String> = many
                .iter()
                .map(|one| format!("SELECT r, k FROM ({one})"))
                .collect();
            let direction = query.sort.direction();
            format!(
                "{} ORDER BY 2 {direction}, 1 {direction} LIMIT {limit}",
                each.join(" UNION ALL ")
            )
        }
    };
    (reading(shape, &query.columns, &found), bound)
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
    sort: Sort,
    part: Part,
    after: Option<&'a Place>,
    limit: usize,
}

impl Finder<'_> {
    fn select(&self, bound: &mut Bound, selection: &Selection, lead: Lead) -> String {
        let conditions = Conditions {
            shape: self.shape,
            selection,
            lead,
        };
        let is_sorted_by_time = self.sort.column == self.shape.time();
        let sort_is_served = self
            .sort
            .column
            .is_some_and(|column| self.shape.is_indexed(column));
        let range_leads = is_sorted_by_time || (lead == Lead::Order && !sort_is_served);
        let mut every = conditions.leading(bound);
        every.extend(conditions.range(bound, range_leads));
        every.extend(self.behind(bound));
        every.extend(conditions.following(bound));
        let direction = self.sort.direction();
        let order = match (self.key(), self.part) {
            (Some(key), Part::Filled) => format!("{key} {direction}, t._rowid_ {direction}"),
            _ => format!("t._rowid_ {direction}"),
        };
        format!(
            "SELECT t._rowid_ AS r, {} AS k FROM {} AS t WHERE {} ORDER BY {order} LIMIT {}",
            self.key()
                .filter(|_| self.part == Part::Filled)
                .unwrap_or("NULL".to_owned()),
            quote(&self.shape.entry.name),
            all(&every),
            self.limit
        )
    }

    fn key(&self) -> Option<String> {
        let column = self.sort.column?;
        Some(format!("t.{}", quote(&self.shape.columns[column].name)))
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

/// Reads the rows whose numbers `found` finds, in its order: `p` is looped over as it was made, and nothing is sorted
/// again, so that no more than one row is in memory at a time.
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
fn record(shape: &Shape, columns: &[usize], row: &SqliteRow) -> Result<(Key, RowRecord, usize), ReadError> {
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

fn row_origin(row: &SqliteRow) -> Result<(i64, RowOrigin), sqlx::Error> {
    let origin = RowOrigin {
        sequence: row.try_get(2)?,
        source: row.try_get(3)?,
        epoch: row.try_get(4)?,
        number: row.try_get(5)?,
        row: row.try_get(6)?,
    };
    Ok((row.try_get(0)?, origin))
}

fn key(row: &SqliteRow, index: usize) -> Result<Key, ReadError> {
    let raw = row.try_get_raw(index).map_err(ReadError::Sql)?;
    if raw.is_null() {
        return Ok(Key::Null);
    }
    let key = match raw.type_info().name() {
        "INTEGER" => row.try_get_unchecked::<i64, _>(index).map(Key::Integer),
        "REAL" => row.try_get_unchecked::<f64, _>(index).map(Key::Real),
        _ => row
            .try_get_unchecked::<Vec<u8>, _>(index)
            .map(|bytes| match String::from_utf8(bytes) {
                Ok(text) => Key::Text(text),
                // It cannot be a parameter, so it is looked up again.
                Err(_) => Key::Stored,
            }),
    };
    key.map_err(ReadError::Sql)
}

/// Columns by which rows can be ordered.
pub fn can_sort(column_type: ColumnType) -> bool {
    !matches!(column_type, ColumnType::Json | ColumnType::Blob)
}
