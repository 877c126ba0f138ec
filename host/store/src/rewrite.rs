//! Reprojection: removes the rows that a version wrote for a batch of messages, writes the rows of another version,
//! opens and resolves dead letters, and names the new version in the ledger, all in one transaction. The rest of a
//! ledger range still names the former version, so an interrupted reprojection can be started again.
//!
//! Messages that the stream no longer holds keep their rows and dead letters. A survey on a read connection counts what
//! such messages left; the transaction does nothing if the range has changed since.

mod ranges;
mod split;
mod survey;

use crate::sql::{Connection, OptionalExtension as _, Transaction, params};

use super::apply::{count, total, write_alone, write_dead_letter, write_isolated};
use super::commit::{Adopted, CommitError, Counts, Entry, OriginId, RowEffects, VersionId};
use super::dead_letters::{OpenDeadLetter, RetriedDeadLetter, dead_letters_where, screen_one};
use super::forget::{self, Screen};
use super::provenance::tables_of;
use super::read_error::ReadError;
use super::reader::Reader;
use super::segments::Touched;
use super::values::to_sql;
use super::{ProvenanceError, Store};
use lantern_model::batch::{Outcome, Timestamp};
use ranges::{merge_ranges, write_ranges};
use split::{Known, Stretch, divide};
use survey::{EpochReader, Piece, Survey, SurveyRequest, range, survey};

/// A reprojected batch.
#[derive(Debug)]
pub struct Rewrite {
    /// The epoch of the source.
    pub origin: OriginId,
    /// The version whose work is replaced.
    pub bad: VersionId,
    /// The first sequence of the rest of the ledger range.
    pub first: u64,
    /// The last sequence of the batch.
    pub through: u64,
    /// The messages of the stream from `first` to `through`, in order, with their outcomes.
    pub entries: Vec<Entry>,
    /// The version that replaces it.
    pub plugin: Adopted,
}

/// The totals of a reprojection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Reprojected messages.
    pub messages: u64,
    /// Removed rows.
    pub rows_removed: u64,
    /// The effects of the new rows.
    pub effects: RowEffects,
    /// Resolved dead letters.
    pub resolved: u64,
    /// Messages that became dead letters.
    pub rejected: u64,
}

impl std::ops::AddAssign for Rewritten {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.rows_removed += other.rows_removed;
        self.effects += other.effects;
        self.resolved += other.resolved;
        self.rejected += other.rejected;
    }
}

/// Changes to messages that another version handled before.
#[derive(Clone, Copy)]
pub struct Reprojections<'a>(&'a Store);

impl Store {
    /// Changes to messages that another version handled before.
    pub fn reprojections(&self) -> Reprojections<'_> {
        Reprojections(self)
    }
}

impl Reprojections<'_> {
    /// Writes a reprojected batch. Returns `None` if the ledger range has changed since the caller read it.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`]; nothing has changed then.
    pub async fn write(self, rewrite: Rewrite) -> Result<Option<Rewritten>, CommitError> {
        let name = rewrite.plugin.manifest.name.to_string();
        let request = SurveyRequest {
            origin: rewrite.origin,
            bad: rewrite.bad,
            first: rewrite.first,
            through: rewrite.through,
            sequences: rewrite
                .entries
                .iter()
                .map(|entry| entry.delivery.sequence)
                .collect(),
        };
        let survey = self
            .0
            .reader()
            .long_snapshot(move |connection| survey(connection, &name, &request))
            .await
            .map_err(|error: ProvenanceError| CommitError::Unavailable(error.to_string()))?;
        let Some(survey) = survey else {
            return Ok(None);
        };
        self.0
            .call(move |connection| settle(connection, rewrite, &survey))
            .await
    }

    /// Writes the new outcomes of dead letters that `bad` had resolved. Skips those that it no longer resolves.
    ///
    /// # Errors
    /// As for [`Reprojections::write`]; nothing has changed then.
    pub async fn write_dead_letters(
        self,
        plugin: Adopted,
        bad: VersionId,
        dead_letters: Vec<RetriedDeadLetter>,
    ) -> Result<Rewritten, CommitError> {
        self.0
            .call(move |connection| settle_dead_letters(connection, &plugin, bad, dead_letters))
            .await
    }
}

