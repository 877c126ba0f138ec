//! Indexes that the host makes by itself, for the questions of its faces: rows by time, and the rows of one entity or
//! of one value of a facet by time. A new table has them from the beginning; a table that is there already is given
//! them afterwards, one at a time, while the host runs (see docs/adr/0014-indexes-for-roles.md).
//!
//! They are no part of what a plugin declared, so they stand in no description, and no comparison of versions sees them.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _};

use super::Store;
use super::apply::from_sql;
use super::commit::CommitError;
use super::description::{ColumnDescription, RoleWord, TableDescription};
use super::statement::quote_text;
use lantern_model::schema::ColumnType;

/// Indexes that a table is given for its entities and facets. Each makes every insert slower, and nobody looks at more
/// facets than these at once; those declared first get them.
const ROLE_INDEXES_MAX: usize = 8;

/// Rows of a table that is given an index while the host runs. Nothing is stored meanwhile, which for so many rows are
/// some seconds; a rebuild makes the index of a larger one without holding anything up.
pub(super) const ROWS_MAX: u64 = 5_000_000;

/// What was done about indexes that are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexStep {
    /// One was made; there may be more to make.
    Made {
        /// The table.
        table: String,
        /// The index's columns.
        columns: Vec<String>,
        /// How long nothing else was stored.
        took: Duration,
    },
    /// Nothing is left to do, but for these tables, which are too large.
    Left(Vec<String>),
}

impl Store {
    /// Makes one of the indexes that tables should have and do not.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn add_missing_index(&self) -> Result<IndexStep, CommitError> {
        self.call(|connection| add_missing(connection, ROWS_MAX)).await
    }
}

/// The columns of the indexes that a table needs besides those that it declares.
pub(super) fn needed(table: &TableDescription) -> Vec<Vec<String>> {
    let declared = table.indexes.iter().map(|index| index.columns.as_slice());
    let declared: Vec<&[String]> = declared.chain([table.primary_key.as_slice()]).collect();
    wanted(table)
        .into_iter()
        .filter(|columns| !declared.iter().any(|declared| declared.starts_with(columns)))
        .collect()
}

/// The columns of the indexes by which the faces ask.
fn wanted(table: &TableDescription) -> Vec<Vec<String>> {
    let present = || table.columns.iter().filter(|column| !column.retired);
    let with = |role: RoleWord| present().filter(move |column| column.role == Some(role));
    let can_lead =
        |column: &&ColumnDescription| !matches!(column.column_type, ColumnType::Json | ColumnType::Blob);
    let time = with(RoleWord::Time).map(|column| column.name.clone()).next();
    let by_time: Vec<Vec<String>> = time.iter().map(|time| vec![time.clone()]).collect();
    let by_role = with(RoleWord::Entity)
        .chain(with(RoleWord::Facet))
        .filter(can_lead)
        .take(ROLE_INDEXES_MAX)
        .map(|column| std::iter::once(column.name.clone()).chain(time.clone()).collect());
    by_time.into_iter().chain(by_role).collect()
}

fn add_missing(connection: &mut Connection, rows_max: u64) -> Result<IndexStep, rusqlite::Error> {
    let tables: Vec<(String, String)> = connection
        .prepare("SELECT name, description FROM _lantern_table ORDER BY name")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut too_large = Vec::new();
    for (table, description) in tables {
        let description: TableDescription = serde_json::from_str(&description).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
        })?;
        let there = indexes_of(connection, &table)?;
        let missing = needed(&description)
            .into_iter()
            .find(|columns| !there.iter().any(|index| index.starts_with(columns)));
        let Some(columns) = missing else { continue };
        if rows_at_most(connection, &table)? > rows_max {
            too_large.push(table);
            continue;
        }
        let began = Instant::now();
        create(connection, &table, &columns)?;
        return Ok(IndexStep::Made {
            table,
            columns,
            took: began.elapsed(),
        });
    }
    Ok(IndexStep::Left(too_large))
}

