//! Indexes that the host creates for the queries of the API: rows by time, and the rows of one entity or of one facet
//! value by time. A table with segments needs none for its facets (see `segments`). A new table has them from the start; an existing table gets them one at a time while the host runs
//! (see docs/adr/0014-indexes-for-roles.md).
//!
//! They are not part of a plugin's declaration: no description contains them, and comparisons of versions ignore them.

use std::time::Duration;

use crate::sql::{Connection, OptionalExtension as _};

use super::apply::from_sql;
use super::description::{ColumnDescription, ColumnRole, TableDescription};
use super::reader::{ReadError, Reader};
use super::segments;
use super::statement::quote_text;

/// Indexes that the host creates for the entities and facets of a table, in the order of declaration. Each makes every
/// insert slower, and few users filter by more facets than this.
const ROLE_INDEXES_MAX: usize = 8;

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

/// The columns of the indexes that a table needs in addition to the declared ones.
pub(super) fn needed(table: &TableDescription, has_segments: bool) -> Vec<Vec<String>> {
    let declared = table.indexes.iter().map(|index| index.columns.as_slice());
    let declared: Vec<&[String]> = declared.chain([table.primary_key.as_slice()]).collect();
    wanted(table, has_segments)
        .into_iter()
        .filter(|columns| !declared.iter().any(|declared| declared.starts_with(columns)))
        .collect()
}

/// The columns of the indexes that serve the queries of the API.
fn wanted(table: &TableDescription, has_segments: bool) -> Vec<Vec<String>> {
    let present = || table.columns.iter().filter(|column| !column.retired);
    let with = |role: ColumnRole| present().filter(move |column| column.role == Some(role));
    let can_lead = |column: &&ColumnDescription| column.column_type.is_sortable();
    let time = with(ColumnRole::Time).map(|column| column.name.clone()).next();
    let by_time: Vec<Vec<String>> = time.iter().map(|time| vec![time.clone()]).collect();
    let by_role = with(ColumnRole::Entity)
        .chain(with(ColumnRole::Facet).filter(|_| !has_segments))
        .filter(can_lead)
        .take(ROLE_INDEXES_MAX)
        .map(|column| std::iter::once(column.name.clone()).chain(time.clone()).collect());
    by_time.into_iter().chain(by_role).collect()
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

/// An index of a table.
pub(super) struct ExistingIndex {
    pub(super) columns: Vec<String>,
    pub(super) unique: bool,
}

/// The columns of the indexes that a table should have and does not.
pub(super) fn missing_columns(
    existing: &[ExistingIndex],
    table: &TableDescription,
    has_segments: bool,
) -> Vec<Vec<String>> {
    let is_served = |columns: &Vec<String>| existing.iter().any(|index| index.columns.starts_with(columns));
    let needed = needed(table, has_segments).into_iter();
    needed.filter(|columns| !is_served(columns)).collect()
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

/// Returns the indexes of a table, regardless of their names: after a rebuild they keep the names of the rebuilt tables.
pub(super) fn indexes_of(
    connection: &Connection,
    table: &str,
) -> Result<Vec<ExistingIndex>, crate::sql::Error> {
    let mut statement = connection.prepare(connection.engine().index_columns())?;
    let mut parts = statement.query([table])?;
    let mut indexes: Vec<(i64, ExistingIndex)> = Vec::new();
    while let Some(part) = parts.next()? {
        let number = part.get(0)?;
        if indexes.last().is_none_or(|(last, _)| *last != number) {
            let index = ExistingIndex {
                columns: Vec::new(),
                unique: part.get(1)?,
            };
            indexes.push((number, index));
        }
        if let Some((_, index)) = indexes.last_mut() {
            // An expression has no name, and no query uses one.
            index
                .columns
                .push(part.get::<_, Option<String>>(2)?.unwrap_or_default());
        }
    }
    Ok(indexes.into_iter().map(|(_, index)| index).collect())
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

/// Creates an index under a free name.
pub(super) fn create_index(
    connection: &Connection,
    table: &str,
    columns: &[String],
) -> Result<(), crate::sql::Error> {
    let name = free_name(connection, &format!("{table}__{}__index", columns.join("__")))?;
    let columns: Vec<String> = columns.iter().map(|column| quote_text(column)).collect();
    let statement = format!(
        "CREATE INDEX {} ON {} ({})",
        quote_text(&name),
        quote_text(table),
        columns.join(", ")
    );
    let Some(file) = connection.sqlite() else {
        return connection.execute_batch(&statement);
    };
    // The sort spills to a file; the writer's other temporary data stays in memory.
    file.pragma_update(None, "temp_store", "file")?;
    let made = file.execute_batch(&statement);
    file.pragma_update(None, "temp_store", "memory")?;
    Ok(made?)
}

/// The name, or a numbered one if a table that a rebuild replaced still has an index of that name.
pub(super) fn free_name(connection: &Connection, name: &str) -> Result<String, crate::sql::Error> {
    let mut candidate = name.to_owned();
    for number in 2.. {
        if !connection.has_relation(&candidate)? {
            break;
        }
        candidate = format!("{name}__{number}");
    }
    Ok(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{adoption, orders};
    use crate::{Store, StoreConfig};
    use lantern_model::schema::{Column, ColumnName, ColumnType, Index, Role, Table, TableName};

    fn table(columns: &[(&str, Role, ColumnType)], indexes: &[&[&str]]) -> TableDescription {
        let name = |name: &str| ColumnName::parse(name).unwrap();
        let column = |(at, role, column_type): &(&str, Role, ColumnType)| Column {
            name: name(at),
            column_type: *column_type,
            nullable: true,
            role: role.clone(),
            doc: String::new(),
            hints: Vec::new(),
        };
        let index = |columns: &&[&str]| Index {
            columns: columns.iter().map(|column| name(column)).collect(),
            unique: false,
        };
        TableDescription::from(&Table {
            name: TableName::parse("t").unwrap(),
            doc: String::new(),
            columns: columns.iter().map(column).collect(),
            primary_key: Vec::new(),
            indexes: indexes.iter().map(index).collect(),
            retention_days: None,
            hints: Vec::new(),
        })
    }

    #[test]
    fn a_table_needs_an_index_for_each_role_that_no_declared_one_serves() {
        use ColumnType::{Json, Text, Timestamp};
        let columns = [
            ("kind", Role::Facet, Text),
            ("at", Role::Time, Timestamp),
            ("pc", Role::Entity, Text),
            ("tags", Role::Facet, Json),
            ("note", Role::None, Text),
        ];
        assert_eq!(
            needed(&table(&columns, &[]), false),
            [vec!["at"], vec!["pc", "at"], vec!["kind", "at"]]
        );
        assert_eq!(
            needed(&table(&columns, &[]), true),
            [vec!["at"], vec!["pc", "at"]]
        );
        let served: &[&[&str]] = &[&["at", "kind"], &["pc", "at", "note"], &["kind"]];
        assert_eq!(needed(&table(&columns, served), false), [["kind", "at"]]);
        assert_eq!(needed(&table(&columns[..1], &[]), false), [["kind"]]);
        let names: Vec<String> = (0..30).map(|number| format!("f{number}")).collect();
        let many: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), Role::Facet, Text))
            .collect();
        assert_eq!(needed(&table(&many, &[]), false).len(), ROLE_INDEXES_MAX);
    }

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
        manifest.tables[0].columns[1].role = Role::Facet;
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
