//! Indexes that the host creates for the queries of the API: rows by time, and the rows of one entity or of one facet
//! value by time. A table with segments needs none for its facets (see `segments`). A new table has them from the start; an existing table gets them one at a time while the host runs
//! (see docs/adr/0014-indexes-for-roles.md).
//!
//! They are not part of a plugin's declaration: no description contains them, and comparisons of versions ignore them.

pub(super) mod existing;
pub(super) mod needed;

use std::time::Duration;

use crate::sql::{Connection, OptionalExtension as _};

use super::description::TableDescription;
use super::read_error::ReadError;
use super::reader::Reader;
use super::segments;
use super::statement::quote_text;
use super::values::from_sql;

use existing::{create_index, indexes_of, missing_columns};

/// Rows up to which a table gets an index while the host runs. Commits wait meanwhile, some seconds for this many rows;
/// a rebuild creates the index of a larger table without delaying commits.
pub(super) const ROWS_MAX: u64 = 5_000_000;

/// The result of one step of index maintenance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexStep {
    /// One index was created; others may be missing.
    Made {
        /// The table.
        table: String,
        /// The index's columns.
        columns: Vec<String>,
        /// How long commits waited.
        took: Duration,
    },
    /// No index is missing, except in these tables, which are too large.
    Left(Vec<String>),
}

impl Reader {
    /// The first index that a table lacks and can be given while the host runs, and the tables that are too large for it.
    pub(super) async fn missing_index(&self) -> Result<(Option<MissingIndex>, Vec<String>), ReadError> {
        self.snapshot(|connection| Ok(find_missing(connection, ROWS_MAX)?))
            .await
    }
}

/// An index that a table should have and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MissingIndex {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

fn find_missing(
    connection: &Connection,
    rows_max: u64,
) -> Result<(Option<MissingIndex>, Vec<String>), crate::sql::Error> {
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM _lantern_table ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut too_large = Vec::new();
    for table in tables {
        let Some(description) = description_of(connection, &table)? else {
            continue;
        };
        let missing = missing_of(connection, &table, &description)?.into_iter().next();
        let Some(columns) = missing else { continue };
        if is_too_large(connection, &table, rows_max)? {
            too_large.push(table);
            continue;
        }
        return Ok((Some(MissingIndex { table, columns }), too_large));
    }
    Ok((None, too_large))
}

fn description_of(
    connection: &Connection,
    table: &str,
) -> Result<Option<TableDescription>, crate::sql::Error> {
    let text: Option<String> = connection
        .query_row(
            "SELECT description FROM _lantern_table WHERE name = ?1",
            [table],
            |row| row.get(0),
        )
        .optional()?;
    let parse =
        |text: String| serde_json::from_str(&text).map_err(|error| crate::sql::Error::decode(0, error));
    text.map(parse).transpose()
}

fn missing_of(
    connection: &Connection,
    table: &str,
    description: &TableDescription,
) -> Result<Vec<Vec<String>>, crate::sql::Error> {
    let existing = indexes_of(connection, table)?;
    let has_segments = segments::has_segments(connection, table)?;
    Ok(missing_columns(&existing, description, has_segments))
}

/// Whether the host leaves a table of this size without its missing indexes.
pub(super) fn is_too_large(
    connection: &Connection,
    table: &str,
    rows_max: u64,
) -> Result<bool, crate::sql::Error> {
    Ok(rows_at_most(connection, table)? > rows_max)
}

/// An upper bound of a table's rows; counting them would take as long as creating the index.
fn rows_at_most(connection: &Connection, table: &str) -> Result<u64, crate::sql::Error> {
    let table = quote_text(table);
    let sql = format!(
        "SELECT (SELECT _rowid_ FROM {table} ORDER BY _rowid_ DESC LIMIT 1)
             - (SELECT _rowid_ FROM {table} ORDER BY _rowid_ LIMIT 1) + 1"
    );
    let span: Option<f64> = connection
        .query_row(&sql, [], |row| row.get(0))
        .optional()?
        .flatten();
    // A float, because row numbers that are keys may be far apart; the result is only compared.
    Ok(span.map_or(0, |span| from_sql(span as i64)))
}

/// Creates an index, and returns whether it did: since the read, another version may have changed the table.
pub(super) fn create(connection: &Connection, missing: &MissingIndex) -> Result<bool, crate::sql::Error> {
    let MissingIndex { table, columns } = missing;
    let is_missing = match description_of(connection, table)? {
        Some(description) => missing_of(connection, table, &description)?.contains(columns),
        None => false,
    };
    if !is_missing {
        return Ok(false);
    }
    create_index(connection, table, columns).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{adoption, orders};
    use crate::{Store, StoreConfig};
    use lantern_model::schema::DeclaredRole;

    #[tokio::test]
    async fn an_existing_table_gets_its_missing_indexes_and_a_large_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(dir.path())).await.unwrap();
        let mut manifest = orders();
        store.plugins().adopt(adoption(manifest.clone())).await.unwrap();
        while matches!(
            store.maintenance().add_missing_index().await.unwrap(),
            IndexStep::Made { .. }
        ) {}
        // The same table, after its plugin declared more roles.
        manifest.tables[0].columns[1].role = DeclaredRole::Facet;
        let description = serde_json::to_string(&TableDescription::from(&manifest.tables[0])).unwrap();
        let name = manifest.tables[0].name.to_string();
        let connection = Connection::open(store.path().unwrap()).unwrap();
        connection
            .execute(
                "UPDATE _lantern_table SET description = ?2 WHERE name = ?1",
                [&name, &description],
            )
            .unwrap();
        let before = indexes_of(&connection, &name).unwrap().len();
        let made = store.maintenance().add_missing_index().await.unwrap();
        assert!(
            matches!(&made, IndexStep::Made { table, .. } if *table == name),
            "{made:?}"
        );
        assert_eq!(indexes_of(&connection, &name).unwrap().len(), before + 1);
        while matches!(
            store.maintenance().add_missing_index().await.unwrap(),
            IndexStep::Made { .. }
        ) {}
        assert_eq!(
            store.maintenance().add_missing_index().await.unwrap(),
            IndexStep::Left(Vec::new())
        );
        store.close().await;

        let connection = Connection::open(dir.path().join(crate::DATABASE_FILE)).unwrap();
        connection
            .execute_batch(&format!(
                "INSERT INTO _lantern_table (name, plugin, description, updates)
                     SELECT 'large', plugin, description, 0 FROM _lantern_table WHERE name = '{name}';
                 CREATE TABLE large AS SELECT * FROM {name};
                 INSERT INTO large (rowid) VALUES (1), (1000);"
            ))
            .unwrap();
        let left = vec!["large".to_owned()];
        assert_eq!(find_missing(&connection, 999).unwrap(), (None, left));
        let (missing, _) = find_missing(&connection, 1_000).unwrap();
        assert_eq!(missing.unwrap().table, "large");
    }
}
