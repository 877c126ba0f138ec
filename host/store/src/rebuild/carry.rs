//! Rows outside the replay range of a rebuild: whether they can be carried over into the new table without loss, and
//! the copy, in small steps.

use crate::sql::{Connection, Transaction};

use super::super::catalog::CatalogError;
use super::super::description::TableDescription;
use super::super::segments::{OriginTable, Touched, segments_between};
use super::super::statement::{self, quote_text};
use super::super::values::from_sql;
use super::{ROWS_AT_ONCE, RebuildId, ReplayRange, reachable, rows_outside};
use lantern_model::schema::{ColumnName, Manifest, Table};

/// Why rows of the table in use outside the replay range cannot be carried over into `table` without loss; each reason
/// names the column and the number of affected rows.
pub(super) fn obstacles(
    connection: &Connection,
    stored: &TableDescription,
    table: &Table,
    scopes: &[ReplayRange],
    outside: u64,
) -> Result<Vec<String>, crate::sql::Error> {
    let name = statement::quote(&table.name);
    let outer = format!("NOT ({})", reachable(scopes));
    let count = |condition: &str| {
        let sql = format!("SELECT count(*) FROM {name} WHERE {outer} AND {condition}");
        connection.query_row(&sql, [], |row| row.get(0).map(from_sql))
    };
    let mut obstacles = Vec::new();
    for old in &stored.columns {
        let column = quote_text(&old.name);
        let new = table.columns.iter().find(|new| new.name.as_str() == old.name);
        let with_value = match new {
            Some(new) if new.column_type == old.column_type => None,
            _ => Some(count(&format!("{column} IS NOT NULL"))?).filter(|rows| *rows > 0),
        };
        match (new, with_value) {
            (None, Some(rows)) => obstacles.push(format!(
                "column {} has a value in {rows} of them, and the new version does not declare it",
                old.name
            )),
            (Some(new), Some(rows)) => obstacles.push(format!(
                "column {} is {} in {rows} of them, and the new version declares it {}",
                old.name,
                old.column_type.as_str(),
                new.column_type.as_str()
            )),
            (Some(new), None) if !new.nullable && old.nullable => {
                let rows = count(&format!("{column} IS NULL"))?;
                if rows > 0 {
                    obstacles.push(format!(
                        "column {} is null in {rows} of them, and the new version declares it not nullable",
                        old.name
                    ));
                }
            }
            _ => {}
        }
    }
    for new in table.columns.iter().filter(|new| !new.nullable) {
        if !stored.columns.iter().any(|old| old.name == new.name.as_str()) {
            obstacles.push(format!(
                "column {} is new and not nullable: none of the {outside} has a value for it",
                new.name
            ));
        }
    }
    obstacles.extend(key_obstacles(connection, stored, table, &outer)?);
    Ok(obstacles)
}

/// Rows that share a value which the new table declares unique.
fn key_obstacles(
    connection: &Connection,
    stored: &TableDescription,
    table: &Table,
    outer: &str,
) -> Result<Vec<String>, crate::sql::Error> {
    let name = statement::quote(&table.name);
    let mut obstacles = Vec::new();
    for key in new_keys(stored, table) {
        let columns: Vec<String> = key.iter().map(|name| statement::quote(*name)).collect();
        let known = columns.iter().all(|column| {
            let mut stored = stored.columns.iter();
            stored.any(|old| quote_text(&old.name) == *column)
        });
        if !known {
            continue;
        }
        let (list, present) = (columns.join(", "), columns.join(" IS NOT NULL AND "));
        let sql = format!(
            "SELECT coalesce(sum(n), 0) FROM (SELECT count(*) AS n FROM {name}
                 WHERE {outer} AND {present} IS NOT NULL GROUP BY {list} HAVING count(*) > 1)"
        );
        let rows: u64 = connection.query_row(&sql, [], |row| row.get(0).map(from_sql))?;
        if rows > 0 {
            let list: Vec<&str> = key.iter().map(|name| name.as_str()).collect();
            obstacles.push(format!(
                "{rows} of them share their value of ({}), which the new version declares unique",
                list.join(", ")
            ));
        }
    }
    Ok(obstacles)
}

/// The unique keys of the new table that the stored table does not enforce.
fn new_keys<'a>(stored: &TableDescription, table: &'a Table) -> Vec<Vec<&'a ColumnName>> {
    let indexes = table.indexes.iter().filter(|index| index.unique);
    let keys = indexes.map(|index| &index.columns).chain([&table.primary_key]);
    let is_stored = |key: &[ColumnName]| {
        let same = |columns: &[String]| {
            columns.len() == key.len() && key.iter().all(|name| columns.iter().any(|c| c == name.as_str()))
        };
        same(&stored.primary_key)
            || stored
                .indexes
                .iter()
                .any(|index| index.unique && same(&index.columns))
    };
    keys.filter(|key| !key.is_empty() && !is_stored(key))
        .map(|key| key.iter().collect())
        .collect()
}

