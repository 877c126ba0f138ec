//! Which messages the plugins of a database have handled.

use std::path::Path;

use crate::sql::{Connection, OptionalExtension as _};

use super::{DeepPlugin, DeepRange, DeepSource, DeepTable};
use crate::check::{self, CheckError};
use crate::commit::{Mark, OriginId};
use crate::forget::ForgottenValues;
use crate::provenance::counts;
use crate::values::from_sql;

/// The plugins and the messages that they handled.
///
/// # Errors
/// As for [`check::check`].
pub fn survey(path: &Path) -> Result<Vec<DeepPlugin>, CheckError> {
    let connection = check::open(path)?;
    // One snapshot for all reads.
    connection.execute_batch("BEGIN")?;
    let names: Vec<String> = connection
        .prepare("SELECT DISTINCT plugin FROM _lantern_table ORDER BY plugin")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    names.into_iter().map(|name| plugin(&connection, name)).collect()
}

fn plugin(connection: &Connection, name: String) -> Result<DeepPlugin, CheckError> {
    let settings: Option<String> = connection
        .query_row(
            "SELECT settings FROM _lantern_installation WHERE plugin = ?1",
            [&name],
            |row| row.get(0),
        )
        .optional()?;
    let any = |state: &str| {
        connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
                 WHERE o.plugin = ?1 AND d.state = ?2)",
            [name.as_str(), state],
            |row| row.get(0),
        )
    };
    let resolved = any("resolved")?;
    let erased = any("forgotten")? || !ForgottenValues::load(connection, &name, i64::MIN)?.is_empty();
    Ok(DeepPlugin {
        settings: settings.unwrap_or_else(|| "{}".to_owned()),
        tables: tables(connection, &name)?,
        sources: sources(connection, &name)?,
        resolved,
        erased,
        name,
    })
}

fn tables(connection: &Connection, plugin: &str) -> Result<Vec<DeepTable>, crate::sql::Error> {
    let mut statement = connection.prepare(
        "SELECT t.name, t.updates, t.rows_expired, t.description FROM _lantern_table t
         JOIN sqlite_schema s ON s.type = 'table' AND s.name = t.name WHERE t.plugin = ?1 ORDER BY t.name",
    )?;
    let found = statement.query_map([plugin], |row| {
        let description: String = row.get(3)?;
        let description =
            serde_json::from_str(&description).map_err(|error| crate::sql::Error::decode(3, error))?;
        Ok(DeepTable {
            name: row.get(0)?,
            merges: row.get(1)?,
            expired: row.get(2).map(from_sql)?,
            description,
        })
    })?;
    found.collect()
}

fn sources(connection: &Connection, plugin: &str) -> Result<Vec<DeepSource>, crate::sql::Error> {
    let mut statement = connection.prepare(
        "SELECT o.id, o.source, o.epoch, o.stream, o.stream_created_ns,
                o.epoch = (SELECT max(epoch) FROM _lantern_origin p
                           WHERE p.plugin = o.plugin AND p.source = o.source),
                c.sequence, c.published_ns, c.payload_sha256
         FROM _lantern_origin o JOIN _lantern_checkpoint c ON c.origin = o.id
         WHERE o.plugin = ?1 ORDER BY o.source, o.epoch",
    )?;
    let found = statement.query_map([plugin], |row| {
        let digest: Option<Vec<u8>> = row.get(8)?;
        Ok(DeepSource {
            origin: OriginId(row.get(0)?),
            source: row.get(1)?,
            epoch: row.get(2).map(from_sql)?,
            stream: row.get(3)?,
            stream_created_ns: row.get(4)?,
            present: row.get(5)?,
            checkpoint: Mark {
                sequence: row.get(6).map(from_sql)?,
                published_ns: row.get(7)?,
                payload_sha256: digest.and_then(|digest| digest.try_into().ok()),
            },
            ranges: Vec::new(),
        })
    })?;
    let mut sources: Vec<DeepSource> = found.collect::<Result<_, _>>()?;
    let mut ranges = connection.prepare(
        "SELECT p.digest, l.first_sequence, l.last_sequence, l.messages, l.projected, l.skipped, l.dead, l.missing,
                l.rows, l.changed, l.inserted, l.updated
         FROM _lantern_ledger l JOIN _lantern_plugin p ON p.id = l.plugin_version
         WHERE l.origin = ?1 ORDER BY l.first_sequence",
    )?;
    for source in &mut sources {
        let found = ranges.query_map([source.origin.0], |row| {
            Ok(DeepRange {
                digest: row.get(0)?,
                first: row.get(1).map(from_sql)?,
                last: row.get(2).map(from_sql)?,
                counts: counts(row, 3)?,
            })
        })?;
        source.ranges = found.collect::<Result<_, _>>()?;
    }
    Ok(sources)
}