/// The columns of each index that is there, whatever it is called: a rebuild leaves them with the names of its own tables.
pub(super) fn indexes_of(connection: &Connection, table: &str) -> Result<Vec<Vec<String>>, rusqlite::Error> {
    let names: Vec<String> = connection
        .prepare("SELECT name FROM pragma_index_list(?1) WHERE partial = 0")?
        .query_map([table], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut columns =
        connection.prepare("SELECT coalesce(name, '') FROM pragma_index_info(?1) ORDER BY seqno")?;
    names
        .iter()
        .map(|name| columns.query_map([name], |row| row.get(0))?.collect())
        .collect()
}

/// Not fewer rows than a table has: counting them would take as long as the index.
pub(super) fn rows_at_most(connection: &Connection, table: &str) -> Result<u64, rusqlite::Error> {
    let table = quote_text(table);
    let sql = format!(
        "SELECT (SELECT _rowid_ FROM {table} ORDER BY _rowid_ DESC LIMIT 1)
             - (SELECT _rowid_ FROM {table} ORDER BY _rowid_ LIMIT 1) + 1"
    );
    let span: Option<f64> = connection
        .query_row(&sql, [], |row| row.get(0))
        .optional()?
        .flatten();
    // A float, since row numbers that are keys may be far apart; it is only compared.
    Ok(span.map_or(0, |span| from_sql(span as i64)))
}

fn create(connection: &Connection, table: &str, columns: &[String]) -> Result<(), rusqlite::Error> {
    let name = free_name(connection, &format!("{table}__{}__index", columns.join("__")))?;
    let columns: Vec<String> = columns.iter().map(|column| quote_text(column)).collect();
    // What is sorted for it goes to a file, and not to memory as the writer's small things do.
    connection.pragma_update(None, "temp_store", "file")?;
    let made = connection.execute_batch(&format!(
        "CREATE INDEX {} ON {} ({})",
        quote_text(&name),
        quote_text(table),
        columns.join(", ")
    ));
    connection.pragma_update(None, "temp_store", "memory")?;
    made
}

/// The name, or one like it where a table that a rebuild has put aside still has an index of that name.
fn free_name(connection: &Connection, name: &str) -> Result<String, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)")?;
    let mut candidate = name.to_owned();
    for number in 2.. {
        if !statement.query_row([&candidate], |row| row.get::<_, bool>(0))? {
            break;
        }
        candidate = format!("{name}__{number}");
    }
    Ok(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::testing::{adoption, orders};
    use lantern_model::schema::{Column, ColumnName, Index, Role, Table, TableName};

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
            needed(&table(&columns, &[])),
            [vec!["at"], vec!["pc", "at"], vec!["kind", "at"]]
        );
        let served: &[&[&str]] = &[&["at", "kind"], &["pc", "at", "note"], &["kind"]];
        assert_eq!(needed(&table(&columns, served)), [["kind", "at"]]);
        assert_eq!(needed(&table(&columns[..1], &[])), [["kind"]]);
        let names: Vec<String> = (0..30).map(|number| format!("f{number}")).collect();
        let many: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), Role::Facet, Text))
            .collect();
        assert_eq!(needed(&table(&many, &[])).len(), ROLE_INDEXES_MAX);
    }

    #[tokio::test]
    async fn a_table_that_is_there_is_given_what_it_lacks_and_a_large_one_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config::new(dir.path())).await.unwrap();
        let mut manifest = orders();
        store.adopt(adoption(manifest.clone())).await.unwrap();
        while matches!(store.add_missing_index().await.unwrap(), IndexStep::Made { .. }) {}
        // The same table, whose plugin says more of it now.
        for column in &mut manifest.tables[1].columns {
            column.role = Role::Facet;
        }
        let description = serde_json::to_string(&TableDescription::from(&manifest.tables[1])).unwrap();
        let name = manifest.tables[1].name.to_string();
        let connection = Connection::open(store.path()).unwrap();
        connection
            .execute(
                "UPDATE _lantern_table SET description = ?2 WHERE name = ?1",
                [&name, &description],
            )
            .unwrap();
        let before = indexes_of(&connection, &name).unwrap().len();
        let made = store.add_missing_index().await.unwrap();
        assert!(
            matches!(&made, IndexStep::Made { table, .. } if *table == name),
            "{made:?}"
        );
        assert_eq!(indexes_of(&connection, &name).unwrap().len(), before + 1);
        while matches!(store.add_missing_index().await.unwrap(), IndexStep::Made { .. }) {}
        assert_eq!(
            store.add_missing_index().await.unwrap(),
            IndexStep::Left(Vec::new())
        );
        store.close().await;

        let mut connection = Connection::open(dir.path().join(crate::DATABASE_FILE)).unwrap();
        connection
            .execute_batch(&format!(
                "INSERT INTO _lantern_table (name, plugin, description, updates)
                     SELECT 'large', plugin, description, 0 FROM _lantern_table WHERE name = '{name}';
                 CREATE TABLE large AS SELECT * FROM {name};
                 INSERT INTO large (rowid) VALUES (1), (1000);"
            ))
            .unwrap();
        let left = IndexStep::Left(vec!["large".to_owned()]);
        assert_eq!(add_missing(&mut connection, 999).unwrap(), left);
        assert!(matches!(
            add_missing(&mut connection, 1_000).unwrap(),
            IndexStep::Made { .. }
        ));
    }
}