impl Reader {
    /// Dead letters that a version has resolved, in the order of arrival, after the one with number `after`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn dead_letters_resolved_by(
        &self,
        version: VersionId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<OpenDeadLetter>, ReadError> {
        self.snapshot(move |connection| {
            let condition = "d.state = 'resolved' AND d.resolved_by = ?1 AND d.id > ?2";
            Ok(dead_letters_where(
                connection,
                condition,
                params![version.0, after, limit],
                "?3",
            )?)
        })
        .await
    }
}

/// Returns `None` if the range has changed since the survey.
fn settle(
    connection: &mut Connection,
    mut rewrite: Rewrite,
    survey: &Survey,
) -> Result<Option<Rewritten>, crate::sql::Error> {
    let now = Timestamp::now();
    let transaction = connection.begin()?;
    let found = range(&transaction, rewrite.origin, rewrite.bad, rewrite.first)?;
    if found.as_ref() != Some(&survey.range) || is_active(&transaction, rewrite.bad)? {
        return Ok(None);
    }
    let name = rewrite.plugin.manifest.name.to_string();
    let reader = EpochReader {
        connection: &transaction,
        origin: rewrite.origin,
        tables: tables_of(&transaction, &name)?,
    };
    let stretch = (rewrite.first.saturating_sub(1), rewrite.through);
    let screen = Screen::load(&transaction, &name, rewrite.origin, stretch, &rewrite.entries)?;
    let manifest = &rewrite.plugin.manifest;
    screen.apply(&transaction, manifest, rewrite.origin, &mut rewrite.entries, now)?;
    let mut done = Rewritten::default();
    // All removals come before any insert: a new row may have the key of a removed one.
    let known = remove_pieces(&reader, survey, &mut done)?;
    let mut stretches = Vec::with_capacity(survey.pieces.len());
    for (piece, known) in survey.pieces.iter().zip(known) {
        let new = if piece.left.messages > 0 {
            None
        } else {
            let entries = &mut rewrite.entries[piece.entries.clone()];
            Some(write(
                &transaction,
                &rewrite.plugin,
                rewrite.origin,
                entries,
                now,
                &mut done,
            )?)
        };
        stretches.push(Stretch {
            first: piece.first,
            last: piece.last,
            missing: piece.missing,
            known,
            new,
        });
    }
    let rest_width = survey.range.last - rewrite.through;
    let division = divide(survey.range.counts, &stretches, rest_width);
    write_ranges(&transaction, &rewrite, survey, &stretches, &division, now)?;
    merge_ranges(&transaction, rewrite.origin, rewrite.first, survey.range.last)?;
    transaction.commit()?;
    Ok(Some(done))
}

/// Removes the rows of all pieces that were projected again. Returns what each piece contained.
fn remove_pieces(
    reader: &EpochReader<'_>,
    survey: &Survey,
    done: &mut Rewritten,
) -> Result<Vec<Known>, crate::sql::Error> {
    let mut known = Vec::with_capacity(survey.pieces.len());
    let mut touched = Touched::default();
    for piece in &survey.pieces {
        known.push(if piece.left.messages > 0 {
            piece.left
        } else {
            let removed = remove(reader, piece, &mut touched)?;
            done.rows_removed += removed.rows;
            removed
        });
    }
    touched.refresh(reader.connection)?;
    Ok(known)
}

fn is_active(transaction: &Transaction<'_>, version: VersionId) -> Result<bool, crate::sql::Error> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_installation WHERE active = ?1)",
        [version.0],
        |row| row.get(0),
    )
}

