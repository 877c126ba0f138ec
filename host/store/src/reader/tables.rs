//! The tables of plugins, and the approximate number of their rows.

use rusqlite::types::Value;

use super::connections::Row;
use super::{ReadError, Reader};
use crate::description::TableDescription;
use crate::segments::is_in_newest_segment;
use crate::statement::quote;
use lantern_model::schema::TableName;

/// Rows are counted up to this number; beyond, it is an estimate.
pub(super) const COUNT_MAX: i64 = 10_000;

/// A table of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Its name.
    pub name: TableName,
    /// The plugin that owns it.
    pub plugin: String,
    /// The plugin's description of it.
    pub description: TableDescription,
    /// Rows that were removed because of the table's retention.
    pub rows_expired: i64,
}

/// The number of rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowEstimate {
    /// The number.
    pub rows: u64,
    /// Whether they were counted.
    pub exact: bool,
}

impl Reader {
    /// All tables of plugins, by name.
    pub async fn tables(&self) -> Result<Vec<TableEntry>, ReadError> {
        // Without a limit, because a page would hide the rest; manifests bound the number of tables.
        self.table_entries("", Vec::new(), usize::MAX).await
    }

    /// The table with this name, if a plugin owns one.
    pub async fn table(&self, name: &TableName) -> Result<Option<TableEntry>, ReadError> {
        let arguments = vec![name.as_str().to_owned().into()];
        Ok(self.table_entries("WHERE name = ?1", arguments, 1).await?.pop())
    }

    async fn table_entries(
        &self,
        condition: &str,
        arguments: Vec<Value>,
        rows_max: usize,
    ) -> Result<Vec<TableEntry>, ReadError> {
        let sql = format!(
            "SELECT name, plugin, description, rows_expired FROM _lantern_table {condition} ORDER BY name"
        );
        self.fetch_sized(&sql, arguments, rows_max, |row| Ok((table_entry(row)?, 0)))
            .await
    }

    /// The number of rows of a table: the sum of its segments; without segments counted if small, otherwise estimated from
    /// the row numbers.
    pub async fn row_estimate(&self, name: &TableName) -> Result<RowEstimate, ReadError> {
        let table = quote(name);
        // The newest segment has no summary: its rows are counted.
        let sum = format!(
            "SELECT (SELECT coalesce(sum(rows), 0) FROM _lantern_segment AS s WHERE s.segments = o.id) \
                 + (SELECT count(*) FROM {table} WHERE {}) \
             FROM _lantern_segments AS o WHERE table_name = ?1",
            is_in_newest_segment(&table)
        );
        let arguments = vec![name.as_str().to_owned().into()];
        let sum = self.fetch(&sum, arguments, 1, |row| row.get::<i64>(0)).await?;
        if let Some(&rows) = sum.first() {
            return Ok(RowEstimate {
                rows: rows.unsigned_abs(),
                exact: true,
            });
        }
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {}) AS counted",
            COUNT_MAX + 1
        );
        let counted = self.fetch(&sql, Vec::new(), 1, |row| row.get::<i64>(0)).await?;
        let counted = counted.first().copied().unwrap_or_default();
        if counted <= COUNT_MAX {
            return Ok(RowEstimate {
                rows: counted.unsigned_abs(),
                exact: true,
            });
        }
        // Two subqueries, because SQLite answers each from one end of the table, and a single one from a full scan.
        let sql = format!(
            "SELECT (SELECT _rowid_ FROM {table} ORDER BY _rowid_ DESC LIMIT 1), \
                    (SELECT _rowid_ FROM {table} ORDER BY _rowid_ LIMIT 1)"
        );
        let ends = self.fetch(&sql, Vec::new(), 1, |row| {
            Ok((row.get::<i64>(0)?, row.get::<i64>(1)?))
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
}

fn table_entry(row: &Row) -> Result<TableEntry, ReadError> {
    let get = |index: usize| row.get::<String>(index).map_err(ReadError::Sql);
    let (name, plugin, description) = (get(0)?, get(1)?, get(2)?);
    let what = || format!("the description of table {name:?}");
    Ok(TableEntry {
        name: TableName::parse(&name).map_err(|error| ReadError::corrupt(what(), error))?,
        plugin,
        description: serde_json::from_str(&description).map_err(|error| ReadError::corrupt(what(), error))?,
        rows_expired: row.get(3).map_err(ReadError::Sql)?,
    })
}
