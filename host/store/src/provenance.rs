//! The origin of rows: from a row to its message and to the version that wrote it, and from a version to everything that
//! it wrote.

mod keys;

use std::collections::BTreeMap;

use crate::sql::{Connection, OptionalExtension as _, Row, params};

use super::commit::{Counts, OriginId, VersionId};
use super::description::TableDescription;
use super::read_error::ReadError;
use super::reader::Reader;
use super::row_view::{RowView, ViewColumn, row_view};
use super::segments::OriginTable;
use super::statement::{ORIGIN_COLUMNS, quote_text};
use super::values::{from_sql, to_sql};
use lantern_model::batch::{Delivery, Timestamp};
use lantern_model::identity::RowIdentity;

use keys::keys;

/// Bytes after which a displayed value is truncated.
const VALUE_BYTES: usize = 64 << 10;

/// How a user names a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowKey {
    /// The values of the primary key, or of a unique index, in the order of its columns.
    Values(Vec<String>),
    /// The identity of the row.
    Identity(RowIdentity),
}

impl RowKey {
    /// A single argument in the form of a row identity names the row by it; anything else by the values of a key.
    pub fn parse(words: &[String]) -> Self {
        let identity = match words {
            [word] => RowIdentity::parse(word).ok(),
            _ => None,
        };
        identity.map_or_else(|| Self::Values(words.to_vec()), Self::Identity)
    }
}

/// Why the origin of a row cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    /// No plugin owns a table of this name.
    #[error("there is no table {0}")]
    NoTable(String),
    /// The key does not fit the table.
    #[error("table {table}: {problem}")]
    Key {
        /// The table.
        table: String,
        /// Why not.
        problem: String,
    },
    /// No row has this key.
    #[error("table {0} has no such row")]
    NoRow(String),
    /// The plugin has no such version.
    #[error("plugin {plugin} has no version {version}")]
    NoVersion {
        /// The plugin.
        plugin: String,
        /// The digest of the version.
        version: String,
    },
    /// The database cannot be read.
    #[error("the database cannot be read: {0}")]
    Unavailable(String),
}

impl From<crate::sql::Error> for ProvenanceError {
    fn from(error: crate::sql::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ReadError> for ProvenanceError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.with_cause())
    }
}

/// One epoch of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// Its number in this database.
    pub origin: OriginId,
    /// The source's name.
    pub source: String,
    /// The number of the epoch.
    pub epoch: u64,
    /// Whether it is the epoch in use.
    pub present: bool,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// When the broker created the stream.
    pub stream_created_ns: Option<i64>,
}

/// A row with its origin.
#[derive(Clone, Debug)]
pub struct TracedRow {
    /// The plugin that owns the table.
    pub plugin: String,
    /// Its identity.
    pub id: RowIdentity,
    /// The row's own columns.
    pub row: RowView,
    /// Its epoch.
    pub lineage: Lineage,
    /// The sequence of the message that last wrote it.
    pub sequence: u64,
    /// The version that wrote it; none if the ledger does not record it.
    pub version: Option<String>,
    /// The digest of that version.
    pub digest: Option<String>,
    /// The message as stored, if it was a dead letter before.
    pub dead_letter: Option<Delivery>,
    /// Whether writes of this table update stored rows.
    pub merges: bool,
}

/// A ledger range that names a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerSpan {
    /// Its epoch.
    pub lineage: Lineage,
    /// The first sequence.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Its counts.
    pub counts: Counts,
    /// When its first batch was committed.
    pub first_at: Timestamp,
    /// When its last batch was committed.
    pub last_at: Timestamp,
}

/// Everything that a version handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionWork {
    /// Its number in this database.
    pub version: VersionId,
    /// Its declared version number.
    pub name: String,
    /// Its ranges, in order.
    pub spans: Vec<LedgerSpan>,
    /// Dead letters of any range that it resolved.
    pub resolved: u64,
}

impl Reader {
    /// The origin of a row of a table.
    ///
    /// # Errors
    /// See [`ProvenanceError`].
    pub async fn trace_row(&self, table: &str, key: RowKey) -> Result<TracedRow, ProvenanceError> {
        let table = table.to_owned();
        self.long_snapshot(move |connection| trace_row(connection, &table, &key))
            .await
    }

    /// The ledger ranges and dead letters that a version handled.
    ///
    /// # Errors
    /// See [`ProvenanceError`].
    pub async fn version_work(&self, plugin: &str, digest: &str) -> Result<VersionWork, ProvenanceError> {
        let (plugin, digest) = (plugin.to_owned(), digest.to_owned());
        self.long_snapshot(move |connection| version_work(connection, &plugin, &digest))
            .await
    }

