//! A plugin's tables made anew beside those in use. The new tables are called `TABLE#ID` until one transaction puts them
//! in the place of the old ones; what the rebuild remembers meanwhile (origins, checkpoints, ledger, gaps, dead letters)
//! stands under the plugin name `PLUGIN#ID`. No name that a plugin can give itself has a `#`.
//!
//! Rows are stamped with the origin of the history in use, so that a rebuilt table is the same as the one that it
//! replaces, to the byte.

mod history;

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::apply::{from_sql, to_sql};
use super::catalog::{Adoption, CatalogError, describe, run, version_id};
use super::commit::{Adopted, CommitError, OriginId};
use super::installation::forget_origins;
use super::statement::{self, quote_text};
use super::{AdoptError, Store};
use crate::batch::Timestamp;
use crate::schema::Manifest;
use history::{adopt_history, cut, expired_of_kept};

/// Identifies a rebuild in this database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct RebuildId(pub i64);

impl RebuildId {
    /// The name under which the rebuild of a plugin keeps what it remembers.
    pub fn name_of(self, plugin: &str) -> String {
        format!("{plugin}#{}", self.0)
    }
}

/// A rebuild as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuildRecord {
    /// Its number.
    pub id: RebuildId,
    /// The plugin.
    pub plugin: String,
    /// The digest of the version that fills the new tables.
    pub digest: String,
    /// `running`, `failed`, `cancelled` or `done`.
    pub state: String,
    /// What was asked for, as JSON.
    pub options: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// The part of a source's history that a rebuild reads again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The source.
    pub source: String,
    /// The history in use; its rows are made anew.
    pub origin: OriginId,
    /// The last sequence that is not read again.
    pub after: u64,
}

/// Rows that a rebuild would not make again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// The table.
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// Whether the table's writes merge rows, so that a part of it cannot be kept by itself.
    pub merges: bool,
}

impl Store {
    /// The rows of a plugin's tables that lie outside of what would be read again.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn unreachable_rows(
        &self,
        plugin: &str,
        scopes: Vec<Scope>,
    ) -> Result<Vec<Unreachable>, CommitError> {
        let plugin = plugin.to_owned();
        self.call(move |connection| unreachable_rows(connection, &plugin, &scopes))
            .await
    }

    /// The last sequence that does not belong to a history.
    ///
    /// # Errors
    /// As for [`Store::unreachable_rows`].
    pub async fn begins_after(&self, origin: OriginId) -> Result<u64, CommitError> {
        self.call(move |connection| {
            connection.query_row(
                "SELECT begins_after FROM _lantern_origin WHERE id = ?1",
                [origin.0],
                |row| row.get(0).map(from_sql),
            )
        })
        .await
    }

    /// Begins a rebuild: makes the empty tables.
    ///
    /// # Errors
    /// See [`AdoptError`]; nothing has changed then.
    pub async fn begin_rebuild(&self, adoption: Adoption, options: String) -> Result<RebuildId, AdoptError> {
        self.call_catalog(move |connection| begin(connection, &adoption, &options))
            .await
    }

    /// A version that writes into the new tables of a rebuild.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub async fn adopt_rebuild(&self, id: RebuildId, adoption: Adoption) -> Result<Adopted, AdoptError> {
        self.call_catalog(move |connection| adopt(connection, id, &adoption))
            .await
    }

    /// Looks at some of the rows behind row `after`, and copies those that are not made again into the new table. Returns
    /// the last row that was looked at; none when there are no more.
    ///
    /// # Errors
    /// As for [`Store::unreachable_rows`].
    pub async fn carry_over(
        &self,
        id: RebuildId,
        manifest: Arc<Manifest>,
        table: usize,
        scopes: Vec<Scope>,
        after: i64,
    ) -> Result<Option<i64>, CommitError> {
        self.call(move |connection| carry_over(connection, id, &manifest, table, &scopes, after))
            .await
    }

    /// Puts the new tables in the place of the old ones, with the ledger, gaps, dead letters and checkpoints that belong
    /// to them, and makes the version the active one. All of it takes effect, or nothing.
    ///
    /// # Errors
    /// See [`AdoptError`]; refused when the history in use is another one by now.
    pub async fn finish_rebuild(
        &self,
        id: RebuildId,
        adoption: Adoption,
        scopes: Vec<Scope>,
    ) -> Result<(), AdoptError> {
        self.call_catalog(move |connection| finish(connection, id, &adoption, &scopes))
            .await
    }

    /// Ends a rebuild that will not finish. Its tables are removed by [`Store::sweep_tables`].
    ///
    /// # Errors
    /// As for [`Store::unreachable_rows`].
    pub async fn end_rebuild(
        &self,
        id: RebuildId,
        state: &'static str,
        reason: Option<String>,
    ) -> Result<(), CommitError> {
        self.call(move |connection| end(connection, id, state, reason.as_deref()))
            .await
    }

    /// Removes some rows of a table that no rebuild needs any more, and the table when it is empty. Returns whether there
    /// is more to do.
    ///
    /// # Errors
    /// As for [`Store::unreachable_rows`].
    pub async fn sweep_tables(&self) -> Result<bool, CommitError> {
        self.call(sweep).await
    }

    /// All rebuilds, the newest first.
    ///
    /// # Errors
    /// As for [`Store::unreachable_rows`].
    pub async fn rebuilds(&self) -> Result<Vec<RebuildRecord>, CommitError> {
        self.call(|connection| rebuilds(connection)).await
    }
}

