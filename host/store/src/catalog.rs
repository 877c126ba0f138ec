//! Plugins, their tables and their sources, as the database knows them: which version is which number, who owns
//! which table, where a source stands. Each function is one transaction on the write connection.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::anchors;
use super::apply::{from_sql, to_sql};
use super::commit::{Accepted, Adopted, Attached, Counts, Mark, NewEpoch, OriginId, Question, VersionId};
use super::description::{ColumnDescription, TableDescription};
use super::letters::count_open;
use super::statement;
use lantern_model::batch::Timestamp;
use lantern_model::schema::{Manifest, OnConflict, Table};

/// A plugin version that wants to write.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// What it declares.
    pub manifest: Arc<Manifest>,
    /// Its digest as people see it.
    pub digest: String,
    /// The contract's version that it was made for.
    pub contract: String,
    /// Now.
    pub at: Timestamp,
}

/// Why a plugin version cannot write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// Its tables are another plugin's, or not what the database has. All reasons, in words.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// The database cannot be written now.
    #[error("the database cannot be written: {0}")]
    Unavailable(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// What can go wrong inside: a refusal in words, or SQLite.
pub(super) enum CatalogError {
    Refused(Vec<String>),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for CatalogError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Makes a plugin version the one that writes, and its tables what it declares: missing tables, nullable columns and
/// indexes are added, anything else is refused with the difference. A version that has run before may come back
/// although the table has grown since: what it does not know stays null in its rows.
pub(super) fn adopt(connection: &mut Connection, adoption: &Adoption) -> Result<Adopted, CatalogError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let returns = has_run(&transaction, adoption)?;
    let adopted = adopt_in(&transaction, adoption, returns)?;
    // A database that was deleted under a running host learns here what runs.
    transaction.execute(
        "INSERT INTO _lantern_installation (plugin, active, changed_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (plugin) DO UPDATE SET active = coalesce(active, excluded.active)",
        params![adoption.manifest.name.as_str(), adopted.version.0, adoption.at.0],
    )?;
    transaction.commit()?;
    Ok(adopted)
}

/// As [`adopt`], in a transaction that is open. A version that `returns` need not know the nullable columns that have come
/// since it ran.
pub(super) fn adopt_in(
    transaction: &Transaction<'_>,
    adoption: &Adoption,
    returns: bool,
) -> Result<Adopted, CatalogError> {
    let manifest = &adoption.manifest;
    let mut refusals = Vec::new();
    for table in &manifest.tables {
        match stored_table(transaction, table)? {
            Some((owner, _)) if owner != manifest.name.as_str() => {
                refusals.push(format!("table {} belongs to plugin {owner}", table.name));
            }
            Some((_, stored)) if table_exists(transaction, table)? => {
                match additions(&stored, table, returns) {
                    Ok(statements) => run(transaction, &statements)?,
                    Err(differences) => refusals.extend(differences),
                }
                if refusals.is_empty() {
                    describe(transaction, manifest, table, Some(stored))?;
                }
            }
            _ if table_exists(transaction, table)? => refusals.push(format!(
                "table {} is in the database already, and no plugin made it",
                table.name
            )),
            _ => {
                run(transaction, &statement::create_table(table))?;
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
        .map(|write| statement::insert(manifest, write))
        .collect();
    Ok(Adopted {
        version,
        manifest: Arc::clone(manifest),
        statements: statements.into(),
    })
}

/// Whether this very version was running at some time.
fn has_run(transaction: &Transaction<'_>, adoption: &Adoption) -> Result<bool, rusqlite::Error> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_plugin WHERE name = ?1 AND digest = ?2
             AND activated_at IS NOT NULL)",
        [adoption.manifest.name.as_str(), adoption.digest.as_str()],
        |row| row.get(0),
    )
}

pub(super) fn run(transaction: &Transaction<'_>, statements: &[String]) -> Result<(), rusqlite::Error> {
    statements
        .iter()
        .try_for_each(|text| transaction.execute_batch(text))
}

fn stored_table(
    transaction: &Transaction<'_>,
    table: &Table,
) -> Result<Option<(String, TableDescription)>, rusqlite::Error> {
    transaction
        .query_row(
            "SELECT plugin, description FROM _lantern_table WHERE name = ?1",
            [table.name.as_str()],
            |row| {
                let text: String = row.get(1)?;
                let description = serde_json::from_str(&text).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
                })?;
                Ok((row.get(0)?, description))
            },
        )
        .optional()
}

fn table_exists(transaction: &Transaction<'_>, table: &Table) -> Result<bool, rusqlite::Error> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)",
        [table.name.as_str()],
        |row| row.get(0),
    )
}