    /// The number of rows of a range in each of the plugin's tables.
    ///
    /// # Errors
    /// See [`ProvenanceError`].
    pub async fn count_rows_of_range(
        &self,
        plugin: &str,
        origin: OriginId,
        first: u64,
        last: u64,
    ) -> Result<BTreeMap<String, u64>, ProvenanceError> {
        let plugin = plugin.to_owned();
        self.long_snapshot(move |connection| count_rows_of_range(connection, &plugin, origin, first, last))
            .await
    }

    /// The tables of a plugin whose writes update stored rows.
    ///
    /// # Errors
    /// See [`ProvenanceError`].
    pub async fn merging_tables(&self, plugin: &str) -> Result<Vec<String>, ProvenanceError> {
        let plugin = plugin.to_owned();
        self.snapshot(move |connection| {
            let mut statement = connection.prepare(
                "SELECT name FROM _lantern_table WHERE plugin = ?1 AND updates <> 0 ORDER BY name",
            )?;
            let names = statement.query_map([plugin], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn trace_row(connection: &Connection, table: &str, key: &RowKey) -> Result<TracedRow, ProvenanceError> {
    let found: Option<(String, String, bool)> = connection
        .query_row(
            "SELECT plugin, description, updates FROM _lantern_table WHERE name = ?1",
            [table],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let (plugin, description, merges) = found.ok_or_else(|| ProvenanceError::NoTable(table.to_owned()))?;
    let description: TableDescription = serde_json::from_str(&description)
        .map_err(|error| ProvenanceError::Unavailable(error.to_string()))?;
    let columns: Vec<ViewColumn> = description.columns.iter().map(ViewColumn::from).collect();
    let names: Vec<String> = columns.iter().map(|column| quote_text(&column.name)).collect();
    let stored = OriginTable::find(connection, table)?;
    let mut found = None;
    for (key, values) in keys(table, &description, key)? {
        let sql = format!(
            "SELECT {}, {} {}",
            ORIGIN_COLUMNS.join(", "),
            names.join(", "),
            rows_with_key(&stored, &key)
        );
        found = connection
            .query_row(&sql, crate::sql::from_iter(values), |row| {
                let id = RowIdentity {
                    origin: row.get(0)?,
                    sequence: row.get(1)?,
                    row: row.get(2)?,
                };
                Ok((id, row_view(row, 3, &columns, VALUE_BYTES)?))
            })
            .optional()?;
        if found.is_some() {
            break;
        }
    }
    let (id, row) = found.ok_or_else(|| ProvenanceError::NoRow(table.to_owned()))?;
    let (lineage, sequence) = (lineage(connection, OriginId(id.origin))?, from_sql(id.sequence));
    let dead_letter = resolved_dead_letter(connection, lineage.origin, sequence)?;
    let (maker, dead_letter) = match dead_letter {
        Some((maker, dead_letter)) => (Some(maker), Some(dead_letter)),
        None => (ledger_version(connection, lineage.origin, sequence)?, None),
    };
    let (version, digest) = maker.unzip();
    Ok(TracedRow {
        plugin,
        id,
        row,
        lineage,
        sequence,
        version,
        digest,
        dead_letter,
        merges,
    })
}

/// The `FROM` and `WHERE` clauses for the rows with a key; its values are the parameters.
fn rows_with_key(table: &OriginTable, key: &[String]) -> String {
    if key == ORIGIN_COLUMNS {
        return format!("{} AND t._row = ?3", table.rows("?1", "?2", "?2"));
    }
    let conditions = (1..).zip(key);
    let conditions: Vec<String> = conditions
        .map(|(number, column)| format!("{} = ?{number}", quote_text(column)))
        .collect();
    format!(
        "FROM {} WHERE {}",
        quote_text(&table.name),
        conditions.join(" AND ")
    )
}

fn lineage(connection: &Connection, origin: OriginId) -> Result<Lineage, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT o.source, o.epoch, o.stream, o.stream_created_ns,
                    o.epoch = (SELECT max(epoch) FROM _lantern_origin p
                               WHERE p.plugin = o.plugin AND p.source = o.source)
             FROM _lantern_origin o WHERE o.id = ?1",
        )?
        .query_row([origin.0], |row| {
            Ok(Lineage {
                origin,
                source: row.get(0)?,
                epoch: row.get(1).map(from_sql)?,
                stream: row.get(2)?,
                stream_created_ns: row.get(3)?,
                present: row.get(4)?,
            })
        })
}

type Maker = (String, String);

/// The version that resolved the dead letter of a message, and the message.
fn resolved_dead_letter(
    connection: &Connection,
    origin: OriginId,
    sequence: u64,
) -> Result<Option<(Maker, Delivery)>, crate::sql::Error> {
    connection
        .query_row(
            "SELECT p.version, p.digest, d.subject, d.published_ns, d.headers, d.payload
             FROM _lantern_dead_letter d JOIN _lantern_plugin p ON p.id = d.resolved_by
             WHERE d.origin = ?1 AND d.sequence = ?2 AND d.state = 'resolved'",
            params![origin.0, to_sql(sequence)],
            |row| {
                let headers: String = row.get(4)?;
                let delivery = Delivery {
                    subject: row.get(2)?,
                    sequence,
                    published_ns: row.get(3)?,
                    headers: serde_json::from_str(&headers).unwrap_or_default(),
                    payload: row.get::<_, Vec<u8>>(5)?.into(),
                };
                Ok(((row.get(0)?, row.get(1)?), delivery))
            },
        )
        .optional()
}

fn ledger_version(
    connection: &Connection,
    origin: OriginId,
    sequence: u64,
) -> Result<Option<Maker>, crate::sql::Error> {
    connection
        .query_row(
            "SELECT p.version, p.digest FROM _lantern_ledger l JOIN _lantern_plugin p ON p.id = l.plugin_version
             WHERE l.origin = ?1 AND l.first_sequence <= ?2 AND l.last_sequence >= ?2",
            params![origin.0, to_sql(sequence)],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
}

fn version_work(connection: &Connection, plugin: &str, digest: &str) -> Result<VersionWork, ProvenanceError> {
    let found: Option<(i64, String)> = connection
        .query_row(
            "SELECT id, version FROM _lantern_plugin WHERE name = ?1 AND digest = ?2",
            [plugin, digest],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let (id, name) = found.ok_or_else(|| ProvenanceError::NoVersion {
        plugin: plugin.to_owned(),
        version: digest.to_owned(),
    })?;
    let mut statement = connection.prepare(
        "SELECT origin, first_sequence, last_sequence, messages, projected, skipped, dead, missing, rows, changed,
                inserted, updated, first_at, last_at
         FROM _lantern_ledger WHERE plugin_version = ?1 ORDER BY origin, first_sequence",
    )?;
    let mut spans = Vec::new();
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        spans.push(LedgerSpan {
            lineage: lineage(connection, OriginId(row.get(0)?))?,
            first: row.get(1).map(from_sql)?,
            last: row.get(2).map(from_sql)?,
            counts: counts(&row, 3)?,
            first_at: Timestamp(row.get(12)?),
            last_at: Timestamp(row.get(13)?),
        });
    }
    let resolved = connection.query_row(
        "SELECT count(*) FROM _lantern_dead_letter WHERE state = 'resolved' AND resolved_by = ?1",
        [id],
        |row| row.get(0).map(from_sql),
    )?;
    Ok(VersionWork {
        version: VersionId(id),
        name,
        spans,
        resolved,
    })
}

/// The counts of a range, from column number `first` on.
pub(super) fn counts(row: &Row<'_>, first: usize) -> Result<Counts, crate::sql::Error> {
    let number = |offset: usize| row.get::<_, i64>(first + offset).map(from_sql);
    Ok(Counts {
        messages: number(0)?,
        projected: number(1)?,
        skipped: number(2)?,
        dead: number(3)?,
        missing: number(4)?,
        rows: number(5)?,
        changed: number(6)?,
        inserted: number(7)?,
        updated: number(8)?,
    })
}

fn count_rows_of_range(
    connection: &Connection,
    plugin: &str,
    origin: OriginId,
    first: u64,
    last: u64,
) -> Result<BTreeMap<String, u64>, ProvenanceError> {
    let mut tables = BTreeMap::new();
    for table in tables_of(connection, plugin)? {
        let rows = table.count(connection, origin, first, last)?;
        tables.insert(table.name, rows);
    }
    Ok(tables)
}

/// The tables of a plugin.
pub(super) fn tables_of(
    connection: &Connection,
    plugin: &str,
) -> Result<Vec<OriginTable>, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT t.name, s.id FROM _lantern_table t LEFT JOIN _lantern_segments s ON s.table_name = t.name
             WHERE t.plugin = ?1 ORDER BY t.name",
        )?
        .query_map([plugin], |row| {
            Ok(OriginTable {
                name: row.get(0)?,
                set: row.get(1)?,
            })
        })?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::keys::value;
    use super::*;
    use lantern_model::schema::ColumnType;
    use rusqlite::types::Value;

    #[test]
    fn a_row_is_named_by_its_origin_or_by_values() {
        let parse = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            RowKey::parse(&words)
        };
        let identity = RowIdentity {
            origin: 1,
            sequence: 22,
            row: 0,
        };
        assert_eq!(parse(&["1:22:0"]), RowKey::Identity(identity));
        for words in [
            &["1:2"][..],
            &["1:2:3:4"],
            &["1:x:0"],
            &["1:2:3", "4"],
            &["-1:2:3"],
        ] {
            assert!(matches!(parse(words), RowKey::Values(_)), "{words:?}");
        }
        assert_eq!(value(ColumnType::Boolean, "yes"), None);
        assert_eq!(
            value(ColumnType::Timestamp, "1970-01-01T00:00:01Z"),
            Some(Value::Integer(1_000_000))
        );
    }
}