/// `row` belongs to what is read again: one condition for each scope. The numbers are the host's own.
fn reachable(scopes: &[Scope]) -> String {
    let each = scopes.iter().map(|scope| {
        format!(
            "(_origin = {} AND _sequence > {})",
            scope.origin.0,
            to_sql(scope.after)
        )
    });
    each.chain(std::iter::once("0".to_owned()))
        .collect::<Vec<_>>()
        .join(" OR ")
}

fn tables_of(connection: &Connection, plugin: &str) -> Result<Vec<(String, bool)>, rusqlite::Error> {
    connection
        .prepare("SELECT name, updates FROM _lantern_table WHERE plugin = ?1 ORDER BY name")?
        .query_map([plugin], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn unreachable_rows(
    connection: &Connection,
    plugin: &str,
    scopes: &[Scope],
) -> Result<Vec<Unreachable>, rusqlite::Error> {
    let mut found = Vec::new();
    for (table, merges) in tables_of(connection, plugin)? {
        let rows = rows_outside(connection, &table, scopes)?;
        if rows > 0 {
            found.push(Unreachable { table, rows, merges });
        }
    }
    Ok(found)
}

/// Rows of a table that are not read again. Counted origin by origin along the index of every table, so that it costs what
/// it finds: commits wait for it, and a table can have any number of rows.
fn rows_outside(connection: &Connection, table: &str, scopes: &[Scope]) -> Result<u64, rusqlite::Error> {
    let table = quote_text(table);
    let mut next = connection.prepare(&format!("SELECT min(_origin) FROM {table} WHERE _origin > ?1"))?;
    let mut count = connection.prepare(&format!(
        "SELECT count(*) FROM {table} WHERE _origin = ?1 AND _sequence <= ?2"
    ))?;
    let (mut rows, mut origin) = (0, i64::MIN);
    while let Some(found) = next.query_row([origin], |row| row.get::<_, Option<i64>>(0))? {
        let scope = scopes.iter().find(|scope| scope.origin.0 == found);
        let until = scope.map_or(i64::MAX, |scope| to_sql(scope.after));
        rows += count.query_row([found, until], |row| row.get(0).map(from_sql))?;
        origin = found;
    }
    Ok(rows)
}

/// The same plugin, with tables named as those of the rebuild.
fn shadow(id: RebuildId, manifest: &Manifest) -> Manifest {
    let mut shadow = manifest.clone();
    for table in &mut shadow.tables {
        table.name = table.name.of_rebuild(id.0);
    }
    shadow
}

fn begin(connection: &mut Connection, adoption: &Adoption, options: &str) -> Result<RebuildId, CatalogError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let plugin = adoption.manifest.name.as_str();
    for table in &adoption.manifest.tables {
        let owner: Option<String> = transaction
            .query_row(
                "SELECT plugin FROM _lantern_table WHERE name = ?1",
                [table.name.as_str()],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(owner) = owner.filter(|owner| owner != plugin) {
            return Err(CatalogError::Refused(vec![format!(
                "table {} belongs to plugin {owner}",
                table.name
            )]));
        }
    }
    let version = version_id(&transaction, adoption)?;
    transaction.execute(
        "INSERT INTO _lantern_rebuild (plugin, plugin_version, state, options, started_at)
         VALUES (?1, ?2, 'running', ?3, ?4)",
        params![plugin, version.0, options, adoption.at.0],
    )?;
    let id = RebuildId(transaction.last_insert_rowid());
    for table in &shadow(id, &adoption.manifest).tables {
        run(&transaction, &statement::create_table(table))?;
    }
    transaction.commit()?;
    Ok(id)
}

fn adopt(connection: &mut Connection, id: RebuildId, adoption: &Adoption) -> Result<Adopted, CatalogError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let shadow = shadow(id, &adoption.manifest);
    for table in &shadow.tables {
        let there: bool = transaction.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)",
            [table.name.as_str()],
            |row| row.get(0),
        )?;
        if !there {
            return Err(CatalogError::Refused(vec![format!(
                "table {} of the rebuild is gone: the database was replaced",
                table.name
            )]));
        }
    }
    let version = version_id(&transaction, adoption)?;
    transaction.commit()?;
    let statements: Vec<String> = shadow
        .writes
        .iter()
        .map(|write| statement::insert(&shadow, write))
        .collect();
    Ok(Adopted {
        version,
        manifest: Arc::clone(&adoption.manifest),
        statements: statements.into(),
    })
}

