//! Messages that were read in two epochs of a source, so that their rows are stored twice. A new epoch begins because
//! the stream is another one; a message with the same sequence, time and content in two epochs proves that it was the
//! same stream.

use crate::sql::{Connection, params};
use sha2::{Digest, Sha256};

use super::super::anchors;
use super::super::commit::{Anchor, Mark};
use super::super::segments::OriginTable;
use super::super::statement::{literal, quote_text};
use super::super::values::{from_sql, to_sql};
use super::{Report, count, strings};
use lantern_model::batch::Timestamp;

/// One epoch of a source, with the messages that were certainly read in it.
struct Epoch {
    id: i64,
    source: (String, String),
    number: u64,
    begins_after: u64,
    began_at: Timestamp,
    anchors: Vec<Anchor>,
}

/// Reports messages that were certainly read in two epochs, and notes equal rows that make it likely.
pub(super) fn check(connection: &Connection, report: &mut Report) -> Result<(), crate::sql::Error> {
    let epochs = epochs(connection)?;
    for of_source in epochs.chunk_by(|a, b| a.source == b.source) {
        for (index, later) in of_source.iter().enumerate() {
            for earlier in &of_source[..index] {
                compare(connection, earlier, later, report)?;
            }
        }
    }
    Ok(())
}

/// The epochs of all sources that read streams. The records of rebuilds are not epochs.
fn epochs(connection: &Connection) -> Result<Vec<Epoch>, crate::sql::Error> {
    let has_anchors = count(
        connection,
        "SELECT count(*) FROM pragma_table_info('_lantern_checkpoint') WHERE name = 'anchors'",
    )? > 0;
    let anchors = if has_anchors { "c.anchors" } else { "NULL" };
    let mut statement = connection.prepare(&format!(
        "SELECT o.id, o.plugin, o.source, o.epoch, o.begins_after, o.began_at, c.sequence, c.published_ns,
             c.payload_sha256, {anchors}
         FROM _lantern_origin o JOIN _lantern_checkpoint c ON c.origin = o.id
         WHERE o.stream IS NOT NULL AND o.plugin NOT LIKE '%#%' ORDER BY o.plugin, o.source, o.epoch"
    ))?;
    let rows = statement.query_map([], |row| {
        let checkpoint = Mark {
            sequence: row.get(6).map(from_sql)?,
            published_ns: row.get(7)?,
            payload_sha256: row.get(8)?,
        };
        let begins_after = row.get(4).map(from_sql)?;
        let mut anchors = anchors::decode(row.get(9)?, &checkpoint, 9)?;
        // The epoch before read the messages up to the start of this one.
        anchors.retain(|anchor| anchor.sequence > begins_after);
        Ok(Epoch {
            id: row.get(0)?,
            source: (row.get(1)?, row.get(2)?),
            number: row.get(3).map(from_sql)?,
            begins_after,
            began_at: row.get(5).map(Timestamp)?,
            anchors,
        })
    })?;
    rows.collect()
}

fn compare(
    connection: &Connection,
    earlier: &Epoch,
    later: &Epoch,
    report: &mut Report,
) -> Result<(), crate::sql::Error> {
    let (plugin, source) = &later.source;
    let place = format!(
        "{plugin}/{source}, epochs {} and {}",
        earlier.number, later.number
    );
    let tables = tables(connection, plugin)?;
    let (first, second) = (earlier.number, later.number);
    if let Some(message) = read_twice(connection, earlier, later)? {
        let both = rows_of_both(connection, &tables, earlier, later)?;
        report.problem(
            format!(
                "{place}: message {} (stored at {}) was read in both, so epoch {second} began although the stream was \
                 the same; {both} messages have rows in both",
                message.sequence,
                Timestamp(message.published_ns / 1_000).to_rfc3339(),
            ),
            format!(
                "restore a copy of the database from before {}, or, where the stream still holds all of its messages, \
                 remove the plugin with `lantern plugin remove {plugin} --drop-tables` and install it again",
                later.began_at.to_rfc3339(),
            ),
        );
        return Ok(());
    }
    let equal = equal_rows(connection, &tables, earlier, later)?;
    if equal > 0 {
        report.unverified.push(format!(
            "{place}: {equal} messages have the same rows in both. Either the same events were published again, or epoch \
             {second} began although the stream was that of epoch {first}; nothing that is stored proves which"
        ));
    }
    Ok(())
}

/// The newest message that was certainly read in both epochs.
fn read_twice(
    connection: &Connection,
    earlier: &Epoch,
    later: &Epoch,
) -> Result<Option<Anchor>, crate::sql::Error> {
    let mut common: Vec<Anchor> = earlier
        .anchors
        .iter()
        .filter(|anchor| later.anchors.contains(anchor))
        .copied()
        .collect();
    for (of, other) in [(earlier, later), (later, earlier)] {
        for anchor in &of.anchors {
            if other.begins_after < anchor.sequence && is_dead_letter(connection, other.id, anchor)? {
                common.push(*anchor);
            }
        }
    }
    common.extend(dead_letter_of_both(connection, earlier, later)?);
    Ok(common.into_iter().max_by_key(|anchor| anchor.sequence))
}

