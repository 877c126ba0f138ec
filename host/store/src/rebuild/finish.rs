//! The last transaction of a rebuild: the new tables and records replace those in use.

use crate::sql::{Connection, Kind, Transaction, params};

use super::history::{TableSets, adopt_history, cut, expired_of_kept, forget_dropped};
use super::keep::{self, rename};
use super::{RebuildId, Verification, VerifyRequest, verify, watch};
use crate::AuditMark;
use crate::audit::write_mark;
use crate::catalog::{Adoption, CatalogError, describe, version_id};
use crate::commit::VersionId;
use crate::indexes::existing::release_name;
use crate::installation::forget_origins;
use lantern_model::batch::Timestamp;
use lantern_model::results::rebuild::RebuildState;
use lantern_model::schema::Manifest;

/// Divides the plugin's tables by the declaration of the version.
fn table_sets(
    connection: &Connection,
    manifest: &Manifest,
    drop_undeclared: bool,
) -> Result<TableSets, crate::sql::Error> {
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

pub(super) fn finish(
    connection: &mut Connection,
    adoption: &Adoption,
    request: &VerifyRequest,
    verified: &Verification,
    mark: Option<&AuditMark>,
) -> Result<bool, CatalogError> {
    match replace(connection, adoption, request, verified, mark) {
        // A reader has one of the tables open. The caller compares again, and readers do not wait for this transaction.
        Err(CatalogError::Sqlite(error)) if error.kind() == Kind::Busy => Ok(false),
        done => done,
    }
}

fn replace(
    connection: &mut Connection,
    adoption: &Adoption,
    request: &VerifyRequest,
    verified: &Verification,
    mark: Option<&AuditMark>,
) -> Result<bool, CatalogError> {
    let (id, scopes) = (request.id, request.scopes.as_slice());
    let plugin = adoption.manifest.name.as_str();
    let transaction = connection.begin()?;
    transaction.wait_briefly_for_locks()?;
    if verify::fingerprint(&transaction, id, plugin)? != verified.fingerprint
        || !watch::is_unchanged(&transaction, id, verified.watched)?
    {
        return Ok(false);
    }
    watch::end(&transaction, id)?;
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
    swap_tables(&transaction, id, &adoption.manifest, &tables)?;
    set_expired(&transaction, &adoption.manifest, expired)?;
    forget_origins(&transaction, &id.name_of(plugin))?;
    activate(&transaction, plugin, version, adoption.at)?;
    if until.is_some() {
        keep::mark_after(&transaction, id, plugin)?;
    }
    let outcome = serde_json::to_string(&verified.outcome).map_err(crate::sql::Error::encode)?;
    transaction.execute(
        "UPDATE _lantern_rebuild SET state = ?2, ended_at = ?3, outcome = ?4 WHERE id = ?1",
        params![id.0, RebuildState::Done.as_str(), Timestamp::now().0, outcome],
    )?;
    write_mark(&transaction, mark)?;
    transaction.commit()?;
    Ok(true)
}

/// Renames the old tables, and gives their names to the new ones.
fn swap_tables(
    transaction: &Transaction<'_>,
    id: RebuildId,
    manifest: &Manifest,
    tables: &TableSets,
) -> Result<(), crate::sql::Error> {
    for table in tables.replaced.iter().chain(&tables.dropped) {
        // Dropping it here would delay every commit until its pages are freed.
        let aside = format!("{table}#{}#old", id.0);
        rename(transaction, table, &aside)?;
        transaction.execute("DELETE FROM _lantern_table WHERE name = ?1", [table])?;
    }
    for table in &manifest.tables {
        release_name(transaction, table.name.as_str())?;
        rename(
            transaction,
            table.name.of_rebuild(id.0).as_str(),
            table.name.as_str(),
        )?;
        describe(transaction, manifest, table, None)?;
    }
    Ok(())
}

/// Records the expired rows of all tables with the first one.
fn set_expired(
    transaction: &Transaction<'_>,
    manifest: &Manifest,
    expired: i64,
) -> Result<(), crate::sql::Error> {
    // `rows_expired` of remaining tables is part of the sum.
    transaction.execute(
        "UPDATE _lantern_table SET rows_expired = 0 WHERE plugin = ?1",
        [manifest.name.as_str()],
    )?;
    if let Some(table) = manifest.tables.first() {
        transaction.execute(
            "UPDATE _lantern_table SET rows_expired = ?2 WHERE name = ?1",
            params![table.name.as_str(), expired],
        )?;
    }
    Ok(())
}

fn activate(
    transaction: &Transaction<'_>,
    plugin: &str,
    version: VersionId,
    at: Timestamp,
) -> Result<(), crate::sql::Error> {
    transaction.execute(
        "UPDATE _lantern_installation SET active = ?2, changed_at = ?3,
             previous = CASE WHEN active IS DISTINCT FROM ?2 THEN active ELSE previous END
         WHERE plugin = ?1",
        params![plugin, version.0, at.0],
    )?;
    transaction.execute(
        "UPDATE _lantern_plugin SET activated_at = ?2, failed = NULL WHERE id = ?1",
        params![version.0, at.0],
    )?;
    Ok(())
}

/// Until when replaced tables are kept; none if they are removed at once.
fn keep_until(seconds: u64) -> Option<Timestamp> {
    let microseconds = i64::try_from(seconds).ok()?.checked_mul(1_000_000)?;
    (microseconds > 0).then(|| Timestamp(Timestamp::now().0.saturating_add(microseconds)))
}
