//! Rebuilds of a plugin's tables in the background. The new tables are called `TABLE#ID` until one transaction replaces
//! the old ones with them; the records of the rebuild (origins, checkpoints, ledger, gaps, dead letters) carry the
//! plugin name `PLUGIN#ID`. No name in a manifest can contain a `#`.
//!
//! Rows carry the origin of the epoch in use, so that a rebuilt table equals the one that it replaces byte for byte.

mod carry;
mod compare;
mod finish;
mod history;
mod keep;
mod names;
mod survey;
#[cfg(test)]
mod tests;
mod totals;
mod verify;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sql::{Connection, Engine, OptionalExtension, Transaction, params};

use super::audit::durable_if;
use super::catalog::{Adoption, CatalogError, Layout, StoreRefusal, table_names, version_id};
use super::commit::{Adopted, CommitError, OriginId};
use super::description::TableDescription;
use super::forget;
use super::installation::forget_origins;
use super::queue::Request;
use super::read_error::ReadError;
use super::reader::Reader;
use super::search;
use super::segments::{self, OriginTable};
use super::statement::{self, quote_text};
use super::values::to_sql;
use super::{AdoptError, AuditMark, Store};
pub use compare::Comparison;
use finish::finish;
pub use keep::{KeptHistory, KeptTables};
use lantern_model::batch::Timestamp;
pub use lantern_model::results::rebuild::{RebuildOutcome, RebuildState, TableOutcome};
use lantern_model::schema::Manifest;
use names::{next_id, shadow};
pub use survey::{HeadBounds, RebuildSurvey, SourceHistory, SurveyedRange, TableSurvey};
pub use verify::{Verification, VerifyRequest};

/// Rows that one transaction scans and copies: few enough that a waiting commit is not noticeably delayed.
const ROWS_AT_ONCE: i64 = 500;

/// Rows that one statement removes.
const ROWS_REMOVED_AT_ONCE: i64 = 100;

/// How long one transaction removes rows before it ends.
const REMOVAL_TIME: Duration = Duration::from_millis(3);

/// Identifies a rebuild in this database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct RebuildId(pub i64);

impl RebuildId {
    /// The plugin name of the rebuild's records.
    pub fn name_of(self, plugin: &str) -> String {
        format!("{plugin}#{}", self.0)
    }
}

/// A rebuild as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuildRecord {
    /// Its number.
    pub id: RebuildId,
    /// The plugin.
    pub plugin: String,
    /// The digest of the version that fills the new tables.
    pub digest: String,
    /// Its state.
    pub state: RebuildState,
    /// The request, as JSON.
    pub options: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Its result, if it is done.
    pub outcome: Option<RebuildOutcome>,
    /// When the replaced tables will be removed.
    pub previous_until: Option<Timestamp>,
}

/// The part of a source's history that a rebuild replays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRange {
    /// The source.
    pub source: String,
    /// The epoch in use; its rows are rebuilt.
    pub origin: OriginId,
    /// The last sequence before the range.
    pub after: u64,
}

/// Changes to rebuilds.
#[derive(Clone, Copy)]
pub struct Rebuilds<'a>(&'a Store);

impl Store {
    /// Changes to rebuilds.
    pub fn rebuilds(&self) -> Rebuilds<'_> {
        Rebuilds(self)
    }
}

