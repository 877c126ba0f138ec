//! The replaced tables, ledger, gaps, dead letters and checkpoints of a rebuild, which the host keeps for a while so
//! that a rollback can restore them. They are stored in tables whose names end in `#ID#old`; the host removes them when
//! the time has passed, or when the next rebuild of the plugin finishes.

use crate::sql::{Connection, OptionalExtension as _, Transaction, params};

use super::super::audit::{durable_if, write_mark};
use super::super::catalog::CatalogError;
use super::super::commit::OriginId;
use super::super::statement::{literal, quote_text};
use super::super::values::{from_sql, to_sql};
use super::RebuildId;
use crate::{AuditMark, search, segments};
use lantern_model::batch::Timestamp;

/// The host's tables that contain records by origin, each with the column that has their order.
const HISTORY: [(&str, &str); 4] = [
    ("_lantern_ledger", "id"),
    ("_lantern_gap", "id"),
    ("_lantern_dead_letter", "id"),
    ("_lantern_checkpoint", "origin"),
];

/// Replaced tables that can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTables {
    /// The rebuild that replaced them.
    pub rebuild: RebuildId,
    /// The digest of the version that wrote them.
    pub digest: String,
    /// The digest of the version that replaced them.
    pub replaced_by: String,
    /// The plugin's epochs at the swap.
    pub histories: Vec<KeptHistory>,
    /// Tables that were added or removed since the swap.
    pub changed_since: Vec<String>,
}

/// One epoch of a source at the swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptHistory {
    /// Its number in this database.
    pub origin: OriginId,
    /// The checkpoint.
    pub checkpoint: u64,
    /// Messages in the ledger right after the swap.
    pub messages: u64,
}

fn kept(name: &str, id: RebuildId) -> String {
    quote_text(&format!("{name}#{}#old", id.0))
}

/// Copies what the swap is about to replace, and removes what earlier rebuilds kept.
pub(super) fn copy_before(
    transaction: &Transaction<'_>,
    id: RebuildId,
    plugin: &str,
    until: Timestamp,
) -> Result<(), crate::sql::Error> {
    for (table, _) in HISTORY {
        transaction.execute_batch(&format!(
            "CREATE TABLE {} AS SELECT t.* FROM {table} t JOIN _lantern_origin o ON o.id = t.origin
             WHERE o.plugin = {}",
            kept(table, id),
            literal(plugin)
        ))?;
    }
    transaction.execute_batch(&format!(
        "CREATE TABLE {} AS SELECT * FROM _lantern_table WHERE plugin = {}",
        kept("_lantern_table", id),
        literal(plugin)
    ))?;
    transaction
        .execute(
            "UPDATE _lantern_rebuild SET previous_until = ?2, previous_version =
                 (SELECT active FROM _lantern_installation WHERE plugin = ?3) WHERE id = ?1",
            params![id.0, until.0, plugin],
        )
        .map(|_| ())
}

/// Records the position of the ledger and the tables right after the swap.
pub(super) fn mark_after(
    transaction: &Transaction<'_>,
    id: RebuildId,
    plugin: &str,
) -> Result<(), crate::sql::Error> {
    transaction.execute_batch(&format!(
        "CREATE TABLE {} AS SELECT o.id AS origin, c.sequence AS sequence,
             (SELECT coalesce(sum(l.messages), 0) FROM _lantern_ledger l WHERE l.origin = o.id) AS messages
         FROM _lantern_origin o JOIN _lantern_checkpoint c ON c.origin = o.id WHERE o.plugin = {}",
        kept("_lantern_mark", id),
        literal(plugin)
    ))?;
    transaction.execute_batch(&format!(
        "CREATE TABLE {} AS SELECT name FROM _lantern_table WHERE plugin = {}",
        kept("_lantern_after", id),
        literal(plugin)
    ))
}

/// Ends the retention of what earlier rebuilds of the plugin kept; the sweep removes it.
pub(super) fn forget_earlier(transaction: &Transaction<'_>, plugin: &str) -> Result<(), crate::sql::Error> {
    transaction
        .execute(
            "UPDATE _lantern_rebuild SET previous_until = NULL WHERE plugin = ?1",
            [plugin],
        )
        .map(|_| ())
}

