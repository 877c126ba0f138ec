//! The ledger and the tables in use before a rebuild: which messages were handled, and which rows the rebuild would not
//! produce again. It only reads.

use std::collections::BTreeMap;

use crate::sql::{Connection, params};

use super::super::commit::{Counts, OriginId};
use super::super::description::TableDescription;
use super::super::segments::{self, OriginTable};
use super::super::values::{from_sql, to_sql};
use super::{ReplayRange, carry, rows_outside};
use lantern_model::schema::{Manifest, ManifestDescription};

/// The state before a rebuild.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildSurvey {
    /// Every epoch of every source of the plugin.
    pub histories: Vec<SourceHistory>,
    /// Every table of the plugin.
    pub tables: Vec<TableSurvey>,
}

/// One epoch of one source in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceHistory {
    /// Its number in this database.
    pub origin: OriginId,
    /// The source's name.
    pub source: String,
    /// The number of the epoch; the first is 1.
    pub epoch: u64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The last sequence that took effect.
    pub checkpoint: u64,
    /// The ranges in order.
    pub ranges: Vec<SurveyedRange>,
    /// Messages that an operator had erased and that are gone from the stream, by sequence. The ledger counts them as dead.
    pub erased: Vec<u64>,
}

/// One range of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedRange {
    /// Its first sequence.
    pub first: u64,
    /// Its last sequence.
    pub last: u64,
    /// The version that handled it.
    pub digest: String,
    /// The subjects that the version read; none if its description was not stored.
    pub subjects: Option<Vec<String>>,
    /// The counts.
    pub counts: Counts,
    /// If the replay range begins inside this range: what is known of the part before it.
    pub head: Option<HeadBounds>,
}

/// Bounds for the number of messages in the first part of a range. The ledger counts whole ranges; rows and dead
/// letters show the position of most messages, and a message without either can lie in both parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadBounds {
    /// The messages that certainly lie there.
    pub min: u64,
    /// The most messages that can lie there.
    pub max: u64,
}

/// One table of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSurvey {
    /// Its name.
    pub table: String,
    /// Whether the rebuilding version declares it.
    pub declared: bool,
    /// Whether a write of any version updates stored rows.
    pub merges: bool,
    /// Rows from outside the replay range.
    pub outside: u64,
    /// Why these rows cannot be carried over without loss; empty if they can.
    pub obstacles: Vec<String>,
}

/// A table according to its stored description.
pub(super) struct StoredTable {
    pub(super) name: String,
    pub(super) updates: bool,
    pub(super) expired: u64,
    pub(super) description: TableDescription,
}

pub(super) fn survey(
    connection: &Connection,
    manifest: &Manifest,
    scopes: &[ReplayRange],
) -> Result<RebuildSurvey, crate::sql::Error> {
    let plugin = manifest.name.as_str();
    let mut tables = Vec::new();
    for stored in stored_tables(connection, plugin)? {
        let declared = manifest
            .tables
            .iter()
            .find(|table| table.name.as_str() == stored.name);
        let merges = stored.updates || declared.is_some_and(|table| segments::is_updated(manifest, table));
        let outside = rows_outside(connection, &stored.name, scopes)?;
        let obstacles = match declared {
            Some(table) if outside > 0 => {
                carry::obstacles(connection, &stored.description, table, scopes, outside)?
            }
            _ => Vec::new(),
        };
        tables.push(TableSurvey {
            declared: declared.is_some(),
            merges,
            outside,
            obstacles,
            table: stored.name,
        });
    }
    Ok(RebuildSurvey {
        histories: histories(connection, plugin, scopes)?,
        tables,
    })
}