/// Rows that one transaction copies or removes; few enough that a commit behind it does not notice.
const ROWS_AT_ONCE: i64 = 2_000;

fn carry_over(
    connection: &mut Connection,
    id: RebuildId,
    manifest: &Manifest,
    table: usize,
    scopes: &[Scope],
    after: i64,
) -> Result<Option<i64>, rusqlite::Error> {
    let old = &manifest.tables[table];
    let new = old.name.of_rebuild(id.0);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let columns = common_columns(&transaction, old.name.as_str(), new.as_str())?;
    let begins = after == i64::MIN;
    if columns.is_empty() || (begins && rows_outside(&transaction, old.name.as_str(), scopes)? == 0) {
        return Ok(None);
    }
    let (old, columns, inside) = (statement::quote(&old.name), columns.join(", "), reachable(scopes));
    let last: Option<i64> = transaction.query_row(
        &format!(
            "SELECT max(rowid) FROM (SELECT rowid FROM {old} WHERE rowid > ?1 ORDER BY rowid LIMIT {ROWS_AT_ONCE})"
        ),
        [after],
        |row| row.get(0),
    )?;
    if let Some(last) = last {
        transaction.execute(
            &format!(
                "INSERT OR IGNORE INTO {} ({columns}) SELECT {columns} FROM {old}
                 WHERE rowid > ?1 AND rowid <= ?2 AND NOT ({inside})",
                statement::quote(&new)
            ),
            [after, last],
        )?;
    }
    transaction.commit()?;
    Ok(last)
}

/// Columns that both tables have, quoted.
fn common_columns(connection: &Connection, one: &str, other: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT name FROM pragma_table_info(?1) WHERE name IN (SELECT name FROM pragma_table_info(?2))",
    )?;
    let names = statement.query_map([one, other], |row| row.get::<_, String>(0))?;
    names.map(|name| name.map(|name| quote_text(&name))).collect()
}