/// Removes the rows of a piece, and returns how the ledger counted its messages.
fn remove(
    reader: &EpochReader<'_>,
    piece: &Piece,
    touched: &mut Touched,
) -> Result<Known, crate::sql::Error> {
    let (with_rows, _) = reader.rows(piece.first, piece.last)?;
    let dead = reader.number(
        "SELECT count(*) FROM _lantern_dead_letter WHERE origin = ?1 AND sequence BETWEEN ?2 AND ?3
             AND state <> 'resolved'",
        piece.first,
        piece.last,
    )?;
    let mut rows = 0;
    for table in &reader.tables {
        rows += table.delete(
            reader.connection,
            reader.origin,
            (piece.first, piece.last),
            touched,
        )?;
    }
    Ok(Known {
        messages: piece.entries.len() as u64,
        with_rows,
        dead,
        rows,
    })
}

/// Writes the outcomes of messages: rows, and opened or resolved dead letters. Returns their counts.
fn write(
    transaction: &Transaction<'_>,
    plugin: &Adopted,
    origin: OriginId,
    entries: &mut [Entry],
    now: Timestamp,
    done: &mut Rewritten,
) -> Result<Counts, crate::sql::Error> {
    let (effects, _) = write_isolated(transaction, plugin, origin, entries)?;
    let effects = total(&effects);
    let counts = count(entries).with_effects(effects);
    for entry in entries.iter() {
        record_dead_letter(transaction, plugin, origin, entry, now, done)?;
    }
    done.messages += counts.messages;
    done.effects += effects;
    Ok(counts)
}

fn record_dead_letter(
    transaction: &Transaction<'_>,
    plugin: &Adopted,
    origin: OriginId,
    entry: &Entry,
    now: Timestamp,
    done: &mut Rewritten,
) -> Result<(), crate::sql::Error> {
    let sequence = to_sql(entry.delivery.sequence);
    let state: Option<String> = transaction
        .prepare_cached("SELECT state FROM _lantern_dead_letter WHERE origin = ?1 AND sequence = ?2")?
        .query_row([origin.0, sequence], |row| row.get(0))
        .optional()?;
    match (&entry.outcome, state.as_deref()) {
        (_, Some("forgotten")) => {}
        (outcome, Some(_)) if outcome.is_forgotten() => {
            forget::wipe_dead_letter(transaction, origin, entry.delivery.sequence, now)?;
        }
        (Outcome::Reject(rejection), None) => {
            write_dead_letter(transaction, origin, plugin.version, entry, rejection, now)?;
            done.rejected += u64::from(!entry.outcome.is_forgotten());
        }
        // A discarded dead letter stays discarded.
        (Outcome::Reject(_), Some("discarded")) => {}
        (Outcome::Reject(rejection), Some(state)) => {
            transaction
                .prepare_cached(
                    "UPDATE _lantern_dead_letter SET state = 'open', resolved_by = NULL, plugin_version = ?3,
                         class = ?4, reason = ?5, attempts = attempts + 1, last_at = ?6
                     WHERE origin = ?1 AND sequence = ?2",
                )?
                .execute(params![
                    origin.0,
                    sequence,
                    plugin.version.0,
                    rejection.class.as_str(),
                    rejection.reason,
                    now.0
                ])?;
            done.rejected += u64::from(state == "resolved");
        }
        (_, Some(state)) => {
            transaction
                .prepare_cached(
                    "UPDATE _lantern_dead_letter SET state = 'resolved', resolved_by = ?3, attempts = attempts + 1,
                         last_at = ?4
                     WHERE origin = ?1 AND sequence = ?2",
                )?
                .execute(params![origin.0, sequence, plugin.version.0, now.0])?;
            done.resolved += u64::from(state != "resolved");
        }
        (_, None) => {}
    }
    Ok(())
}