impl Rebuilds<'_> {
    /// Begins a rebuild: creates the empty tables.
    ///
    /// # Errors
    /// See [`AdoptError`]; nothing has changed then.
    pub async fn begin(
        self,
        adoption: Adoption,
        options: String,
        mark: Option<AuditMark>,
    ) -> Result<RebuildId, AdoptError> {
        self.0
            .call_catalog(move |connection| begin(connection, &adoption, &options, mark))
            .await
    }

    /// Returns the version with the statements that write into the new tables of a rebuild.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub async fn adopt(self, id: RebuildId, adoption: Adoption) -> Result<Adopted, AdoptError> {
        self.0
            .call_catalog(move |connection| adopt(connection, id, &adoption))
            .await
    }

    /// Scans some of the rows after row `after`, and copies those outside the replay ranges into the new table. Returns the
    /// last row that was scanned; `None` if there are no more.
    ///
    /// # Errors
    /// See [`AdoptError`]; [`AdoptError::Refused`] when a row does not fit into the new table.
    pub async fn carry_over(
        self,
        id: RebuildId,
        manifest: Arc<Manifest>,
        table: usize,
        ranges: Vec<ReplayRange>,
        after: i64,
    ) -> Result<Option<i64>, AdoptError> {
        let copy =
            move |connection: &mut Connection| carry::copy(connection, id, &manifest, table, &ranges, after);
        self.0.request_catalog(Request::Step, copy).await
    }

    /// Replaces the old tables with the new ones, including ledger, gaps and dead letters, and makes the version the active
    /// one, and writes the entry in the audit. All of it takes effect, or nothing. Returns `false` if something has changed since the comparison, which the
    /// caller has to repeat.
    ///
    /// # Errors
    /// See [`AdoptError`]; refused when a source has begun another epoch.
    pub async fn finish(
        self,
        adoption: Adoption,
        request: VerifyRequest,
        verified: Verification,
        mark: Option<AuditMark>,
    ) -> Result<bool, AdoptError> {
        self.0
            .call_catalog(move |connection| finish(connection, &adoption, &request, &verified, mark.as_ref()))
            .await
    }

    /// Restores the tables that a rebuild replaced, with ledger, gaps, dead letters and checkpoints. `handled` is the number
    /// of messages that the caller found in the ledger of each epoch.
    ///
    /// # Errors
    /// See [`AdoptError`]; refused when messages have been handled since.
    pub async fn restore(
        self,
        plugin: &str,
        id: RebuildId,
        handled: Vec<(OriginId, u64)>,
        mark: Option<AuditMark>,
    ) -> Result<(), AdoptError> {
        let plugin = plugin.to_owned();
        self.0
            .call_catalog(move |connection| keep::restore(connection, &plugin, id, &handled, mark.as_ref()))
            .await
    }

    /// Ends a rebuild that will not finish. [`Rebuilds::sweep`] removes its tables.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn end(
        self,
        id: RebuildId,
        state: RebuildState,
        reason: Option<String>,
        mark: Option<AuditMark>,
    ) -> Result<(), CommitError> {
        let change = move |connection: &Transaction<'_>| end(connection, id, state, reason.as_deref());
        self.0.change(mark, change, |()| Some(String::new())).await
    }

    /// Removes some rows of a table that no rebuild needs any more, and the table when it is empty. Returns whether there
    /// is more to do.
    ///
    /// # Errors
    /// As for [`Rebuilds::end`].
    pub async fn sweep(self) -> Result<bool, CommitError> {
        self.0.step(sweep).await
    }
}

impl Reader {
    /// Compares ledger and tables in use with a rebuild that replays these ranges with this version.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn survey_rebuild(
        &self,
        manifest: Arc<Manifest>,
        ranges: Vec<ReplayRange>,
    ) -> Result<RebuildSurvey, ReadError> {
        self.long_snapshot(move |connection| Ok(survey::survey(connection, &manifest, &ranges)?))
            .await
    }

    /// The ledger of a plugin, by epoch.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn ledger_histories(&self, plugin: &str) -> Result<Vec<SourceHistory>, ReadError> {
        let plugin = plugin.to_owned();
        self.long_snapshot(move |connection| Ok(survey::histories(connection, &plugin, &[])?))
            .await
    }

    /// The tables that the last rebuild of a plugin replaced, while they are kept.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn kept_tables(&self, plugin: &str) -> Result<Option<KeptTables>, ReadError> {
        let plugin = plugin.to_owned();
        let now = Timestamp::now();
        self.snapshot(move |connection| Ok(keep::kept_tables(connection, &plugin, now)?))
            .await
    }

    /// All rebuilds, the newest first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn rebuilds(&self) -> Result<Vec<RebuildRecord>, ReadError> {
        self.snapshot(|connection| Ok(rebuilds(connection)?)).await
    }
}

/// The condition that `row` lies in a replay range. The numbers are the host's own.
fn reachable(scopes: &[ReplayRange]) -> String {
    let each = scopes.iter().map(|scope| {
        format!(
            "(_origin = {} AND _sequence > {})",
            scope.origin.0,
            to_sql(scope.after)
        )
    });
    each.chain(std::iter::once("FALSE".to_owned()))
        .collect::<Vec<_>>()
        .join(" OR ")
}

/// Rows of a table outside the replay ranges. Counted per origin through the origins of the segments or the origin index of
/// the table, so that the cost depends on the result: commits wait for it, and a table can have any number of rows.
fn rows_outside(
    connection: &Connection,
    table: &str,
    scopes: &[ReplayRange],
) -> Result<u64, crate::sql::Error> {
    let table = OriginTable::find(connection, table)?;
    let mut rows = 0;
    for origin in table.origins(connection)?.into_iter().map(OriginId) {
        let scope = scopes.iter().find(|scope| scope.origin == origin);
        let until = scope.map_or(u64::MAX, |scope| scope.after);
        rows += table.count(connection, origin, 0, until)?;
    }
    Ok(rows)
}

