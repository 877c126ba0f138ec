//! Plugin versions and their tables: which version has which number, which plugin owns which table, and how a table
//! changes to match a new declaration. Each function is one transaction on the write connection.

use std::sync::Arc;

use crate::sql::{Connection, Engine, OptionalExtension, Transaction, params};

use super::commit::{Adopted, VersionId};
use super::description::{ColumnDescription, TableDescription};
use super::indexes::existing;
use super::statement::Step;
use super::{search, segments, statement};
use lantern_model::batch::Timestamp;
use lantern_model::schema::{Manifest, Table};

/// A plugin version that is to write.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// Its declaration.
    pub manifest: Arc<Manifest>,
    /// Its digest in its textual form.
    pub digest: String,
    /// The contract version that it was built for.
    pub contract: String,
    /// The present time.
    pub at: Timestamp,
}

/// Why a plugin version cannot write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// Its tables belong to another plugin, or differ from those in the database. One sentence per reason.
    #[error("{}", list_refusals(.0))]
    Refused(Vec<StoreRefusal>),
    /// The database cannot be written now.
    #[error("the database cannot be written: {0}")]
    Unavailable(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// A failed change: refused with reasons, or an error of SQLite.
pub(super) enum CatalogError {
    Refused(Vec<StoreRefusal>),
    Sqlite(crate::sql::Error),
}

impl CatalogError {
    /// A refusal with one reason.
    pub(super) fn refused(reason: impl Into<StoreRefusal>) -> Self {
        Self::Refused(vec![reason.into()])
    }
}

/// Why the database refuses the tables of a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreRefusal {
    /// A table of this name belongs to another plugin.
    #[error("table {table} belongs to plugin {owner}")]
    ForeignTable {
        /// The table.
        table: String,
        /// The plugin that it belongs to.
        owner: String,
    },
    /// The declaration or the rows do not fit what the database has.
    #[error("{0}")]
    Incompatible(String),
}

impl From<String> for StoreRefusal {
    fn from(reason: String) -> Self {
        Self::Incompatible(reason)
    }
}

/// All refusals in one line.
pub fn list_refusals(refusals: &[StoreRefusal]) -> String {
    let refusals: Vec<String> = refusals.iter().map(StoreRefusal::to_string).collect();
    refusals.join("; ")
}