fn is_dead_letter(connection: &Connection, origin: i64, anchor: &Anchor) -> Result<bool, crate::sql::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT payload FROM _lantern_dead_letter WHERE origin = ?1 AND sequence = ?2 AND published_ns = ?3",
    )?;
    let mut rows = statement.query(params![origin, to_sql(anchor.sequence), anchor.published_ns])?;
    Ok(match rows.next()? {
        Some(row) => {
            let payload: Vec<u8> = row.get(0)?;
            anchor.payload_sha256 == <[u8; 32]>::from(Sha256::digest(payload))
        }
        None => false,
    })
}

fn dead_letter_of_both(
    connection: &Connection,
    earlier: &Epoch,
    later: &Epoch,
) -> Result<Option<Anchor>, crate::sql::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT a.sequence, a.published_ns, a.payload FROM _lantern_dead_letter a
         JOIN _lantern_dead_letter b ON b.origin = ?2 AND b.sequence = a.sequence
         WHERE a.origin = ?1 AND b.published_ns = a.published_ns AND b.payload = a.payload
         ORDER BY a.sequence DESC LIMIT 1",
    )?;
    let mut rows = statement.query([earlier.id, later.id])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let payload: Vec<u8> = row.get(2)?;
    Ok(Some(Anchor {
        sequence: row.get(0).map(from_sql)?,
        published_ns: row.get(1)?,
        payload_sha256: Sha256::digest(payload).into(),
    }))
}

fn tables(connection: &Connection, plugin: &str) -> Result<Vec<String>, crate::sql::Error> {
    connection
        .prepare("SELECT name FROM _lantern_table WHERE plugin = ?1 ORDER BY name")?
        .query_map([plugin], |row| row.get(0))?
        .collect()
}

/// The number of sequences with rows in both epochs.
fn rows_of_both(
    connection: &Connection,
    tables: &[String],
    earlier: &Epoch,
    later: &Epoch,
) -> Result<u64, crate::sql::Error> {
    let tables = OriginTable::find_all(connection, tables)?;
    let both = tables.iter().map(|table| {
        format!(
            "SELECT * FROM (SELECT t._sequence {} INTERSECT SELECT t._sequence {}) AS r",
            rows_of(table, earlier),
            rows_of(table, later)
        )
    });
    count_distinct(connection, both.collect())
}

/// The number of sequences with a row in both epochs whose plugin columns are equal.
fn equal_rows(
    connection: &Connection,
    tables: &[String],
    earlier: &Epoch,
    later: &Epoch,
) -> Result<u64, crate::sql::Error> {
    let mut equal = Vec::new();
    for table in tables {
        let columns = strings(
            connection,
            &format!(
                "SELECT name FROM pragma_table_info({}) WHERE name NOT IN ('_origin', '_sequence', '_row', '_rowid_')",
                literal(table)
            ),
        )?;
        let table = OriginTable::find(connection, table)?;
        let same: String = columns
            .iter()
            .map(|column| format!(" AND a.{0} IS NOT DISTINCT FROM b.{0}", quote_text(column)))
            .collect();
        // The rows are matched by their numbers in temporary tables, for which SQLite creates an index.
        equal.push(format!(
            "SELECT * FROM (WITH x AS MATERIALIZED (SELECT t._sequence, t._row, t._rowid_ AS id {}),
                 y AS MATERIALIZED (SELECT t._sequence, t._row, t._rowid_ AS id {})
             SELECT DISTINCT x._sequence FROM x JOIN y ON y._sequence = x._sequence AND y._row = x._row
             JOIN {name} AS a ON a._rowid_ = x.id JOIN {name} AS b ON b._rowid_ = y.id WHERE TRUE{same}) AS r",
            rows_of(&table, earlier),
            rows_of(&table, later),
            name = quote_text(&table.name)
        ));
    }
    count_distinct(connection, equal)
}

/// The `FROM` and `WHERE` clauses for the rows of an epoch, as `t`.
fn rows_of(table: &OriginTable, epoch: &Epoch) -> String {
    table.rows(&epoch.id.to_string(), "0", &i64::MAX.to_string())
}

fn count_distinct(connection: &Connection, selects: Vec<String>) -> Result<u64, crate::sql::Error> {
    if selects.is_empty() {
        return Ok(0);
    }
    count(
        connection,
        &format!("SELECT count(*) FROM ({}) AS r", selects.join(" UNION ")),
    )
}