/// Scans some of the rows after row `after`, and copies those that lie outside the replay range and are not in the new
/// table yet. A row that the new table rejects is an error, so no row is lost silently.
pub(super) fn copy(
    connection: &mut Connection,
    id: RebuildId,
    manifest: &Manifest,
    table: usize,
    scopes: &[ReplayRange],
    after: i64,
) -> Result<Option<i64>, CatalogError> {
    let old = &manifest.tables[table];
    let new = old.name.of_rebuild(id.0);
    let transaction = connection.begin()?;
    let columns = common_columns(&transaction, old.name.as_str(), new.as_str())?;
    let begins = after == i64::MIN;
    if columns.is_empty() || (begins && rows_outside(&transaction, old.name.as_str(), scopes)? == 0) {
        return Ok(None);
    }
    let new = OriginTable::find(&transaction, new.as_str())?;
    let old = statement::quote(&old.name);
    let last: Option<i64> = transaction.query_row(
        &format!(
            "SELECT max(_rowid_) FROM (SELECT _rowid_ FROM {old} WHERE _rowid_ > ?1 ORDER BY _rowid_ LIMIT {ROWS_AT_ONCE}) AS r"
        ),
        [after],
        |row| row.get(0),
    )?;
    if let Some(last) = last {
        let step = Step {
            old: &old,
            new: &new,
            columns: &columns.join(", "),
            outside: &format!(
                "_rowid_ > {after} AND _rowid_ <= {last} AND NOT ({})",
                reachable(scopes)
            ),
        };
        step.run(&transaction)
            .map_err(|error| match error.is_caused_by_data() {
                true => {
                    CatalogError::refused(format!("a row of table {old} cannot be carried over: {error}"))
                }
                false => CatalogError::Sqlite(error),
            })?;
    }
    transaction.commit()?;
    Ok(last)
}

/// Some rows that are copied into the new table.
struct Step<'a> {
    /// The table in use, quoted.
    old: &'a str,
    new: &'a OriginTable,
    /// The columns of both tables, quoted.
    columns: &'a str,
    /// The condition of the rows.
    outside: &'a str,
}

impl Step<'_> {
    fn run(&self, transaction: &Transaction<'_>) -> Result<(), crate::sql::Error> {
        let Self {
            old,
            new,
            columns,
            outside,
        } = self;
        let table = quote_text(&new.name);
        let present = self.present(transaction)?;
        let last = || -> Result<i64, crate::sql::Error> {
            let sql = format!("SELECT coalesce(max(_rowid_), 0) FROM {table}");
            transaction.query_row(&sql, [], |row| row.get(0))
        };
        let before = last()?;
        transaction.execute(
            &format!(
                "INSERT INTO {table} ({columns})
                 SELECT {columns} FROM {old} AS o WHERE {outside}{present} ORDER BY _rowid_"
            ),
            [],
        )?;
        let mut touched = Touched::default();
        touched.add(&new.name, segments_between(before + 1, last()?));
        touched.refresh(transaction)
    }

    /// The condition that a row is not in the new table: an interrupted copy begins again.
    fn present(&self, transaction: &Transaction<'_>) -> Result<String, crate::sql::Error> {
        let mut statement = transaction.prepare(&format!(
            "SELECT _origin, min(_sequence), max(_sequence) FROM {} WHERE {} GROUP BY _origin",
            self.old, self.outside
        ))?;
        let mut found = statement.query([])?;
        let mut condition = String::new();
        while let Some(row) = found.next()? {
            let [origin, first, last] = [0, 1, 2].map(|column| row.get::<_, i64>(column));
            let (origin, first, last) = (origin?.to_string(), first?.to_string(), last?.to_string());
            condition += &format!(
                " AND (_origin, _sequence, _row) NOT IN (SELECT t._origin, t._sequence, t._row {})",
                self.new.rows(&origin, &first, &last)
            );
        }
        Ok(condition)
    }
}

/// Columns that both tables have, quoted.
fn common_columns(connection: &Connection, one: &str, other: &str) -> Result<Vec<String>, crate::sql::Error> {
    let mut statement = connection.prepare(
        // In PostgreSQL the number of a row is a column.
        "SELECT name FROM pragma_table_info(?1)
         WHERE name IN (SELECT name FROM pragma_table_info(?2)) AND name <> '_rowid_'",
    )?;
    let names = statement.query_map([one, other], |row| row.get::<_, String>(0))?;
    names.map(|name| name.map(|name| quote_text(&name))).collect()
}
