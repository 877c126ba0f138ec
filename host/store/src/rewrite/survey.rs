//! What a reprojection reads before its transaction: the ledger range, and what the messages between the read ones
//! left.

use crate::sql::{Connection, OptionalExtension as _, params};

use super::split::Known;
use crate::ProvenanceError;
use crate::commit::{Counts, OriginId, VersionId};
use crate::provenance::{counts, tables_of};
use crate::segments::OriginTable;
use crate::values::{from_sql, to_sql};

/// A range of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) id: i64,
    pub(super) last: u64,
    pub(super) counts: Counts,
    pub(super) first_at: i64,
    pub(super) last_at: i64,
}

/// A part of the batch: entries with the sequences between them, or sequences that are gone but left rows or dead
/// letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) missing: u64,
    /// The entries, by index; empty if none was read.
    pub(super) entries: std::ops::Range<usize>,
    /// What the messages that are gone left.
    pub(super) left: Known,
}

/// The state before the transaction.
pub(super) struct Survey {
    pub(super) range: Range,
    pub(super) pieces: Vec<Piece>,
}

pub(super) struct SurveyRequest {
    pub(super) origin: OriginId,
    pub(super) bad: VersionId,
    pub(super) first: u64,
    pub(super) through: u64,
    pub(super) sequences: Vec<u64>,
}

/// Reads the range, and what the messages between the read ones left.
pub(super) fn survey(
    connection: &Connection,
    plugin: &str,
    request: &SurveyRequest,
) -> Result<Option<Survey>, ProvenanceError> {
    let Some(range) = range(connection, request.origin, request.bad, request.first)? else {
        return Ok(None);
    };
    if request.through > range.last {
        return Ok(None);
    }
    let reader = EpochReader {
        connection,
        origin: request.origin,
        tables: tables_of(connection, plugin)?,
    };
    let mut pieces = Vec::new();
    // The growing piece: its first sequence and its first entry.
    let (mut from, mut entry) = (request.first, 0);
    let mut next = request.first;
    let ends = request.sequences.iter().copied().chain([request.through + 1]);
    for (number, sequence) in ends.enumerate() {
        if sequence > next {
            let left = reader.left(next, sequence - 1)?;
            if left.messages > 0 {
                if next > from {
                    pieces.push(reader.piece(from, next - 1, entry..number, Known::default())?);
                }
                pieces.push(reader.piece(next, sequence - 1, number..number, left)?);
                (from, entry) = (sequence, number);
            }
        }
        next = sequence + 1;
    }
    if request.through >= from {
        pieces.push(reader.piece(
            from,
            request.through,
            entry..request.sequences.len(),
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
) -> Result<Option<Range>, crate::sql::Error> {
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

/// Counts what sequences of one epoch left.
pub(super) struct EpochReader<'a> {
    pub(super) connection: &'a Connection,
    pub(super) origin: OriginId,
    pub(super) tables: Vec<OriginTable>,
}

impl EpochReader<'_> {
    fn piece(
        &self,
        first: u64,
        last: u64,
        entries: std::ops::Range<usize>,
        left: Known,
    ) -> Result<Piece, crate::sql::Error> {
        Ok(Piece {
            first,
            last,
            missing: self.missing(first, last)?,
            entries,
            left,
        })
    }

    pub(super) fn number(&self, sql: &str, first: u64, last: u64) -> Result<u64, crate::sql::Error> {
        self.connection
            .prepare_cached(sql)?
            .query_row(params![self.origin.0, to_sql(first), to_sql(last)], |row| {
                row.get(0).map(from_sql)
            })
    }

    /// Sequences that were gone when the host first read the range.
    fn missing(&self, first: u64, last: u64) -> Result<u64, crate::sql::Error> {
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
            .map(|table| format!("SELECT t._sequence AS s {}", table.rows("?1", "?2", "?3")))
            .collect()
    }

    /// Messages with rows, and the rows.
    pub(super) fn rows(&self, first: u64, last: u64) -> Result<(u64, u64), crate::sql::Error> {
        let parts = self.rows_between();
        if parts.is_empty() {
            return Ok((0, 0));
        }
        let all = parts.join(" UNION ALL ");
        let distinct = format!("SELECT count(DISTINCT s) FROM ({all}) AS r");
        let all = format!("SELECT count(*) FROM ({all}) AS r");
        Ok((
            self.number(&distinct, first, last)?,
            self.number(&all, first, last)?,
        ))
    }

    /// What sequences left that are no longer in the stream.
    fn left(&self, first: u64, last: u64) -> Result<Known, crate::sql::Error> {
        const DEAD_LETTERS: &str =
            "SELECT sequence AS s FROM _lantern_dead_letter WHERE origin = ?1 AND sequence BETWEEN ?2 AND ?3";
        let mut parts = self.rows_between();
        parts.push(DEAD_LETTERS.to_owned());
        let anything = format!(
            "SELECT count(DISTINCT s) FROM ({}) AS r",
            parts.join(" UNION ALL ")
        );
        let messages = self.number(&anything, first, last)?;
        if messages == 0 {
            return Ok(Known::default());
        }
        let (with_rows, rows) = self.rows(first, last)?;
        let dead = format!("SELECT count(*) FROM ({DEAD_LETTERS} AND state <> 'resolved') AS r");
        Ok(Known {
            messages,
            with_rows,
            dead: self.number(&dead, first, last)?,
            rows,
        })
    }
}
