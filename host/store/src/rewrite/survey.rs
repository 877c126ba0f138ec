//! What is looked at before messages are projected again: the range as the ledger has it, and what stands between the
//! messages that were read. It only reads.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::split::Known;
use crate::ProvenanceError;
use crate::apply::{from_sql, to_sql};
use crate::commit::{Counts, OriginId, VersionId};
use crate::provenance::{counts, tables_of};
use crate::statement::quote_text;

/// A range as it stands in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) id: i64,
    pub(super) last: u64,
    pub(super) counts: Counts,
    pub(super) first_at: i64,
    pub(super) last_at: i64,
}

/// A part of what is settled: entries of the batch with what is between them, or sequences that have left something
/// and are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) missing: u64,
    /// The entries, by number; none where nothing was read.
    pub(super) entries: std::ops::Range<usize>,
    /// What those that are gone have left.
    pub(super) left: Known,
}

/// What was found before the transaction.
pub(super) struct Survey {
    pub(super) range: Range,
    pub(super) pieces: Vec<Piece>,
}

pub(super) struct Question {
    pub(super) origin: OriginId,
    pub(super) bad: VersionId,
    pub(super) first: u64,
    pub(super) through: u64,
    pub(super) sequences: Vec<u64>,
}

/// Looks at the range, and at what stands between the messages that were read.
pub(super) fn survey(
    connection: &Connection,
    plugin: &str,
    question: &Question,
) -> Result<Option<Survey>, ProvenanceError> {
    let Some(range) = range(connection, question.origin, question.bad, question.first)? else {
        return Ok(None);
    };
    if question.through > range.last {
        return Ok(None);
    }
    let look = Look {
        connection,
        origin: question.origin,
        tables: tables_of(connection, plugin)?,
    };
    let mut pieces = Vec::new();
    // The piece that grows: where it begins, and its first entry.
    let (mut from, mut entry) = (question.first, 0);
    let mut next = question.first;
    let ends = question.sequences.iter().copied().chain([question.through + 1]);
    for (number, sequence) in ends.enumerate() {
        if sequence > next {
            let left = look.left(next, sequence - 1)?;
            if left.messages > 0 {
                if next > from {
                    pieces.push(look.piece(from, next - 1, entry..number, Known::default())?);
                }
                pieces.push(look.piece(next, sequence - 1, number..number, left)?);
                (from, entry) = (sequence, number);
            }
        }
        next = sequence + 1;
    }
    if question.through >= from {
        pieces.push(look.piece(
            from,
            question.through,
            entry..question.sequences.len(),
            Known::default(),
        )?);
    }
    Ok(Some(Survey { range, pieces }))
}

pub(super) fn range(
    connection: &Connection,
    origin: OriginId,
    version: VersionId,
    first: u64,
) -> Result<Option<Range>, rusqlite::Error> {
    connection
        .query_row(
            "SELECT id, last_sequence, messages, projected, skipped, dead, missing, rows, changed, inserted,
                    updated, first_at, last_at
             FROM _lantern_ledger WHERE origin = ?1 AND plugin_version = ?2 AND first_sequence = ?3",
            params![origin.0, version.0, to_sql(first)],
            |row| {
                Ok(Range {
                    id: row.get(0)?,
                    last: row.get(1).map(from_sql)?,
                    counts: counts(row, 2)?,
                    first_at: row.get(11)?,
                    last_at: row.get(12)?,
                })
            },
        )
        .optional()
}

/// Looks at what sequences of one history have left.
pub(super) struct Look<'a> {
    pub(super) connection: &'a Connection,
    pub(super) origin: OriginId,
    pub(super) tables: Vec<String>,
}

impl Look<'_> {
    fn piece(
        &self,
        first: u64,
        last: u64,
        entries: std::ops::Range<usize>,
        left: Known,
    ) -> Result<Piece, rusqlite::Error> {
        Ok(Piece {
            first,
            last,
            missing: self.missing(first, last)?,
            entries,
            left,
        })
    }

    pub(super) fn number(&self, sql: &str, first: u64, last: u64) -> Result<u64, rusqlite::Error> {
        self.connection
            .prepare_cached(sql)?
            .query_row(params![self.origin.0, to_sql(first), to_sql(last)], |row| {
                row.get(0).map(from_sql)
            })
    }

    /// Sequences that were gone before they were read the first time.
    fn missing(&self, first: u64, last: u64) -> Result<u64, rusqlite::Error> {
        self.number(
            "SELECT coalesce(sum(min(last_sequence, ?3) - max(first_sequence, ?2) + 1), 0) FROM _lantern_gap
             WHERE origin = ?1 AND first_sequence <= ?3 AND last_sequence >= ?2",
            first,
            last,
        )
    }

    fn rows_between(&self) -> Vec<String> {
        let tables = self.tables.iter();
        tables
            .map(|table| {
                format!(
                    "SELECT _sequence AS s FROM {} WHERE _origin = ?1 AND _sequence BETWEEN ?2 AND ?3",
                    quote_text(table)
                )
            })
            .collect()
    }

    /// Messages with rows, and the rows.
    pub(super) fn rows(&self, first: u64, last: u64) -> Result<(u64, u64), rusqlite::Error> {
        let parts = self.rows_between();
        if parts.is_empty() {
            return Ok((0, 0));
        }
        let all = parts.join(" UNION ALL ");
        let distinct = format!("SELECT count(DISTINCT s) FROM ({all})");
        let all = format!("SELECT count(*) FROM ({all})");
        Ok((
            self.number(&distinct, first, last)?,
            self.number(&all, first, last)?,
        ))
    }

    /// What sequences have left that are not in the stream any more.
    fn left(&self, first: u64, last: u64) -> Result<Known, rusqlite::Error> {
        const LETTERS: &str =
            "SELECT sequence AS s FROM _lantern_dead_letter WHERE origin = ?1 AND sequence BETWEEN ?2 AND ?3";
        let mut parts = self.rows_between();
        parts.push(LETTERS.to_owned());
        let anything = format!("SELECT count(DISTINCT s) FROM ({})", parts.join(" UNION ALL "));
        let messages = self.number(&anything, first, last)?;
        if messages == 0 {
            return Ok(Known::default());
        }
        let (with_rows, rows) = self.rows(first, last)?;
        let dead = format!("SELECT count(*) FROM ({LETTERS} AND state <> 'resolved')");
        Ok(Known {
            messages,
            with_rows,
            dead: self.number(&dead, first, last)?,
            rows,
        })
    }
}
