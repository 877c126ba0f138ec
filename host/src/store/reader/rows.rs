//! The tables that plugins own, and their rows.

use serde_json::value::RawValue;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

use super::{ReadError, Reader, bind};
use crate::batch::Timestamp;
use crate::schema::{ColumnName, ColumnType, TableName};
use crate::store::description::TableDescription;
use crate::store::statement::quote;

/// Rows are counted up to here; beyond, the number is an estimate.
const COUNT_MAX: i64 = 10_000;

/// A table that a plugin owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Its name.
    pub name: TableName,
    /// Whose it is.
    pub plugin: String,
    /// What the plugin says of it.
    pub description: TableDescription,
    /// Rows that were removed because they were older than the table keeps them.
    pub rows_expired: i64,
}

/// How many rows a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowEstimate {
    /// The number.
    pub rows: u64,
    /// Whether they were counted.
    pub exact: bool,
}

/// In which order rows are wanted, by when they came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The newest first.
    #[default]
    NewestFirst,
    /// The oldest first.
    OldestFirst,
}

/// The value of one cell.
#[derive(Clone, Debug)]
pub enum Cell {
    /// No value.
    Null,
    /// Yes or no.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text; what is not UTF-8 has been replaced.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// A point in time.
    Timestamp(Timestamp),
    /// One JSON document, to the byte.
    Json(Box<RawValue>),
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
}

/// One row.
#[derive(Clone, Debug)]
pub struct RowRecord {
    /// In the order of the page's columns.
    pub cells: Vec<Cell>,
    /// Where it comes from.
    pub origin: RowOrigin,
}

/// A page of rows.
#[derive(Clone, Debug)]
pub struct RowPage {
    /// Names of the cells.
    pub columns: Vec<String>,
    /// The rows.
    pub items: Vec<RowRecord>,
    /// Where the next page begins, when there is more.
    pub next: Option<i64>,
}

impl Reader {
    /// All tables that plugins own, by name.
    pub async fn tables(&self) -> Result<Vec<TableEntry>, ReadError> {
        // As many as plugins may declare; a page limit would hide the rest.
        self.table_entries("", SqliteArguments::default(), usize::MAX)
            .await
    }

    /// The table with this name, when a plugin owns one.
    pub async fn table(&self, name: &TableName) -> Result<Option<TableEntry>, ReadError> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, name.as_str().to_owned())?;
        Ok(self.table_entries("WHERE name = ?1", arguments, 1).await?.pop())
    }

    async fn table_entries(
        &self,
        condition: &str,
        arguments: SqliteArguments,
        rows_max: usize,
    ) -> Result<Vec<TableEntry>, ReadError> {
        let sql = format!(
            "SELECT name, plugin, description, rows_expired FROM _lantern_table {condition} ORDER BY name"
        );
        self.fetch_sized(&sql, arguments, rows_max, |row| Ok((table_entry(row)?, 0)))
            .await
    }

    /// How many rows a table has: counted when they are few, estimated from the row numbers when they are many.
    pub async fn row_estimate(&self, name: &TableName) -> Result<RowEstimate, ReadError> {
        let table = quote(name);
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {})",
            COUNT_MAX + 1
        );
        let counted = self
            .fetch(&sql, SqliteArguments::default(), 1, |row| {
                row.try_get::<i64, _>(0)
            })
            .await?;
        let counted = counted.first().copied().unwrap_or_default();
        if counted <= COUNT_MAX {
            return Ok(RowEstimate {
                rows: counted.unsigned_abs(),
                exact: true,
            });
        }
        // Two questions, since SQLite answers each from one end of the table and both together from all of it.
        let sql = format!(
            "SELECT (SELECT _rowid_ FROM {table} ORDER BY _rowid_ DESC LIMIT 1), \
                    (SELECT _rowid_ FROM {table} ORDER BY _rowid_ LIMIT 1)"
        );
        let ends = self.fetch(&sql, SqliteArguments::default(), 1, |row| {
            Ok((row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?))
        });
        let span = ends
            .await?
            .first()
            .map_or(0, |(last, first)| last.abs_diff(*first).saturating_add(1));
        Ok(RowEstimate {
            rows: span.max(counted.unsigned_abs()),
            exact: false,
        })
    }

    /// One page of rows, by row number. `after` is the `next` of the page before.
    pub async fn rows(
        &self,
        table: &TableEntry,
        order: Order,
        limit: u32,
        after: Option<i64>,
    ) -> Result<RowPage, ReadError> {
        let columns = parse_columns(table)?;
        let names: Vec<String> = columns
            .iter()
            .map(|(name, _)| format!(", t.{}", quote(name)))
            .collect();
        let (comparison, direction, begin) = match order {
            Order::NewestFirst => ("<", "DESC", i64::MAX),
            Order::OldestFirst => (">", "ASC", i64::MIN),
        };
        // The first page includes the very last row number, which no comparison with it would.
        let or_equal = if after.is_none() { "=" } else { "" };
        let sql = format!(
            "SELECT t._rowid_, t._sequence, o.source, o.epoch{} FROM {} AS t \
             LEFT JOIN _lantern_origin AS o ON o.id = t._origin \
             WHERE t._rowid_ {comparison}{or_equal} ?1 ORDER BY t._rowid_ {direction} LIMIT ?2",
            names.concat(),
            quote(&table.name),
        );
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, after.unwrap_or(begin))?;
        bind(&mut arguments, i64::from(limit) + 1)?;
        let page = self
            .page(&sql, arguments, limit, |row| {
                let mut cells = Vec::with_capacity(columns.len());
                let mut bytes = 0;
                for (index, (name, column_type)) in columns.iter().enumerate() {
                    let what = || format!("column {name} of table {}", table.name);
                    let (cell, size) = cell(row, 4 + index, *column_type, what)?;
                    cells.push(cell);
                    bytes += size;
                }
                let (id, origin) = row_origin(row).map_err(ReadError::Sql)?;
                Ok((id, RowRecord { cells, origin }, bytes))
            })
            .await?;
        let columns = columns.into_iter().map(|(name, _)| name.to_string()).collect();
        Ok(RowPage {
            columns,
            items: page.items,
            next: page.next,
        })
    }
}