fn settle_dead_letters(
    connection: &mut Connection,
    plugin: &Adopted,
    bad: VersionId,
    dead_letters: Vec<RetriedDeadLetter>,
) -> Result<Rewritten, crate::sql::Error> {
    let now = Timestamp::now();
    let transaction = connection.begin()?;
    let mut done = Rewritten::default();
    // All removals come before any insert, because the summaries of segments are renewed between the two.
    let removed = remove_dead_letters(&transaction, plugin, bad, dead_letters)?;
    for (dead_letter, removed) in removed {
        let RetriedDeadLetter {
            origin, mut entry, ..
        } = dead_letter;
        let sequence = entry.delivery.sequence;
        screen_one(&transaction, plugin, origin, &mut entry, now)?;
        let effects = write_alone(&transaction, plugin, origin, &mut entry)?;
        record_dead_letter(&transaction, plugin, origin, &entry, now, &mut done)?;
        let new = count(std::slice::from_ref(&entry)).with_effects(effects);
        account(&transaction, origin, sequence, removed, new)?;
        done.messages += 1;
        done.rows_removed += removed.rows;
        done.effects += effects;
    }
    transaction.commit()?;
    Ok(done)
}

/// Removes the rows of dead letters that `bad` still resolves. Returns them, with how the ledger counted their messages.
fn remove_dead_letters(
    transaction: &Transaction<'_>,
    plugin: &Adopted,
    bad: VersionId,
    dead_letters: Vec<RetriedDeadLetter>,
) -> Result<Vec<(RetriedDeadLetter, Known)>, crate::sql::Error> {
    let tables = tables_of(transaction, plugin.manifest.name.as_str())?;
    let mut touched = Touched::default();
    let mut removed = Vec::with_capacity(dead_letters.len());
    for dead_letter in dead_letters {
        let still: bool = transaction
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM _lantern_dead_letter
                     WHERE id = ?1 AND state = 'resolved' AND resolved_by = ?2)",
            )?
            .query_row([dead_letter.id, bad.0], |row| row.get(0))?;
        if !still {
            continue;
        }
        let reader = EpochReader {
            connection: transaction,
            origin: dead_letter.origin,
            tables: tables.clone(),
        };
        let sequence = dead_letter.entry.delivery.sequence;
        let alone = Piece {
            first: sequence,
            last: sequence,
            missing: 0,
            entries: 0..1,
            left: Known::default(),
        };
        let known = remove(&reader, &alone, &mut touched)?;
        removed.push((dead_letter, known));
    }
    touched.refresh(transaction)?;
    Ok(removed)
}

/// Recounts one message of a range that was counted as projected or skipped.
fn account(
    transaction: &Transaction<'_>,
    origin: OriginId,
    sequence: u64,
    removed: Known,
    new: Counts,
) -> Result<(), crate::sql::Error> {
    // A message whose rows have expired or were ignored counts as projected, although it has no rows. If the range has
    // rows that were ignored, one of them is taken for that of the message.
    transaction
        .prepare_cached(
            "UPDATE _lantern_ledger SET
                 projected = projected - CASE WHEN ?3 > 0 OR skipped = 0 THEN 1 ELSE 0 END + ?4,
                 skipped = skipped - CASE WHEN ?3 = 0 AND skipped > 0 THEN 1 ELSE 0 END + ?5,
                 dead = dead + ?6,
                 rows = max(rows - max(?3, CASE WHEN skipped = 0 AND rows > changed THEN 1 ELSE 0 END), 0) + ?7,
                 changed = max(changed - ?3, 0) + ?8,
                 inserted = max(inserted - ?3, 0) + ?9, updated = updated + ?10
             WHERE origin = ?1 AND first_sequence <= ?2 AND last_sequence >= ?2",
        )?
        .execute(params![
            origin.0,
            to_sql(sequence),
            to_sql(removed.rows),
            to_sql(new.projected),
            to_sql(new.skipped),
            to_sql(new.dead),
            to_sql(new.rows),
            to_sql(new.changed),
            to_sql(new.inserted),
            to_sql(new.updated)
        ])
        .map(|_| ())
}

#[cfg(test)]
mod tests;