/// The statements that bring a stored table to what is declared now, or what stands against it. A version that
/// `returns` need not know the columns that came after it, and no version those that the present one does not know.
fn additions(stored: &TableDescription, table: &Table, returns: bool) -> Result<Vec<String>, Vec<String>> {
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
            statements.push(statement::add_column(table, column));
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
) -> (Vec<String>, Vec<String>) {
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
        // An index that only made reading faster stays: it costs little, and a rollback wants it back.
    }
    for (index, new) in table.indexes.iter().zip(&declared.indexes) {
        if stored.indexes.contains(new) {
            continue;
        }
        if new.unique {
            differences.push(format!("{place}: new unique index ({})", new.columns.join(", ")));
        } else {
            let create = statement::create_index(table, index);
            statements.push(create.replacen("CREATE INDEX", "CREATE INDEX IF NOT EXISTS", 1));
        }
    }
    (statements, differences)
}

/// Keeps what is declared now; columns and indexes of `stored` that are not declared are still in the table, and stay
/// in its description.
pub(super) fn describe(
    transaction: &Transaction<'_>,
    manifest: &Manifest,
    table: &Table,
    stored: Option<TableDescription>,
) -> Result<(), rusqlite::Error> {
    let mut description = TableDescription::from(table);
    if let Some(stored) = stored {
        let known = |name: &str| table.columns.iter().any(|column| column.name.as_str() == name);
        let more = stored.columns.into_iter().filter(|column| !known(&column.name));
        description.columns.extend(more.map(|column| ColumnDescription {
            retired: true,
            ..column
        }));
        for index in stored.indexes {
            if !description.indexes.contains(&index) {
                description.indexes.push(index);
            }
        }
    }
    let description = serde_json::to_string(&description)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let updates = manifest.writes.iter().any(|write| {
        manifest.table_of(write).name == table.name && matches!(write.on_conflict, OnConflict::Update(_))
    });
    transaction
        .execute(
            "INSERT INTO _lantern_table (name, plugin, description, updates) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET description = excluded.description,
                 updates = max(updates, excluded.updates)",
            params![table.name.as_str(), manifest.name.as_str(), description, updates],
        )
        .map(|_| ())
}

pub(super) fn version_id(
    transaction: &Transaction<'_>,
    adoption: &Adoption,
) -> Result<VersionId, rusqlite::Error> {
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

/// Where a source stands; none when it was never begun.
pub(super) fn attach(
    connection: &Connection,
    plugin: &str,
    source: &str,
) -> Result<Option<Attached>, rusqlite::Error> {
    let found = connection
        .query_row(
            "SELECT o.id, o.epoch, o.stream_created_ns, c.sequence, c.published_ns, c.payload_sha256, c.anchors,
                 o.stream, o.asked_created_ns, o.accepted
             FROM _lantern_origin o JOIN _lantern_checkpoint c ON c.origin = o.id
             WHERE o.plugin = ?1 AND o.source = ?2 ORDER BY o.epoch DESC LIMIT 1",
            [plugin, source],
            |row| {
                let checkpoint = Mark {
                    sequence: from_sql(row.get(3)?),
                    published_ns: row.get(4)?,
                    payload_sha256: row.get(5)?,
                };
                let asked: Option<i64> = row.get(8)?;
                let accepted: Option<String> = row.get(9)?;
                Ok(Attached {
                    origin: OriginId(row.get(0)?),
                    epoch: from_sql(row.get(1)?),
                    stream: row.get(7)?,
                    stream_created_ns: row.get(2)?,
                    anchors: anchors::decode(row.get(6)?, &checkpoint, 6)?,
                    checkpoint,
                    question: asked.map(|stream_created_ns| Question {
                        stream_created_ns,
                        accepted: accepted.as_deref().and_then(Accepted::parse),
                    }),
                    counts: Counts::default(),
                    dead_letters: 0,
                })
            },
        )
        .optional()?;
    let Some(mut attached) = found else {
        return Ok(None);
    };
    attached.counts = ledger_sums(connection, attached.origin)?;
    attached.dead_letters = count_open(connection, plugin, source)?;
    Ok(Some(attached))
}

/// The sums over an origin's ledger.
pub(super) fn ledger_sums(connection: &Connection, origin: OriginId) -> Result<Counts, rusqlite::Error> {
    connection.query_row(
        "SELECT coalesce(sum(messages), 0), coalesce(sum(projected), 0), coalesce(sum(skipped), 0),
                coalesce(sum(dead), 0), coalesce(sum(missing), 0), coalesce(sum(rows), 0),
                coalesce(sum(changed), 0), coalesce(sum(inserted), 0), coalesce(sum(updated), 0)
         FROM _lantern_ledger WHERE origin = ?1",
        [origin.0],
        |row| {
            Ok(Counts {
                messages: from_sql(row.get(0)?),
                projected: from_sql(row.get(1)?),
                skipped: from_sql(row.get(2)?),
                dead: from_sql(row.get(3)?),
                missing: from_sql(row.get(4)?),
                rows: from_sql(row.get(5)?),
                changed: from_sql(row.get(6)?),
                inserted: from_sql(row.get(7)?),
                updated: from_sql(row.get(8)?),
            })
        },
    )
}

/// Begins a source's next epoch (its first, when there was none).
pub(super) fn begin_epoch(
    connection: &mut Connection,
    epoch: &NewEpoch,
) -> Result<Attached, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT INTO _lantern_origin (plugin, source, epoch, stream, stream_created_ns, begins_after, reason,
             began_at)
         SELECT ?1, ?2, coalesce(max(epoch), 0) + 1, ?3, ?4, ?5, ?6, ?7 FROM _lantern_origin
         WHERE plugin = ?1 AND source = ?2",
        params![
            epoch.plugin,
            epoch.source,
            epoch.stream,
            epoch.stream_created_ns,
            to_sql(epoch.after),
            epoch.reason,
            epoch.at.0
        ],
    )?;
    let origin = transaction.last_insert_rowid();
    // Where the message before the epoch is known, the checkpoint recognises it like one that was read.
    let last = epoch.anchors.iter().find(|anchor| anchor.sequence == epoch.after);
    transaction.execute(
        "INSERT INTO _lantern_checkpoint (origin, sequence, published_ns, payload_sha256, anchors, committed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            origin,
            to_sql(epoch.after),
            last.map_or(0, |anchor| anchor.published_ns),
            last.map(|anchor| &anchor.payload_sha256[..]),
            anchors::encode(&epoch.anchors),
            epoch.at.0
        ],
    )?;
    let attached = attach(&transaction, &epoch.plugin, &epoch.source)?;
    transaction.commit()?;
    attached.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// Notes that the epoch's stream now has another name or creation time: its messages are those that were read. What an