fn table_entry(row: &SqliteRow) -> Result<TableEntry, ReadError> {
    let get = |index: usize| row.try_get::<String, _>(index).map_err(ReadError::Sql);
    let (name, plugin, description) = (get(0)?, get(1)?, get(2)?);
    let what = || format!("the description of table {name:?}");
    Ok(TableEntry {
        name: TableName::parse(&name).map_err(|error| ReadError::corrupt(what(), error))?,
        plugin,
        description: serde_json::from_str(&description).map_err(|error| ReadError::corrupt(what(), error))?,
        rows_expired: row.try_get(3).map_err(ReadError::Sql)?,
    })
}

fn parse_columns(table: &TableEntry) -> Result<Vec<(ColumnName, ColumnType)>, ReadError> {
    let parse = |name: &str| {
        ColumnName::parse(name)
            .map_err(|error| ReadError::corrupt(format!("the description of table {}", table.name), error))
    };
    let columns = &table.description.columns;
    columns
        .iter()
        .map(|column| Ok((parse(&column.name)?, column.column_type)))
        .collect()
}

fn row_origin(row: &SqliteRow) -> Result<(i64, RowOrigin), sqlx::Error> {
    let origin = RowOrigin {
        sequence: row.try_get(1)?,
        source: row.try_get(2)?,
        epoch: row.try_get(3)?,
    };
    Ok((row.try_get(0)?, origin))
}

/// Reads one cell, and about how many bytes it has.
fn cell(
    row: &SqliteRow,
    index: usize,
    column_type: ColumnType,
    what: impl Fn() -> String,
) -> Result<(Cell, usize), ReadError> {
    let raw = row.try_get_raw(index).map_err(ReadError::Sql)?;
    if raw.is_null() {
        return Ok((Cell::Null, 8));
    }
    let integer = || row.try_get_unchecked::<i64, _>(index).map_err(ReadError::Sql);
    // Read as bytes, so that text which is not UTF-8 can still be shown.
    let bytes = || row.try_get_unchecked::<Vec<u8>, _>(index).map_err(ReadError::Sql);
    let cell = match (column_type, raw.type_info().name()) {
        (ColumnType::Boolean, "INTEGER") => Cell::Boolean(integer()? != 0),
        (ColumnType::Integer, "INTEGER") => Cell::Integer(integer()?),
        (ColumnType::Timestamp, "INTEGER") => Cell::Timestamp(Timestamp(integer()?)),
        (ColumnType::Real, "REAL") => {
            Cell::Real(row.try_get_unchecked::<f64, _>(index).map_err(ReadError::Sql)?)
        }
        (ColumnType::Text, "TEXT") => return Ok(sized_text(bytes()?)),
        (ColumnType::Json, "TEXT") => {
            let (text, size) = match sized_text(bytes()?) {
                (Cell::Text(text), size) => (text, size),
                other => return Ok(other),
            };
            let json = RawValue::from_string(text).map_err(|error| ReadError::corrupt(what(), error))?;
            return Ok((Cell::Json(json), size));
        }
        (ColumnType::Blob, "BLOB") => {
            let bytes = bytes()?;
            let size = bytes.len();
            return Ok((Cell::Blob(bytes), size));
        }
        (_, stored) => {
            let why = format!("it is declared as {column_type} and stored as {stored}");
            return Err(ReadError::corrupt(what(), why));
        }
    };
    Ok((cell, 8))
}

fn sized_text(bytes: Vec<u8>) -> (Cell, usize) {
    let size = bytes.len();
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    (Cell::Text(text), size)
}