pub(super) fn stored_tables(
    connection: &Connection,
    plugin: &str,
) -> Result<Vec<StoredTable>, crate::sql::Error> {
    connection
        .prepare(
            "SELECT name, updates, rows_expired, description FROM _lantern_table WHERE plugin = ?1 ORDER BY name",
        )?
        .query_map([plugin], |row| {
            Ok(StoredTable {
                name: row.get(0)?,
                updates: row.get(1)?,
                expired: row.get(2).map(from_sql)?,
                description: from_json(&row.get::<_, String>(3)?, 3)?,
            })
        })?
        .collect()
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str, column: usize) -> Result<T, crate::sql::Error> {
    serde_json::from_str(text).map_err(|error| crate::sql::Error::decode(column, error))
}

pub(super) fn histories(
    connection: &Connection,
    plugin: &str,
    scopes: &[ReplayRange],
) -> Result<Vec<SourceHistory>, crate::sql::Error> {
    let mut histories: Vec<SourceHistory> = connection
        .prepare(
            "SELECT o.id, o.source, o.epoch, o.stream, coalesce(c.sequence, o.begins_after)
             FROM _lantern_origin o LEFT JOIN _lantern_checkpoint c ON c.origin = o.id
             WHERE o.plugin = ?1 ORDER BY o.source, o.epoch",
        )?
        .query_map([plugin], |row| {
            Ok(SourceHistory {
                origin: OriginId(row.get(0)?),
                source: row.get(1)?,
                epoch: row.get(2).map(from_sql)?,
                stream: row.get(3)?,
                checkpoint: row.get(4).map(from_sql)?,
                ranges: Vec::new(),
                erased: Vec::new(),
            })
        })?
        .collect::<Result<_, _>>()?;
    let tables: Vec<String> = stored_tables(connection, plugin)?
        .into_iter()
        .map(|table| table.name)
        .collect();
    for history in &mut histories {
        history.ranges = ranges(connection, history)?;
        history.erased = erased(connection, history.origin)?;
        let scope = scopes.iter().find(|scope| scope.origin == history.origin);
        let Some(after) = scope.map(|scope| scope.after) else {
            continue;
        };
        let origin = history.origin;
        let mut ranges = history.ranges.iter_mut();
        if let Some(range) = ranges.find(|range| range.first <= after && range.last > after) {
            range.head = Some(head_bounds(connection, &tables, origin, range, after)?);
        }
    }
    Ok(histories)
}

/// Erased messages of an epoch that its stream no longer holds.
fn erased(connection: &Connection, origin: OriginId) -> Result<Vec<u64>, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT d.sequence FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
             WHERE d.origin = ?1 AND d.state = 'forgotten' AND NOT EXISTS (
                 SELECT 1 FROM _lantern_forgotten_message f WHERE f.stream = o.stream AND f.sequence = d.sequence
                     AND f.published_ns = d.published_ns AND f.deleted_at IS NULL)
             ORDER BY d.sequence",
        )?
        .query_map([origin.0], |row| row.get(0).map(from_sql))?
        .collect()
}

fn ranges(connection: &Connection, history: &SourceHistory) -> Result<Vec<SurveyedRange>, crate::sql::Error> {
    let mut subjects: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
    let mut statement = connection.prepare(
        "SELECT l.first_sequence, l.last_sequence, p.digest, p.description, l.messages, l.projected, l.skipped, l.dead,
                l.missing, l.rows, l.changed
         FROM _lantern_ledger l JOIN _lantern_plugin p ON p.id = l.plugin_version
         WHERE l.origin = ?1 ORDER BY l.first_sequence",
    )?;
    let mut rows = statement.query([history.origin.0])?;
    let mut ranges = Vec::new();
    while let Some(row) = rows.next()? {
        let digest: String = row.get(2)?;
        if !subjects.contains_key(&digest) {
            // A description that a newer host wrote and this one cannot parse counts as missing.
            let description = row
                .get::<_, Option<String>>(3)?
                .and_then(|text| serde_json::from_str::<ManifestDescription>(&text).ok());
            let source = description.and_then(|description| {
                let mut sources = description.sources.into_iter();
                sources.find(|source| source.name == history.source)
            });
            subjects.insert(digest.clone(), source.map(|source| source.subjects));
        }
        let number = |column: usize| row.get(column).map(from_sql);
        ranges.push(SurveyedRange {
            first: number(0)?,
            last: number(1)?,
            subjects: subjects.get(&digest).cloned().flatten(),
            digest,
            counts: Counts {
                messages: number(4)?,
                projected: number(5)?,
                skipped: number(6)?,
                dead: number(7)?,
                missing: number(8)?,
                rows: number(9)?,
                changed: number(10)?,
                ..Counts::default()
            },
            head: None,
        });
    }
    Ok(ranges)
}