/// The tables that a plugin can restore.
pub(super) fn kept_tables(
    connection: &Connection,
    plugin: &str,
    now: Timestamp,
) -> Result<Option<KeptTables>, crate::sql::Error> {
    let found: Option<(RebuildId, String, String)> = connection
        .query_row(
            "SELECT r.id, p.digest, n.digest FROM _lantern_rebuild r
             JOIN _lantern_plugin p ON p.id = r.previous_version JOIN _lantern_plugin n ON n.id = r.plugin_version
             WHERE r.plugin = ?1 AND r.previous_until > ?2 ORDER BY r.id DESC LIMIT 1",
            params![plugin, now.0],
            |row| Ok((RebuildId(row.get(0)?), row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((rebuild, digest, replaced_by)) = found else {
        return Ok(None);
    };
    let histories = connection
        .prepare(&format!(
            "SELECT origin, sequence, messages FROM {}",
            kept("_lantern_mark", rebuild)
        ))?
        .query_map([], |row| {
            Ok(KeptHistory {
                origin: OriginId(row.get(0)?),
                checkpoint: row.get(1).map(from_sql)?,
                messages: row.get(2).map(from_sql)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let after = kept("_lantern_after", rebuild);
    let changed_since = connection
        .prepare(&format!(
            "SELECT name FROM _lantern_table WHERE plugin = ?1 AND name NOT IN (SELECT name FROM {after})
             UNION SELECT name FROM {after} WHERE name NOT IN (SELECT name FROM _lantern_table WHERE plugin = ?1)"
        ))?
        .query_map([plugin], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(Some(KeptTables {
        rebuild,
        digest,
        replaced_by,
        histories,
        changed_since,
    }))
}

/// Restores the kept tables with their ledger, gaps, dead letters and checkpoints, and makes their version the active
/// one. `handled` is the number of messages that the caller found in the ledger of each epoch; refused if it has
/// changed.
pub(super) fn restore(
    connection: &mut Connection,
    plugin: &str,
    id: RebuildId,
    handled: &[(OriginId, u64)],
    mark: Option<&AuditMark>,
) -> Result<(), CatalogError> {
    let now = Timestamp::now();
    durable_if(connection, mark)?;
    let transaction = connection.begin()?;
    check_unchanged(&transaction, plugin, handled)?;
    let current = names(&transaction, "_lantern_table", plugin)?;
    let previous = names(&transaction, &kept("_lantern_table", id), plugin)?;
    for table in &current {
        // A table that the rebuild did not replace has no copy, and remains.
        if previous.contains(table) && !exists(&transaction, &format!("{table}#{}#old", id.0))? {
            continue;
        }
        rename(&transaction, table, &format!("{table}#{}#undone#old", id.0))?;
    }
    for table in &previous {
        let aside = format!("{table}#{}#old", id.0);
        if exists(&transaction, &aside)? {
            rename(&transaction, &aside, table)?;
        }
    }
    let of_plugin = "WHERE origin IN (SELECT id FROM _lantern_origin WHERE plugin = ?1)";
    for (table, order) in HISTORY {
        transaction.execute(&format!("DELETE FROM {table} {of_plugin}"), [plugin])?;
        copy_back(&transaction, table, order, id)?;
    }
    transaction.execute("DELETE FROM _lantern_table WHERE plugin = ?1", [plugin])?;
    copy_back(&transaction, "_lantern_table", "name", id)?;
    transaction.execute(
        "UPDATE _lantern_installation SET changed_at = ?3, previous = active,
             active = (SELECT previous_version FROM _lantern_rebuild WHERE id = ?2) WHERE plugin = ?1",
        params![plugin, id.0, now.0],
    )?;
    transaction.execute(
        "UPDATE _lantern_plugin SET activated_at = ?2, failed = NULL
         WHERE id = (SELECT previous_version FROM _lantern_rebuild WHERE id = ?1)",
        params![id.0, now.0],
    )?;
    transaction.execute(
        "UPDATE _lantern_rebuild SET previous_until = NULL, reason = ?2 WHERE id = ?1",
        params![id.0, format!("rolled back at {}", now.to_rfc3339())],
    )?;
    write_mark(&transaction, mark)?;
    transaction.commit()?;
    Ok(())
}

fn check_unchanged(
    transaction: &Transaction<'_>,
    plugin: &str,
    handled: &[(OriginId, u64)],
) -> Result<(), CatalogError> {
    let mut found: Vec<(i64, i64)> = transaction
        .prepare(
            "SELECT o.id, (SELECT coalesce(sum(l.messages), 0) FROM _lantern_ledger l WHERE l.origin = o.id)
             FROM _lantern_origin o WHERE o.plugin = ?1",
        )?
        .query_map([plugin], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut expected: Vec<(i64, i64)> = handled
        .iter()
        .map(|(origin, messages)| (origin.0, to_sql(*messages)))
        .collect();
    found.sort_unstable();
    expected.sort_unstable();
    match found == expected {
        true => Ok(()),
        false => Err(CatalogError::refused(
            "messages have been handled meanwhile; try again".to_owned(),
        )),
    }
}

fn names(connection: &Connection, table: &str, plugin: &str) -> Result<Vec<String>, crate::sql::Error> {
    connection
        .prepare(&format!(
            "SELECT name FROM {table} WHERE plugin = ?1 ORDER BY name"
        ))?
        .query_map([plugin], |row| row.get(0))?
        .collect()
}

fn exists(connection: &Connection, table: &str) -> Result<bool, crate::sql::Error> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)",
        [table],
        |row| row.get(0),
    )
}

/// Copies rows back by the names of their columns. A row of ledger, gap or dead letter gets a new id, because another
/// plugin may use the old one by now.
fn copy_back(
    transaction: &Transaction<'_>,
    table: &str,
    order: &str,
    id: RebuildId,
) -> Result<(), crate::sql::Error> {
    let copy = format!("{table}#{}#old", id.0);
    let columns: Vec<String> = transaction
        .prepare("SELECT name FROM pragma_table_info(?1) WHERE name <> 'id'")?
        .query_map([&copy], |row| row.get::<_, String>(0))?
        .map(|name| name.map(|name| quote_text(&name)))
        .collect::<Result<_, _>>()?;
    let columns = columns.join(", ");
    transaction
        .execute(
            &format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM {} ORDER BY {order}",
                quote_text(&copy)
            ),
            [],
        )
        .map(|_| ())
}

/// Renames a table with its segments and its full-text index.
pub(super) fn rename(transaction: &Transaction<'_>, from: &str, to: &str) -> Result<(), crate::sql::Error> {
    segments::rename(transaction, from, to)?;
    search::rename(transaction, from, to)?;
    transaction.execute_batch(&format!(
        "ALTER TABLE {} RENAME TO {}",
        quote_text(from),
        quote_text(to)
    ))
}