/// operator was asked is decided by that.
pub(super) fn recognise(
    connection: &Connection,
    origin: OriginId,
    stream: &str,
    created_ns: i64,
) -> Result<(), rusqlite::Error> {
    // A promoted mirror has the same messages under another name.
    connection.execute(
        "INSERT INTO _lantern_forgotten_message (stream, sequence, published_ns, forgotten_at)
         SELECT ?2, f.sequence, f.published_ns, f.forgotten_at FROM _lantern_origin o
         JOIN _lantern_forgotten_message f ON f.stream = o.stream WHERE o.id = ?1 AND o.stream <> ?2
         ON CONFLICT DO NOTHING",
        params![origin.0, stream],
    )?;
    connection
        .execute(
            "UPDATE _lantern_origin
             SET stream = ?2, stream_created_ns = ?3, asked_created_ns = NULL, accepted = NULL WHERE id = ?1",
            params![origin.0, stream, created_ns],
        )
        .map(|_| ())
}

/// Notes that an operator has to decide whether the stream with this creation time is the epoch's, or that there is
/// nothing to decide any more.
pub(super) fn ask(
    connection: &Connection,
    origin: OriginId,
    stream_created_ns: Option<i64>,
) -> Result<(), rusqlite::Error> {
    connection
        .execute(
            "UPDATE _lantern_origin SET asked_created_ns = ?2, accepted = NULL WHERE id = ?1",
            params![origin.0, stream_created_ns],
        )
        .map(|_| ())
}

/// Notes an operator's decision. Returns the creation time of the stream that it is about; none when nothing is asked.
pub(super) fn accept(
    connection: &Connection,
    plugin: &str,
    source: &str,
    accepted: Accepted,
) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .query_row(
            "UPDATE _lantern_origin SET accepted = ?3
             WHERE asked_created_ns IS NOT NULL AND id =
                 (SELECT id FROM _lantern_origin WHERE plugin = ?1 AND source = ?2 ORDER BY epoch DESC LIMIT 1)
             RETURNING asked_created_ns",
            [plugin, source, accepted.as_str()],
            |row| row.get(0),
        )
        .optional()
}

/// How many rows one transaction removes; few enough that a commit behind it does not notice.
const EXPIRE_ROWS: i64 = 2_000;

/// Removes rows that are older than their table keeps them, a bounded number.
///
/// Returns how many; fewer than [`EXPIRE_ROWS`] for each table means that nothing is left to remove.
pub(super) fn expire(
    connection: &mut Connection,
    table: &Table,
    now: Timestamp,
) -> Result<u64, rusqlite::Error> {
    const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
    let (Some(days), Some(time)) = (table.retention_days, table.time_column()) else {
        return Ok(0);
    };
    let before = now.0.saturating_sub(i64::from(days).saturating_mul(DAY_US));
    let name = statement::quote(&table.name);
    let time = statement::quote(&time.name);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let removed = transaction.execute(
        &format!(
            "DELETE FROM {name} WHERE rowid IN (SELECT rowid FROM {name} WHERE {time} < ?1 LIMIT {EXPIRE_ROWS})"
        ),
        [before],
    )?;
    if removed > 0 {
        transaction.execute(
            "UPDATE _lantern_table SET rows_expired = rows_expired + ?2 WHERE name = ?1",
            params![table.name.as_str(), to_sql(removed as u64)],
        )?;
    }
    transaction.commit()?;
    Ok(removed as u64)
}