fn finish(
    connection: &mut Connection,
    id: RebuildId,
    adoption: &Adoption,
    scopes: &[Scope],
) -> Result<(), CatalogError> {
    let plugin = adoption.manifest.name.as_str();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for scope in scopes {
        cut(&transaction, plugin, scope)?;
    }
    let expired = expired_of_kept(&transaction, plugin, scopes)?;
    for scope in scopes {
        adopt_history(&transaction, id, plugin, scope)?;
    }
    for (table, _) in tables_of(&transaction, plugin)? {
        // To drop it here would hold up every commit for as long as it takes to free its pages.
        let aside = format!("{table}#{}#old", id.0);
        rename(&transaction, &table, &aside)?;
        transaction.execute("DELETE FROM _lantern_table WHERE name = ?1", [&table])?;
    }
    for table in &adoption.manifest.tables {
        rename(
            &transaction,
            table.name.of_rebuild(id.0).as_str(),
            table.name.as_str(),
        )?;
        describe(&transaction, &adoption.manifest, table, None)?;
    }
    if let Some(table) = adoption.manifest.tables.first() {
        transaction.execute(
            "UPDATE _lantern_table SET rows_expired = ?2 WHERE name = ?1",
            params![table.name.as_str(), expired],
        )?;
    }
    forget_origins(&transaction, &id.name_of(plugin))?;
    let version = version_id(&transaction, adoption)?;
    transaction.execute(
        "UPDATE _lantern_installation SET active = ?2, changed_at = ?3,
             previous = CASE WHEN active IS NOT ?2 THEN active ELSE previous END
         WHERE plugin = ?1",
        params![plugin, version.0, adoption.at.0],
    )?;
    transaction.execute(
        "UPDATE _lantern_plugin SET activated_at = ?2, failed = NULL WHERE id = ?1",
        params![version.0, adoption.at.0],
    )?;
    transaction.execute(
        "UPDATE _lantern_rebuild SET state = 'done', ended_at = ?2 WHERE id = ?1",
        params![id.0, adoption.at.0],
    )?;
    transaction.commit()?;
    Ok(())
}

fn rename(transaction: &Transaction<'_>, from: &str, to: &str) -> Result<(), rusqlite::Error> {
    transaction.execute_batch(&format!(
        "ALTER TABLE {} RENAME TO {}",
        quote_text(from),
        quote_text(to)
    ))
}

fn end(
    connection: &mut Connection,
    id: RebuildId,
    state: &str,
    reason: Option<&str>,
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let plugin: Option<String> = transaction
        .query_row(
            "SELECT plugin FROM _lantern_rebuild WHERE id = ?1",
            [id.0],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(plugin) = plugin {
        forget_origins(&transaction, &id.name_of(&plugin))?;
    }
    transaction.execute(
        "UPDATE _lantern_rebuild SET state = ?2, reason = ?3, ended_at = ?4 WHERE id = ?1",
        params![id.0, state, reason, Timestamp::now().0],
    )?;
    transaction.commit()
}

fn sweep(connection: &mut Connection) -> Result<bool, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let left: Option<String> = transaction
        .query_row(
            "SELECT s.name FROM sqlite_schema s WHERE s.type = 'table' AND instr(s.name, '#') > 0
             AND (s.name LIKE '%#old' OR NOT EXISTS (SELECT 1 FROM _lantern_rebuild r
                 WHERE r.state = 'running' AND s.name LIKE '%#' || r.id)) LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()?;
    let Some(table) = left else { return Ok(false) };
    let table = quote_text(&table);
    let removed = transaction.execute(
        &format!("DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} LIMIT {ROWS_AT_ONCE})"),
        [],
    )?;
    if removed == 0 {
        transaction.execute_batch(&format!("DROP TABLE {table}"))?;
    }
    transaction.commit()?;
    Ok(true)
}

fn rebuilds(connection: &Connection) -> Result<Vec<RebuildRecord>, rusqlite::Error> {
    connection
        .prepare(
            "SELECT r.id, r.plugin, p.digest, r.state, r.options, r.started_at, r.ended_at, r.reason
             FROM _lantern_rebuild r JOIN _lantern_plugin p ON p.id = r.plugin_version ORDER BY r.id DESC",
        )?
        .query_map([], |row| {
            Ok(RebuildRecord {
                id: RebuildId(row.get(0)?),
                plugin: row.get(1)?,
                digest: row.get(2)?,
                state: row.get(3)?,
                options: row.get(4)?,
                started_at: Timestamp(row.get(5)?),
                ended_at: row.get::<_, Option<i64>>(6)?.map(Timestamp),
                reason: row.get(7)?,
            })
        })?
        .collect()
}