impl From<crate::sql::Error> for CatalogError {
    fn from(error: crate::sql::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Makes a plugin version the one that writes, and changes its tables to match its declaration: adds missing tables,
/// nullable columns and indexes, and refuses any other difference. A version that has run before may return although
/// its tables have new columns since: they are null in its rows.
pub(super) fn adopt(
    connection: &mut Connection,
    adoption: &Adoption,
    layout: Layout,
) -> Result<Adopted, CatalogError> {
    let transaction = connection.begin()?;
    let returns = has_run(&transaction, adoption)?;
    let adopted = adopt_in(&transaction, adoption, returns, layout)?;
    // After the database was deleted under a running host, this records what runs.
    transaction.execute(
        "INSERT INTO _lantern_installation (plugin, active, changed_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (plugin) DO UPDATE SET active = coalesce(_lantern_installation.active, excluded.active)",
        params![adoption.manifest.name.as_str(), adopted.version.0, adoption.at.0],
    )?;
    transaction.commit()?;
    Ok(adopted)
}

/// How rows of a new table are found by their origin and by the values of facets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Through segments if they suit the table, otherwise through indexes.
    Segments,
    /// Through indexes. For databases that are compared row by row.
    Indexes,
}

impl Layout {
    /// Creates a table of a version.
    pub(super) fn create(
        self,
        transaction: &Transaction<'_>,
        manifest: &Manifest,
        table: &Table,
    ) -> Result<(), crate::sql::Error> {
        let may_have_segments = self == Self::Segments && transaction.engine() == Engine::Sqlite;
        if may_have_segments && segments::suits(manifest, table) {
            run(transaction, &statement::create_segmented_table(table))?;
            let description = TableDescription::from(table);
            return segments::begin(transaction, table.name.as_str(), &description);
        }
        run(transaction, &statement::create_table(table, transaction.engine()))
    }
}

/// As [`adopt`], in an open transaction. A version that `returns` need not declare the nullable columns that were added
/// since it ran.
pub(super) fn adopt_in(
    transaction: &Transaction<'_>,
    adoption: &Adoption,
    returns: bool,
    layout: Layout,
) -> Result<Adopted, CatalogError> {
    let manifest = &adoption.manifest;
    let mut refusals = Vec::new();
    for table in &manifest.tables {
        existing::release_name(transaction, table.name.as_str())?;
        match stored_table(transaction, table)? {
            Some((owner, _)) if owner != manifest.name.as_str() => {
                refusals.push(StoreRefusal::ForeignTable {
                    table: table.name.to_string(),
                    owner,
                });
            }
            Some((_, stored)) if table_exists(transaction, table)? => {
                match additions(&stored, table, returns, transaction.engine()) {
                    Ok(statements) => run(transaction, &statements)?,
                    Err(differences) => refusals.extend(differences.into_iter().map(StoreRefusal::from)),
                }
                if refusals.is_empty() {
                    change_segments(transaction, manifest, table, &stored)?;
                    describe(transaction, manifest, table, Some(stored))?;
                }
            }
            _ if table_exists(transaction, table)? => refusals.push(StoreRefusal::from(format!(
                "table {} is in the database already, and no plugin made it",
                table.name
            ))),
            _ => {
                layout.create(transaction, manifest, table)?;
                describe(transaction, manifest, table, None)?;
            }
        }
    }
    if !refusals.is_empty() {
        return Err(CatalogError::Refused(refusals));
    }
    let version = version_id(transaction, adoption)?;
    transaction.execute(
        "UPDATE _lantern_plugin SET activated_at = ?2, failed = NULL WHERE id = ?1 AND activated_at IS NULL",
        params![version.0, adoption.at.0],
    )?;
    let statements: Vec<String> = manifest
        .writes
        .iter()
        .map(|write| statement::insert(manifest, write, transaction.engine()))
        .collect();
    Ok(Adopted {
        version,
        manifest: Arc::clone(manifest),
        statements: statements.into(),
        tables: table_names(manifest),
    })
}

/// The names of the tables of a manifest.
pub(super) fn table_names(manifest: &Manifest) -> Arc<[String]> {
    let tables = manifest.tables.iter();
    tables.map(|table| table.name.to_string()).collect()
}

/// Adapts the segments of a stored table to a version: it may update rows, or declare other times and facets.
fn change_segments(
    transaction: &Transaction<'_>,
    manifest: &Manifest,
    table: &Table,
    stored: &TableDescription,
) -> Result<(), crate::sql::Error> {
    let name = table.name.as_str();
    let description = described(table, Some(stored));
    search::adapt(transaction, name, &description)?;
    if segments::is_updated(manifest, table) {
        return segments::replace_by_indexes(transaction, name, &description);
    }
    let is_stored = |name: &str| stored.columns.iter().any(|column| column.name == name);
    let columns = table.columns.iter().map(|column| column.name.as_str());
    let added: Vec<&str> = columns.filter(|name| !is_stored(name)).collect();
    segments::adapt(transaction, name, &description, &added)
}

/// Whether this version has run before.
fn has_run(transaction: &Transaction<'_>, adoption: &Adoption) -> Result<bool, crate::sql::Error> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_plugin WHERE name = ?1 AND digest = ?2
             AND activated_at IS NOT NULL)",
        [adoption.manifest.name.as_str(), adoption.digest.as_str()],
        |row| row.get(0),
    )
}

fn run(transaction: &Transaction<'_>, steps: &[Step]) -> Result<(), crate::sql::Error> {
    steps.iter().try_for_each(|step| match step {
        Step::Sql(text) => transaction.execute_batch(text),
        Step::Index(index) => existing::create_declared(transaction, index),
    })
}

fn stored_table(
    transaction: &Transaction<'_>,
    table: &Table,
) -> Result<Option<(String, TableDescription)>, crate::sql::Error> {
    transaction
        .query_row(
            "SELECT plugin, description FROM _lantern_table WHERE name = ?1",
            [table.name.as_str()],
            |row| {
                let text: String = row.get(1)?;
                let description =
                    serde_json::from_str(&text).map_err(|error| crate::sql::Error::decode(1, error))?;
                Ok((row.get(0)?, description))
            },
        )
        .optional()
}

fn table_exists(transaction: &Transaction<'_>, table: &Table) -> Result<bool, crate::sql::Error> {
    transaction.has_relation(table.name.as_str())
}