fn head_bounds(
    connection: &Connection,
    tables: &[String],
    origin: OriginId,
    range: &SurveyedRange,
    after: u64,
) -> Result<HeadBounds, crate::sql::Error> {
    let head = traced(connection, tables, origin, range.first, after)?;
    let tail = traced(connection, tables, origin, after + 1, range.last)?;
    let untraced = range.counts.messages.saturating_sub(head + tail);
    let room = (after - range.first + 1).saturating_sub(missing(connection, origin, range.first, after)?);
    Ok(HeadBounds {
        min: head,
        max: (head + untraced).min(room).max(head),
    })
}

/// Messages from `first` to `last` that have rows or are dead letters.
fn traced(
    connection: &Connection,
    tables: &[String],
    origin: OriginId,
    first: u64,
    last: u64,
) -> Result<u64, crate::sql::Error> {
    let mut parts = sequences(connection, tables)?;
    parts.push(
        "SELECT sequence AS s FROM _lantern_dead_letter
         WHERE origin = ?1 AND sequence BETWEEN ?2 AND ?3 AND state <> 'resolved'"
            .to_owned(),
    );
    connection.query_row(
        &format!("SELECT count(*) FROM ({}) AS r", parts.join(" UNION ")),
        params![origin.0, to_sql(first), to_sql(last)],
        |row| row.get(0).map(from_sql),
    )
}

/// For each table, a statement that returns the sequences `s` of its rows of origin `?1` from `?2` to `?3`.
pub(super) fn sequences(
    connection: &Connection,
    tables: &[String],
) -> Result<Vec<String>, crate::sql::Error> {
    let tables = OriginTable::find_all(connection, tables)?;
    let each = tables
        .iter()
        .map(|table| format!("SELECT t._sequence AS s {}", table.rows("?1", "?2", "?3")));
    Ok(each.collect())
}

/// Sequences from `first` to `last` that were gone before the host read them.
pub(super) fn missing(
    connection: &Connection,
    origin: OriginId,
    first: u64,
    last: u64,
) -> Result<u64, crate::sql::Error> {
    connection.query_row(
        "SELECT coalesce(sum(min(last_sequence, ?3) - max(first_sequence, ?2) + 1), 0) FROM _lantern_gap
         WHERE origin = ?1 AND first_sequence <= ?3 AND last_sequence >= ?2",
        params![origin.0, to_sql(first), to_sql(last)],
        |row| row.get(0).map(from_sql),
    )
}

impl SourceHistory {
    /// The least and the most messages that the ledger counts after sequence `after`.
    pub fn handled_behind(&self, after: u64) -> (u64, u64) {
        let (mut least, mut most) = (0, 0);
        for range in self.ranges.iter().filter(|range| range.last > after) {
            let messages = range.counts.messages;
            let head = range.head.unwrap_or(HeadBounds { min: 0, max: 0 });
            least += messages.saturating_sub(head.max);
            most += messages.saturating_sub(head.min);
        }
        (least, most)
    }

    /// The number of erased messages after sequence `after` that are gone from the stream.
    pub fn erased_behind(&self, after: u64) -> u64 {
        self.erased.iter().filter(|sequence| **sequence > after).count() as u64
    }

    /// The number of messages in the ledger.
    pub fn handled(&self) -> u64 {
        self.ranges.iter().map(|range| range.counts.messages).sum()
    }

