//! A plugin's tables made anew beside those in use. The new tables are called `TABLE#ID` until one transaction puts them
//! in the place of the old ones; what the rebuild remembers meanwhile (origins, checkpoints, ledger, gaps, dead letters)
//! stands under the plugin name `PLUGIN#ID`. No name that a plugin can give itself has a `#`.
//!
//! Rows are stamped with the origin of the history in use, so that a rebuilt table is the same as the one that it
//! replaces, to the byte.

mod carry;
mod history;
mod keep;
mod survey;
mod verify;

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::apply::{from_sql, to_sql};
use super::catalog::{Adoption, CatalogError, describe, run, version_id};
use super::commit::{Adopted, CommitError, OriginId};
use super::forget;
use super::installation::forget_origins;
use super::statement::{self, quote_text};
use super::{AdoptError, AuditMark, Store};
use history::{TableSets, adopt_history, cut, expired_of_kept, forget_dropped};
pub use keep::{KeptHistory, KeptTables};
use lantern_model::batch::Timestamp;
use lantern_model::schema::Manifest;
pub use survey::{HeadBounds, LedgerRange, RebuildSurvey, SourceHistory, TableSurvey};
pub use verify::{RebuildOutcome, TableOutcome, Verification, VerifyRequest};

/// Rows that one transaction copies or removes; few enough that a commit behind it does not notice.
const ROWS_AT_ONCE: i64 = 2_000;

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
    /// What it has come to, when it is done.
    pub outcome: Option<RebuildOutcome>,
    /// Until when the tables that it has replaced are kept.
    pub previous_until: Option<Timestamp>,
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

impl Store {
    /// What ledger and tables in use say of a rebuild that reads these scopes again with this version.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn survey_rebuild(
        &self,
        manifest: Arc<Manifest>,
        scopes: Vec<Scope>,
    ) -> Result<RebuildSurvey, CommitError> {
        let surveyed = self.look(move |connection| survey::survey(connection, &manifest, &scopes));
        surveyed
            .await
            .map_err(|error: rusqlite::Error| CommitError::Unavailable(error.to_string()))
    }

    /// The ledger of a plugin, history by history.
    ///
    /// # Errors
    /// As for [`Store::survey_rebuild`].
    pub async fn ledger_histories(&self, plugin: &str) -> Result<Vec<SourceHistory>, CommitError> {
        let plugin = plugin.to_owned();
        let read = self.look(move |connection| survey::histories(connection, &plugin, &[]));
        read.await
            .map_err(|error: rusqlite::Error| CommitError::Unavailable(error.to_string()))
    }

    /// Compares the new tables of a rebuild, and what it remembers, with what is in use.
    ///
    /// # Errors
    /// As for [`Store::survey_rebuild`].
    pub async fn verify_rebuild(
        &self,
        manifest: Arc<Manifest>,
        request: VerifyRequest,
    ) -> Result<Verification, CommitError> {
        let verified = self.look(move |connection| verify::verify(connection, &manifest, &request));
        verified
            .await
            .map_err(|error: rusqlite::Error| CommitError::Unavailable(error.to_string()))
    }

    /// The last sequence that does not belong to a history.
    ///
    /// # Errors
    /// As for [`Store::survey_rebuild`].
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
    /// See [`AdoptError`]; [`AdoptError::Refused`] when a row does not fit into the new table.
    pub async fn carry_over(
        &self,
        id: RebuildId,
        manifest: Arc<Manifest>,
        table: usize,
        scopes: Vec<Scope>,
        after: i64,
    ) -> Result<Option<i64>, AdoptError> {
        self.call_catalog(move |connection| carry::copy(connection, id, &manifest, table, &scopes, after))
            .await
    }

    /// Puts the new tables in the place of the old ones, with the ledger, gaps and dead letters that belong to them, and
    /// makes the version the active one, and writes the entry in the audit. All of it takes effect, or nothing. `Ok(false)`: something has changed since the
    /// comparison, which has to be made again.
    ///
    /// # Errors
    /// See [`AdoptError`]; refused when the history in use is another one by now.
    pub async fn finish_rebuild(
        &self,
        adoption: Adoption,
        request: VerifyRequest,
        verified: Verification,
        mark: Option<AuditMark>,
    ) -> Result<bool, AdoptError> {
        self.call_catalog(move |connection| finish(connection, &adoption, &request, &verified, mark.as_ref()))
            .await
    }

    /// The tables that a plugin can go back to: those that its last rebuild has replaced, while they are kept.
    ///
    /// # Errors
    /// As for [`Store::survey_rebuild`].
    pub async fn kept_tables(&self, plugin: &str) -> Result<Option<KeptTables>, CommitError> {
        let plugin = plugin.to_owned();
        let now = Timestamp::now();
        let read = self.look(move |connection| keep::kept_tables(connection, &plugin, now));
        read.await
            .map_err(|error: rusqlite::Error| CommitError::Unavailable(error.to_string()))
    }

    /// Goes back to the tables that a rebuild has replaced, with ledger, gaps, dead letters and checkpoints. `handled` is how
    /// many messages the caller has seen in the ledger of each history.
    ///
    /// # Errors
    /// See [`AdoptError`]; refused when messages have been handled meanwhile.
    pub async fn restore_tables(
        &self,
        plugin: &str,
        id: RebuildId,
        handled: Vec<(OriginId, u64)>,
    ) -> Result<(), AdoptError> {
        let plugin = plugin.to_owned();
        self.call_catalog(move |connection| keep::restore(connection, &plugin, id, &handled))
            .await
    }

    /// Ends a rebuild that will not finish. Its tables are removed by [`Store::sweep_tables`].
    ///
    /// # Errors
    /// As for [`Store::survey_rebuild`].
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
    /// As for [`Store::survey_rebuild`].
    pub async fn sweep_tables(&self) -> Result<bool, CommitError> {
        self.call(sweep).await
    }

    /// All rebuilds, the newest first.
    ///
    /// # Errors
    /// As for [`Store::survey_rebuild`].
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