/// The statements that change a stored table to the present declaration, or the differences that prevent it. A version
/// that `returns` need not declare columns that were added later, and no version those that the active one does not
/// declare.
fn additions(
    stored: &TableDescription,
    table: &Table,
    returns: bool,
    engine: Engine,
) -> Result<Vec<Step>, Vec<String>> {
    let declared = TableDescription::from(table);
    let mut statements = Vec::new();
    let mut differences = Vec::new();
    let place = format!("table {}", table.name);
    for old in &stored.columns {
        match declared.columns.iter().find(|new| new.name == old.name) {
            None if old.nullable && (returns || old.retired) => {}
            None => differences.push(format!("{place}: column {} is not declared any more", old.name)),
            Some(new) if new.column_type != old.column_type => differences.push(format!(
                "{place}: column {} is {} and would become {}",
                old.name,
                old.column_type.as_str(),
                new.column_type.as_str()
            )),
            Some(new) if new.nullable != old.nullable => differences.push(format!(
                "{place}: column {} would become {}",
                old.name,
                if new.nullable { "nullable" } else { "not nullable" }
            )),
            Some(_) => {}
        }
    }
    for column in &table.columns {
        if stored.columns.iter().any(|old| old.name == column.name.as_str()) {
            continue;
        }
        if column.nullable {
            statements.push(statement::add_column(table, column, engine));
        } else {
            differences.push(format!("{place}: new column {} is not nullable", column.name));
        }
    }
    if declared.primary_key != stored.primary_key {
        differences.push(format!(
            "{place}: the primary key is ({}) and would become ({})",
            stored.primary_key.join(", "),
            declared.primary_key.join(", ")
        ));
    }
    let (more, against) = index_changes(stored, table, &declared);
    statements.extend(more);
    differences.extend(against);
    if differences.is_empty() {
        Ok(statements)
    } else {
        Err(differences)
    }
}

fn index_changes(
    stored: &TableDescription,
    table: &Table,
    declared: &TableDescription,
) -> (Vec<Step>, Vec<String>) {
    let mut statements = Vec::new();
    let mut differences = Vec::new();
    let place = format!("table {}", table.name);
    for old in stored
        .indexes
        .iter()
        .filter(|old| !declared.indexes.contains(old))
    {
        if old.unique {
            differences.push(format!(
                "{place}: the unique index ({}) is not declared any more",
                old.columns.join(", ")
            ));
        }
        // An index that only accelerates reads remains: it costs little, and a rollback needs it.
    }
    for (index, new) in table.indexes.iter().zip(&declared.indexes) {
        if stored.indexes.contains(new) {
            continue;
        }
        if new.unique {
            differences.push(format!("{place}: new unique index ({})", new.columns.join(", ")));
        } else {
            statements.push(statement::create_index(table, index));
        }
    }
    (statements, differences)
}

/// Stores the present declaration. Columns and indexes of `stored` that are no longer declared are still in the table,
/// and remain in its description.
pub(super) fn describe(
    transaction: &Transaction<'_>,
    manifest: &Manifest,
    table: &Table,
    stored: Option<TableDescription>,
) -> Result<(), crate::sql::Error> {
    let description =
        serde_json::to_string(&described(table, stored.as_ref())).map_err(crate::sql::Error::encode)?;
    let updates = segments::is_updated(manifest, table);
    transaction
        .execute(
            "INSERT INTO _lantern_table (name, plugin, description, updates) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET description = excluded.description,
                 updates = CASE WHEN excluded.updates > _lantern_table.updates
                     THEN excluded.updates ELSE _lantern_table.updates END",
            params![table.name.as_str(), manifest.name.as_str(), description, updates],
        )
        .map(|_| ())
}

/// The description of a table that may have columns and indexes from `stored` that are no longer declared.
fn described(table: &Table, stored: Option<&TableDescription>) -> TableDescription {
    let mut description = TableDescription::from(table);
    let Some(stored) = stored else {
        return description;
    };
    let known = |name: &str| table.columns.iter().any(|column| column.name.as_str() == name);
    let more = stored.columns.iter().filter(|column| !known(&column.name));
    description.columns.extend(more.map(|column| ColumnDescription {
        retired: true,
        ..column.clone()
    }));
    for index in &stored.indexes {
        if !description.indexes.contains(index) {
            description.indexes.push(index.clone());
        }
    }
    description
}

pub(super) fn version_id(
    transaction: &Transaction<'_>,
    adoption: &Adoption,
) -> Result<VersionId, crate::sql::Error> {
    let manifest = &adoption.manifest;
    transaction.execute(
        "INSERT INTO _lantern_plugin (name, version, digest, contract, loaded_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name, digest) DO NOTHING",
        params![
            manifest.name.as_str(),
            manifest.version.to_string(),
            adoption.digest,
            adoption.contract,
            adoption.at.0
        ],
    )?;
    transaction.query_row(
        "SELECT id FROM _lantern_plugin WHERE name = ?1 AND digest = ?2",
        [manifest.name.as_str(), adoption.digest.as_str()],
        |row| row.get(0).map(VersionId),
    )
}
