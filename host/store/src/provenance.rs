//! Where rows come from: from a row to its message and to the version that made it, and from a version to all that it
//! has made. It reads through a connection of its own, on a thread that may block, so that a long count is no burden
//! to the writer.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::apply::{from_sql, to_sql};
use super::commit::{Counts, OriginId, VersionId};
use super::description::TableDescription;
use super::shown::{ShownColumn, ShownRow, shown_row};
use super::statement::{ORIGIN_COLUMNS, quote_text};
use super::{Store, check};
use lantern_model::batch::{Delivery, Timestamp};
use lantern_model::schema::ColumnType;

/// Bytes of a value after which it is cut where a row is shown.
const VALUE_BYTES: usize = 64 << 10;

/// How a row is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowKey {
    /// The values of the primary key, or of a unique index, in the order of its columns.
    Values(Vec<String>),
    /// The host's own columns.
    Origin {
        /// `_origin`.
        origin: i64,
        /// `_sequence`.
        sequence: u64,
        /// `_row`.
        row: u64,
    },
}

impl RowKey {
    /// One word of three whole numbers, `ORIGIN:SEQUENCE:ROW`, is taken as the host's columns; anything else as values
    /// of a key.
    pub fn parse(words: &[String]) -> Self {
        Self::origin(words).unwrap_or_else(|| Self::Values(words.to_vec()))
    }

    fn origin(words: &[String]) -> Option<Self> {
        let [word] = words else {
            return None;
        };
        let mut numbers = word.split(':');
        let mut number = || numbers.next()?.parse::<u64>().ok();
        let (origin, sequence, row) = (number()?, number()?, number()?);
        numbers.next().is_none().then_some(Self::Origin {
            origin: i64::try_from(origin).ok()?,
            sequence,
            row,
        })
    }
}

/// Why it cannot be said where a row comes from.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    /// No plugin owns such a table.
    #[error("there is no table {0}")]
    NoTable(String),
    /// The key cannot be one of this table.
    #[error("table {table}: {problem}")]
    Key {
        /// The table.
        table: String,
        /// What is wrong.
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
        /// What was asked for.
        version: String,
    },
    /// The database cannot be read.
    #[error("the database cannot be read: {0}")]
    Unavailable(String),
}

impl From<rusqlite::Error> for ProvenanceError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// One history of a source, as a range or a row refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// Its number in this database.
    pub origin: OriginId,
    /// The source's name.
    pub source: String,
    /// Which of its histories.
    pub epoch: u64,
    /// Whether that is the present one.
    pub present: bool,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// When the broker says that the stream was created.
    pub stream_created_ns: Option<i64>,
}

/// A row with where it comes from.
#[derive(Clone, Debug)]
pub struct TracedRow {
    /// The plugin that owns the table.
    pub plugin: String,
    /// The row's own columns.
    pub row: ShownRow,
    /// Its history.
    pub lineage: Lineage,
    /// The sequence of the message that wrote it last.
    pub sequence: u64,
    /// Its number among that message's rows.
    pub row_number: u64,
    /// The version that made it; none where the ledger does not know.
    pub version: Option<String>,
    /// That version's digest.
    pub digest: Option<String>,
    /// Whether its message was a dead letter first; then the message as it was kept.
    pub letter: Option<Delivery>,
    /// Whether writes of this table change rows that are there already.
    pub merges: bool,
}

/// A range of the ledger that names a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerSpan {
    /// Its history.
    pub lineage: Lineage,
    /// The first sequence.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// What became of them.
    pub counts: Counts,
    /// When its first batch was stored.
    pub first_at: Timestamp,
    /// When its last one was.
    pub last_at: Timestamp,
}

/// What a version has made, as the database says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionWork {
    /// Its number in this database.
    pub version: VersionId,
    /// The version that it says it is.
    pub name: String,
    /// Its ranges, in order.
    pub spans: Vec<LedgerSpan>,
    /// Dead letters of any range that it has resolved.
    pub healed: u64,
}

impl Store {
    /// Where a row of a table comes from.
    ///
    /// # Errors
    /// See [`ProvenanceError`].
    pub async fn trace_row(&self, table: &str, key: RowKey) -> Result<TracedRow, ProvenanceError> {
        let table = table.to_owned();
        self.look(move |connection| trace_row(connection, &table, &key))
            .await
    }

    /// What a version has made.
    ///
    /// # Errors
    /// See [`ProvenanceError`].
    pub async fn work_of(&self, plugin: &str, digest: &str) -> Result<VersionWork, ProvenanceError> {
        let (plugin, digest) = (plugin.to_owned(), digest.to_owned());
        self.look(move |connection| work_of(connection, &plugin, &digest))
            .await
    }