/// Divides the plugin's tables by what the version declares.
fn table_sets(
    connection: &Connection,
    manifest: &Manifest,
    drop_undeclared: bool,
) -> Result<TableSets, rusqlite::Error> {
    let all: Vec<String> = connection
        .prepare("SELECT name FROM _lantern_table WHERE plugin = ?1 ORDER BY name")?
        .query_map([manifest.name.as_str()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let declared = |name: &String| manifest.tables.iter().any(|table| table.name.as_str() == name);
    let (replaced, undeclared) = all.into_iter().partition(declared);
    let (kept, dropped) = match drop_undeclared {
        true => (Vec::new(), undeclared),
        false => (undeclared, Vec::new()),
    };
    Ok(TableSets {
        replaced,
        kept,
        dropped,
    })
}

fn finish(
    connection: &mut Connection,
    adoption: &Adoption,
    request: &VerifyRequest,
    verified: &Verification,
    mark: Option<&AuditMark>,
) -> Result<bool, CatalogError> {
    let (id, scopes) = (request.id, request.scopes.as_slice());
    let plugin = adoption.manifest.name.as_str();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if verify::fingerprint(&transaction, id, plugin)? != verified.fingerprint {
        return Ok(false);
    }
    let tables = table_sets(&transaction, &adoption.manifest, request.drop_undeclared)?;
    let version = version_id(&transaction, adoption)?;
    keep::forget_earlier(&transaction, plugin)?;
    let until = keep_until(request.keep_old_s);
    if let Some(until) = until {
        keep::copy_before(&transaction, id, plugin, until)?;
    }
    for (scope, head) in scopes.iter().zip(&verified.heads) {
        cut(&transaction, plugin, scope, *head, &tables)?;
    }
    forget_dropped(&transaction, plugin, &tables)?;
    let expired = expired_of_kept(&transaction, id, plugin, scopes, &tables)?;
    for scope in scopes {
        adopt_history(&transaction, id, plugin, scope, version, &tables)?;
    }
    for table in tables.replaced.iter().chain(&tables.dropped) {
        // To drop it here would hold up every commit for as long as it takes to free its pages.
        let aside = format!("{table}#{}#old", id.0);
        rename(&transaction, table, &aside)?;
        transaction.execute("DELETE FROM _lantern_table WHERE name = ?1", [table])?;
    }
    for table in &adoption.manifest.tables {
        rename(
            &transaction,
            table.name.of_rebuild(id.0).as_str(),
            table.name.as_str(),
        )?;
        describe(&transaction, &adoption.manifest, table, None)?;
    }
    // `rows_expired` of tables that stay is part of the sum.
    transaction.execute(
        "UPDATE _lantern_table SET rows_expired = 0 WHERE plugin = ?1",
        [plugin],
    )?;
    if let Some(table) = adoption.manifest.tables.first() {
        transaction.execute(
            "UPDATE _lantern_table SET rows_expired = ?2 WHERE name = ?1",
            params![table.name.as_str(), expired],
        )?;
    }
    forget_origins(&transaction, &id.name_of(plugin))?;
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
    if until.is_some() {
        keep::mark_after(&transaction, id, plugin)?;
    }
    let outcome = serde_json::to_string(&verified.outcome)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    transaction.execute(
        "UPDATE _lantern_rebuild SET state = 'done', ended_at = ?2, outcome = ?3 WHERE id = ?1",
        params![id.0, Timestamp::now().0, outcome],
    )?;
    if let Some(mark) = mark {
        mark.write(&transaction)?;
    }
    transaction.commit()?;
    Ok(true)
}

/// Until when replaced tables are kept; none when they go at once.
fn keep_until(seconds: u64) -> Option<Timestamp> {
    let microseconds = i64::try_from(seconds).ok()?.checked_mul(1_000_000)?;
    (microseconds > 0).then(|| Timestamp(Timestamp::now().0.saturating_add(microseconds)))
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

/// As [`sweep_some`]. Where content was ever erased, what goes is overwritten as well: kept tables can hold it.
fn sweep(connection: &mut Connection) -> Result<bool, rusqlite::Error> {
    match forget::is_used(connection)? {
        true => forget::overwriting(connection, sweep_some),
        false => sweep_some(connection),
    }
}

fn sweep_some(connection: &mut Connection) -> Result<bool, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let left: Option<String> = transaction
        .query_row(
            "SELECT s.name FROM sqlite_schema s WHERE s.type = 'table' AND instr(s.name, '#') > 0
             AND (s.name LIKE '%#old' OR NOT EXISTS (SELECT 1 FROM _lantern_rebuild r
                 WHERE r.state = 'running' AND s.name LIKE '%#' || r.id))
             AND NOT EXISTS (SELECT 1 FROM _lantern_rebuild r
                 WHERE r.previous_until > ?1 AND s.name LIKE '%#' || r.id || '#old') LIMIT 1",
            [Timestamp::now().0],
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
            "SELECT r.id, r.plugin, p.digest, r.state, r.options, r.started_at, r.ended_at, r.reason,
                    r.outcome, r.previous_until
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
                // One that a newer host wrote and this one cannot read is as good as none: it is only shown.
                outcome: row
                    .get::<_, Option<String>>(8)?
                    .and_then(|text| serde_json::from_str(&text).ok()),
                previous_until: row.get::<_, Option<i64>>(9)?.map(Timestamp),
            })
        })?
        .collect()
}