    /// The most messages with rows at or before sequence `after`, if `found` messages of this epoch lie after it.
    pub fn projected_before(&self, after: u64, found: u64) -> u64 {
        let before = self.ranges.iter().filter(|range| range.last <= after);
        let sure: u64 = before.map(|range| range.counts.projected).sum();
        let behind = self.ranges.iter().filter(|range| range.last > after);
        let all: u64 = behind.clone().map(|range| range.counts.messages).sum();
        let projected: u64 = behind.clone().map(|range| range.counts.projected).sum();
        // Erased messages have no rows; those at the beginning of a stream move its first sequence.
        let begins = behind.map(|range| range.first).min().unwrap_or(u64::MAX);
        let of_head = self
            .erased
            .iter()
            .filter(|sequence| (begins..=after).contains(*sequence));
        let erased = of_head.count() as u64;
        sure + all.saturating_sub(found + erased).min(projected)
    }
}

/// Whether every replayed range was first handled by the version that has replayed it.
pub(super) fn is_same_version(
    connection: &Connection,
    plugin: &str,
    scopes: &[ReplayRange],
    digest: &str,
) -> Result<bool, crate::sql::Error> {
    let histories = histories(connection, plugin, scopes)?;
    Ok(are_of_version(&histories, scopes, digest))
}

pub(super) fn are_of_version(histories: &[SourceHistory], scopes: &[ReplayRange], digest: &str) -> bool {
    histories.iter().all(|history| {
        let scope = scopes.iter().find(|scope| scope.origin == history.origin);
        let after = scope.map_or(u64::MAX, |scope| scope.after);
        let mut again = history.ranges.iter().filter(|range| range.last > after);
        again.all(|range| range.digest == digest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64, projected: u64, skipped: u64, head: Option<(u64, u64)>) -> SurveyedRange {
        SurveyedRange {
            first,
            last,
            digest: "sha256:0".into(),
            subjects: None,
            counts: Counts {
                messages: projected + skipped,
                projected,
                skipped,
                ..Counts::default()
            },
            head: head.map(|(min, max)| HeadBounds { min, max }),
        }
    }

    fn history(ranges: Vec<SurveyedRange>) -> SourceHistory {
        SourceHistory {
            origin: OriginId(1),
            source: "s".into(),
            epoch: 1,
            stream: Some("S".into()),
            checkpoint: ranges.last().map_or(0, |range| range.last),
            ranges,
            erased: Vec::new(),
        }
    }

    #[test]
    fn the_ledger_counts_the_messages_after_a_sequence() {
        let whole = history(vec![range(1, 10, 10, 0, None), range(11, 20, 5, 5, None)]);
        assert_eq!(whole.handled_behind(10), (10, 10));
        assert_eq!(whole.handled_behind(0), (20, 20));
        assert_eq!(whole.handled(), 20);
        let cut = history(vec![range(1, 10, 8, 2, Some((3, 5))), range(11, 20, 10, 0, None)]);
        assert_eq!(cut.handled_behind(5), (15, 17));
    }

    #[test]
    fn messages_with_rows_lie_before_a_sequence_unless_all_are_found_after_it() {
        // Messages of other subjects were trimmed: all messages of this source still exist.
        let one = history(vec![range(1, 10, 4, 1, Some((0, 5)))]);
        assert_eq!(one.projected_before(5, 5), 0);
        assert_eq!(one.projected_before(5, 3), 2);
        assert_eq!(one.projected_before(5, 0), 4);
        let mut erased = one.clone();
        erased.erased = vec![1, 2, 7];
        assert_eq!(erased.projected_before(5, 3), 0, "1 and 2 were erased");
        assert_eq!(erased.projected_before(5, 2), 1);
        let two = history(vec![range(1, 5, 0, 5, None), range(6, 10, 5, 0, None)]);
        assert_eq!(two.projected_before(5, 5), 0);
        assert_eq!(two.projected_before(10, 0), 5);
    }
}