    /// How many rows of a range each of the plugin's tables holds.
    ///
    /// # Errors
    /// See [`ProvenanceError`].
    pub async fn rows_of(
        &self,
        plugin: &str,
        origin: OriginId,
        first: u64,
        last: u64,
    ) -> Result<BTreeMap<String, u64>, ProvenanceError> {
        let plugin = plugin.to_owned();
        self.look(move |connection| rows_of(connection, &plugin, origin, first, last))
            .await
    }

    /// The tables of a plugin whose writes change rows that are there already.
    ///
    /// # Errors
    /// See [`ProvenanceError`].
    pub async fn merging_tables(&self, plugin: &str) -> Result<Vec<String>, ProvenanceError> {
        let plugin = plugin.to_owned();
        self.look(move |connection| {
            let mut statement = connection.prepare(
                "SELECT name FROM _lantern_table WHERE plugin = ?1 AND updates <> 0 ORDER BY name",
            )?;
            let names = statement.query_map([plugin], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// A question on a connection that can only read.
    pub(super) async fn look<T: Send + 'static, E: From<rusqlite::Error> + Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let path = self.path().to_owned();
        let work = tokio::task::spawn_blocking(move || {
            let connection = check::open(&path)?;
            // One snapshot for all of it.
            connection.execute_batch("BEGIN")?;
            question(&connection)
        });
        match work.await {
            Ok(answer) => answer,
            // The host panicked while it asked; the caller hears it as what could not be read.
            Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error)).into()),
        }
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
    let columns: Vec<ShownColumn> = description.columns.iter().map(ShownColumn::from).collect();
    let names: Vec<String> = columns.iter().map(|column| quote_text(&column.name)).collect();
    let mut found = None;
    for (key, values) in keys(table, &description, key)? {
        let conditions: Vec<String> = (1..)
            .zip(&key)
            .map(|(number, column)| format!("{} = ?{number}", quote_text(column)))
            .collect();
        let sql = format!(
            "SELECT {}, {} FROM {} WHERE {}",
            ORIGIN_COLUMNS.join(", "),
            names.join(", "),
            quote_text(table),
            conditions.join(" AND ")
        );
        found = connection
            .query_row(&sql, rusqlite::params_from_iter(values), |row| {
                let stamp = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((stamp, shown_row(row, 3, &columns, VALUE_BYTES)?))
            })
            .optional()?;
        if found.is_some() {
            break;
        }
    }
    let ((origin, sequence, row_number), row) =
        found.ok_or_else(|| ProvenanceError::NoRow(table.to_owned()))?;
    let (lineage, sequence) = (lineage(connection, OriginId(origin))?, from_sql(sequence));
    let letter = resolved_letter(connection, lineage.origin, sequence)?;
    let (maker, letter) = match letter {
        Some((maker, letter)) => (Some(maker), Some(letter)),
        None => (ledger_version(connection, lineage.origin, sequence)?, None),
    };
    let (version, digest) = maker.unzip();
    Ok(TracedRow {
        plugin,
        row,
        lineage,
        sequence,
        row_number: from_sql(row_number),
        version,
        digest,
        letter,
        merges,
    })
}

type KeyValues = (Vec<String>, Vec<Value>);

/// The keys that the words may mean, with the values to look for.
fn keys(
    table: &str,
    description: &TableDescription,
    key: &RowKey,
) -> Result<Vec<KeyValues>, ProvenanceError> {
    let words = match key {
        RowKey::Origin {
            origin,
            sequence,
            row,
        } => {
            let values = [*origin, to_sql(*sequence), to_sql(*row)].map(Value::Integer);
            return Ok(vec![(
                ORIGIN_COLUMNS.map(str::to_owned).to_vec(),
                values.to_vec(),
            )]);
        }
        RowKey::Values(words) => words,
    };
    let problem = |problem: String| ProvenanceError::Key {
        table: table.to_owned(),
        problem,
    };
    let unique = description.indexes.iter().filter(|index| index.unique);
    let all: Vec<&Vec<String>> = std::iter::once(&description.primary_key)
        .chain(unique.map(|index| &index.columns))
        .filter(|columns| !columns.is_empty())
        .collect();
    let mut possible = Vec::new();
    let mut problems = Vec::new();
    for columns in all.iter().filter(|columns| columns.len() == words.len()) {
        match values(description, columns, words) {
            Ok(values) => possible.push(((*columns).clone(), values)),
            Err(reason) => problems.push(reason),
        }
    }
    if !possible.is_empty() {
        return Ok(possible);
    }
    if problems.is_empty() {
        let all: Vec<String> = all.iter().map(|key| format!("({})", key.join(", "))).collect();
        problems.push(if all.is_empty() {
            "it has no key; name the row as ORIGIN:SEQUENCE:ROW".to_owned()
        } else {
            format!(
                "its keys are {}, and {} values were given",
                all.join(" and "),
                words.len()
            )
        });
    }
    Err(problem(problems.join("; ")))
}

fn values(
    description: &TableDescription,
    columns: &[String],
    words: &[String],
) -> Result<Vec<Value>, String> {
    let pairs = columns.iter().zip(words);
    pairs
        .map(|(name, word)| {
            let column = description.columns.iter().find(|column| column.name == *name);
            let column_type = column.map_or(ColumnType::Text, |column| column.column_type);
            value(column_type, word).ok_or_else(|| format!("{word:?} is no {column_type} (column {name})"))
        })
        .collect()
}

/// A word as the column stores it. A key of bytes cannot be typed; such a row is named by its origin.
fn value(column_type: ColumnType, word: &str) -> Option<Value> {
    match column_type {
        ColumnType::Text | ColumnType::Json => Some(Value::Text(word.to_owned())),
        ColumnType::Integer => word.parse().ok().map(Value::Integer),
        ColumnType::Real => word.parse().ok().map(Value::Real),
        ColumnType::Boolean => match word {
            "true" | "1" => Some(Value::Integer(1)),
            "false" | "0" => Some(Value::Integer(0)),
            _ => None,
        },
        ColumnType::Timestamp => Timestamp::parse_rfc3339(word)
            .map(|time| time.0)
            .or_else(|| word.parse().ok())
            .map(Value::Integer),
        ColumnType::Blob => None,
    }
}

fn lineage(connection: &Connection, origin: OriginId) -> Result<Lineage, rusqlite::Error> {
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

/// The version that healed the dead letter which a message was, and the message.
fn resolved_letter(
    connection: &Connection,
    origin: OriginId,
    sequence: u64,
) -> Result<Option<(Maker, Delivery)>, rusqlite::Error> {
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
) -> Result<Option<Maker>, rusqlite::Error> {
    connection
        .query_row(
            "SELECT p.version, p.digest FROM _lantern_ledger l JOIN _lantern_plugin p ON p.id = l.plugin_version
             WHERE l.origin = ?1 AND l.first_sequence <= ?2 AND l.last_sequence >= ?2",
            params![origin.0, to_sql(sequence)],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
}

fn work_of(connection: &Connection, plugin: &str, digest: &str) -> Result<VersionWork, ProvenanceError> {
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
            counts: counts(row, 3)?,
            first_at: Timestamp(row.get(12)?),
            last_at: Timestamp(row.get(13)?),
        });
    }
    let healed = connection.query_row(
        "SELECT count(*) FROM _lantern_dead_letter WHERE state = 'resolved' AND resolved_by = ?1",
        [id],
        |row| row.get(0).map(from_sql),
    )?;
    Ok(VersionWork {
        version: VersionId(id),
        name,
        spans,
        healed,
    })
}