fn begin(
    connection: &mut Connection,
    adoption: &Adoption,
    options: &str,
    mark: Option<AuditMark>,
) -> Result<RebuildId, CatalogError> {
    durable_if(connection, mark.as_ref())?;
    let transaction = connection.begin()?;
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
            return Err(CatalogError::refused(StoreRefusal::ForeignTable {
                table: table.name.to_string(),
                owner,
            }));
        }
    }
    let version = version_id(&transaction, adoption)?;
    let id = next_id(&transaction)?;
    transaction.execute(
        "INSERT INTO _lantern_rebuild (id, plugin, plugin_version, state, options, started_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            id.0,
            plugin,
            version.0,
            RebuildState::Running.as_str(),
            options,
            adoption.at.0
        ],
    )?;
    let shadow = shadow(id, &adoption.manifest);
    for table in &shadow.tables {
        Layout::Segments.create(&transaction, &shadow, table)?;
        search::begin_if_searched(&transaction, table.name.as_str(), &TableDescription::from(table))?;
    }
    if let Some(mut mark) = mark {
        mark.append_detail(&format!("rebuild {}", id.0));
        mark.write(&transaction)?;
    }
    transaction.commit()?;
    Ok(id)
}

fn adopt(connection: &mut Connection, id: RebuildId, adoption: &Adoption) -> Result<Adopted, CatalogError> {
    let transaction = connection.begin()?;
    let shadow = shadow(id, &adoption.manifest);
    for table in &shadow.tables {
        if !transaction.has_relation(table.name.as_str())? {
            return Err(CatalogError::refused(format!(
                "table {} of the rebuild is gone: the database was replaced",
                table.name
            )));
        }
    }
    let version = version_id(&transaction, adoption)?;
    let engine = transaction.engine();
    transaction.commit()?;
    let statements: Vec<String> = shadow
        .writes
        .iter()
        .map(|write| statement::insert(&shadow, write, engine))
        .collect();
    Ok(Adopted {
        version,
        manifest: Arc::clone(&adoption.manifest),
        statements: statements.into(),
        tables: table_names(&shadow),
    })
}

fn end(
    transaction: &Transaction<'_>,
    id: RebuildId,
    state: RebuildState,
    reason: Option<&str>,
) -> Result<(), crate::sql::Error> {
    let plugin: Option<String> = transaction
        .query_row(
            "SELECT plugin FROM _lantern_rebuild WHERE id = ?1",
            [id.0],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(plugin) = plugin {
        forget_origins(transaction, &id.name_of(&plugin))?;
    }
    watch::end(transaction, id)?;
    transaction
        .execute(
            "UPDATE _lantern_rebuild SET state = ?2, reason = ?3, ended_at = ?4 WHERE id = ?1",
            params![id.0, state.as_str(), reason, Timestamp::now().0],
        )
        .map(|_| ())
}

/// As [`sweep_some`]. If content was ever erased, overwrites what it removes, because kept tables can contain it.
fn sweep(connection: &mut Connection) -> Result<bool, crate::sql::Error> {
    match forget::is_used(connection)? {
        true => forget::overwriting(connection, sweep_some),
        false => sweep_some(connection),
    }
}

fn sweep_some(connection: &mut Connection) -> Result<bool, crate::sql::Error> {
    let transaction = connection.begin()?;
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
    let Some(name) = left else { return Ok(false) };
    // Nothing reads the table any more, so neither its segments nor its full-text index need to match its rows.
    search::retire(&transaction, &name)?;
    match transaction.engine() {
        Engine::Sqlite => {
            let began = Instant::now();
            while remove_some(&transaction, &name)? && began.elapsed() < REMOVAL_TIME {}
        }
        // It removes the files of the table, however many rows they have.
        Engine::Postgres => transaction.execute_batch(&format!("DROP TABLE {}", quote_text(&name)))?,
    }
    transaction.commit()?;
    Ok(true)
}

/// Removes some rows of a table that nothing reads, or the table if it is empty. Returns whether the table is left.
fn remove_some(connection: &Connection, name: &str) -> Result<bool, crate::sql::Error> {
    if segments::drop_some(connection, name, ROWS_REMOVED_AT_ONCE)? {
        return Ok(true);
    }
    let table = quote_text(name);
    let removed = connection
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE _rowid_ IN (SELECT _rowid_ FROM {table} LIMIT {ROWS_REMOVED_AT_ONCE})"
        ))?
        .execute([])?;
    if removed == 0 {
        connection.execute_batch(&format!("DROP TABLE {table}"))?;
    }
    Ok(removed > 0)
}

fn parse_state(name: &str) -> Result<RebuildState, crate::sql::Error> {
    name.parse()
        .map_err(|error: String| crate::sql::Error::decode(3, error))
}

fn rebuilds(connection: &Connection) -> Result<Vec<RebuildRecord>, crate::sql::Error> {
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
                state: parse_state(&row.get::<_, String>(3)?)?,
                options: row.get(4)?,
                started_at: Timestamp(row.get(5)?),
                ended_at: row.get::<_, Option<i64>>(6)?.map(Timestamp),
                reason: row.get(7)?,
                // A result that a newer host wrote and this one cannot parse counts as missing: it is only displayed.
                outcome: row
                    .get::<_, Option<String>>(8)?
                    .and_then(|text| serde_json::from_str(&text).ok()),
                previous_until: row.get::<_, Option<i64>>(9)?.map(Timestamp),
            })
        })?
        .collect()
}