/// The counts of a range, from column number `first` on.
pub(super) fn counts(row: &Row<'_>, first: usize) -> Result<Counts, rusqlite::Error> {
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

fn rows_of(
    connection: &Connection,
    plugin: &str,
    origin: OriginId,
    first: u64,
    last: u64,
) -> Result<BTreeMap<String, u64>, ProvenanceError> {
    let mut tables = BTreeMap::new();
    for table in tables_of(connection, plugin)? {
        let rows = connection.query_row(
            &format!(
                "SELECT count(*) FROM {} WHERE _origin = ?1 AND _sequence BETWEEN ?2 AND ?3",
                quote_text(&table)
            ),
            params![origin.0, to_sql(first), to_sql(last)],
            |row| row.get(0).map(from_sql),
        )?;
        tables.insert(table, rows);
    }
    Ok(tables)
}

/// The names of a plugin's tables.
pub(super) fn tables_of(connection: &Connection, plugin: &str) -> Result<Vec<String>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT name FROM _lantern_table WHERE plugin = ?1 ORDER BY name")?
        .query_map([plugin], |row| row.get(0))?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_named_by_its_origin_or_by_values() {
        let parse = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            RowKey::parse(&words)
        };
        let origin = |origin, sequence, row| RowKey::Origin {
            origin,
            sequence,
            row,
        };
        assert_eq!(parse(&["1:22:0"]), origin(1, 22, 0));
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
