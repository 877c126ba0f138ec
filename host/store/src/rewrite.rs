//! Messages that are projected again: the rows of before go, the new ones come, dead letters end or begin, and the
//! ledger names the version that stands for them now, all in one transaction for each batch. What is left of a range
//! still names the version of before, so that a run which was cut off can be begun again.
//!
//! Messages that are gone from the stream keep what they have left. What a stretch without messages has left is counted
//! before, by a connection that only reads; the transaction does nothing when the range has changed since.

mod split;
mod survey;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::apply::{count, to_sql, total, write_alone, write_dead_letter, write_isolated};
use super::commit::{Adopted, CommitError, Counts, Entry, OriginId, VersionId};
use super::forget::{self, Screen};
use super::letters::{OpenLetter, Retried, letters_where, screen_one};
use super::provenance::tables_of;
use super::statement::quote_text;
use super::{ProvenanceError, Store};
use lantern_model::batch::{Outcome, Timestamp};
use split::{Division, Known, Stretch, divide};
use survey::{Look, Piece, Question, Survey, range, survey};

/// A batch that was projected again.
#[derive(Debug)]
pub struct Rewrite {
    /// Which history of which source.
    pub origin: OriginId,
    /// The version whose work it replaces.
    pub bad: VersionId,
    /// The first sequence of the range that is left; it is the ledger's.
    pub first: u64,
    /// The last sequence that is settled by this.
    pub through: u64,
    /// What is in the stream from `first` to `through`, in order, with what became of it.
    pub entries: Vec<Entry>,
    /// The version that stands for it now.
    pub plugin: Adopted,
}

/// What projecting again has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Rewritten {
    /// Messages that were projected again.
    pub messages: u64,
    /// Rows that are gone.
    pub rows_removed: u64,
    /// Rows that were written.
    pub rows_written: u64,
    /// Rows that the plugin answered with and that a table's rule for collisions left out.
    pub rows_left_out: u64,
    /// Dead letters that have ended.
    pub resolved: u64,
    /// Messages that are dead letters now and were none.
    pub rejected: u64,
}

impl std::ops::AddAssign for Rewritten {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.rows_removed += other.rows_removed;
        self.rows_written += other.rows_written;
        self.rows_left_out += other.rows_left_out;
        self.resolved += other.resolved;
        self.rejected += other.rejected;
    }
}

impl Store {
    /// Settles a batch. `None` when the range is not what it was: to be looked at again.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`]; nothing has changed then.
    pub async fn rewrite(&self, rewrite: Rewrite) -> Result<Option<Rewritten>, CommitError> {
        let name = rewrite.plugin.manifest.name.to_string();
        let question = Question {
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
            .look(move |connection| survey(connection, &name, &question))
            .await
            .map_err(|error: ProvenanceError| CommitError::Unavailable(error.to_string()))?;
        let Some(survey) = survey else {
            return Ok(None);
        };
        self.call(move |connection| settle(connection, rewrite, &survey))
            .await
    }

    /// Dead letters that a version has resolved, in the order of their arrival, behind the one with number `after`.
    ///
    /// # Errors
    /// As for [`Store::rewrite`].
    pub async fn letters_resolved_by(
        &self,
        version: VersionId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<OpenLetter>, CommitError> {
        self.look(move |connection| {
            let condition = "d.state = 'resolved' AND d.resolved_by = ?1 AND d.id > ?2";
            letters_where(connection, condition, params![version.0, after, limit], "?3")
        })
        .await
        .map_err(|error: rusqlite::Error| CommitError::Unavailable(error.to_string()))
    }

    /// Writes what became this time of dead letters that `bad` had resolved. Those that are not its any more are left
    /// alone.
    ///
    /// # Errors
    /// As for [`Store::rewrite`]; nothing has changed then.
    pub async fn rewrite_letters(
        &self,
        plugin: Adopted,
        bad: VersionId,
        letters: Vec<Retried>,
    ) -> Result<Rewritten, CommitError> {
        self.call(move |connection| settle_letters(connection, &plugin, bad, letters))
            .await
    }
}

/// The transaction. `None` when the range is not what it was when it was looked at.
fn settle(
    connection: &mut Connection,
    mut rewrite: Rewrite,
    survey: &Survey,
) -> Result<Option<Rewritten>, rusqlite::Error> {
    let now = Timestamp::now();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = range(&transaction, rewrite.origin, rewrite.bad, rewrite.first)?;
    if found.as_ref() != Some(&survey.range) || is_active(&transaction, rewrite.bad)? {
        return Ok(None);
    }
    let name = rewrite.plugin.manifest.name.to_string();
    let look = Look {
        connection: &transaction,
        origin: rewrite.origin,
        tables: tables_of(&transaction, &name)?,
    };
    let stretch = (rewrite.first.saturating_sub(1), rewrite.through);
    let screen = Screen::load(&transaction, &name, rewrite.origin, stretch, &rewrite.entries)?;
    let manifest = &rewrite.plugin.manifest;
    screen.apply(&transaction, manifest, rewrite.origin, &mut rewrite.entries, now)?;
    let mut done = Rewritten::default();
    // All that goes before anything comes: what comes may have a key that something else had.
    let mut known = Vec::with_capacity(survey.pieces.len());
    for piece in &survey.pieces {
        known.push(if piece.left.messages > 0 {
            piece.left
        } else {
            let removed = remove(&look, piece)?;
            done.rows_removed += removed.rows;
            removed
        });
    }
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

fn is_active(transaction: &Transaction<'_>, version: VersionId) -> Result<bool, rusqlite::Error> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_installation WHERE active = ?1)",
        [version.0],
        |row| row.get(0),
    )
}

/// Removes the rows of a piece, and says how the ledger has counted its messages.
fn remove(look: &Look<'_>, piece: &Piece) -> Result<Known, rusqlite::Error> {
    let (with_rows, _) = look.rows(piece.first, piece.last)?;
    let dead = look.number(
        "SELECT count(*) FROM _lantern_dead_letter WHERE origin = ?1 AND sequence BETWEEN ?2 AND ?3
             AND state <> 'resolved'",
        piece.first,
        piece.last,
    )?;
    let mut rows = 0;
    for table in &look.tables {
        rows += look
            .connection
            .prepare_cached(&format!(
                "DELETE FROM {} WHERE _origin = ?1 AND _sequence BETWEEN ?2 AND ?3",
                quote_text(table)
            ))?
            .execute(params![look.origin.0, to_sql(piece.first), to_sql(piece.last)])?;
    }
    Ok(Known {
        messages: piece.entries.len() as u64,
        with_rows,
        dead,
        rows: rows as u64,
    })
}

/// Writes what became of messages: rows, and the end or the beginning of dead letters. Returns how they count now.
fn write(
    transaction: &Transaction<'_>,
    plugin: &Adopted,
    origin: OriginId,
    entries: &mut [Entry],
    now: Timestamp,
    done: &mut Rewritten,
) -> Result<Counts, rusqlite::Error> {
    let (effects, _) = write_isolated(transaction, plugin, origin, entries)?;
    let counts = count(entries).with_effects(total(&effects));
    for entry in entries.iter() {
        write_letter(transaction, plugin, origin, entry, now, done)?;
    }
    done.messages += counts.messages;
    done.rows_written += counts.changed;
    done.rows_left_out += counts.present();
    Ok(counts)
}

fn write_letter(
    transaction: &Transaction<'_>,
    plugin: &Adopted,
    origin: OriginId,
    entry: &Entry,
    now: Timestamp,
    done: &mut Rewritten,
) -> Result<(), rusqlite::Error> {
    let sequence = to_sql(entry.delivery.sequence);
    let state: Option<String> = transaction
        .prepare_cached("SELECT state FROM _lantern_dead_letter WHERE origin = ?1 AND sequence = ?2")?
        .query_row([origin.0, sequence], |row| row.get(0))
        .optional()?;
    match (&entry.outcome, state.as_deref()) {
        (_, Some("forgotten")) => {}
        (outcome, Some(_)) if outcome.is_forgotten() => {
            forget::wipe_letter(transaction, origin, entry.delivery.sequence, now)?;
        }
        (Outcome::Reject(rejection), None) => {
            write_dead_letter(transaction, origin, plugin.version, entry, rejection, now)?;
            done.rejected += u64::from(!entry.outcome.is_forgotten());
        }
        // One that was given up stays given up.
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

/// Puts the pieces and the rest in the place of the range.
fn write_ranges(
    transaction: &Transaction<'_>,
    rewrite: &Rewrite,
    survey: &Survey,
    stretches: &[Stretch],
    division: &Division,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    let range = &survey.range;
    transaction.execute("DELETE FROM _lantern_ledger WHERE id = ?1", [range.id])?;
    let origin = rewrite.origin;
    let old = (rewrite.bad, range.first_at, range.last_at);
    let new = (rewrite.plugin.version, now.0, now.0);
    for (stretch, counts) in stretches.iter().zip(&division.stretches) {
        let by = if stretch.new.is_some() { new } else { old };
        insert_range(transaction, origin, by, stretch.first, stretch.last, counts)?;
    }
    if range.last > rewrite.through {
        let first = rewrite.through + 1;
        insert_range(transaction, origin, old, first, range.last, &division.rest)?;
    }
    Ok(())
}

fn insert_range(
    transaction: &Transaction<'_>,
    origin: OriginId,
    (version, first_at, last_at): (VersionId, i64, i64),
    first: u64,
    last: u64,
    counts: &Counts,
) -> Result<(), rusqlite::Error> {
    transaction
        .prepare_cached(
            "INSERT INTO _lantern_ledger (origin, plugin_version, first_sequence, last_sequence, messages,
                 projected, skipped, dead, missing, rows, changed, first_at, last_at, inserted, updated)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            origin.0,
            version.0,
            to_sql(first),
            to_sql(last),
            to_sql(counts.messages),
            to_sql(counts.projected),
            to_sql(counts.skipped),
            to_sql(counts.dead),
            to_sql(counts.missing),
            to_sql(counts.rows),
            to_sql(counts.changed),
            first_at,
            last_at,
            to_sql(counts.inserted),
            to_sql(counts.updated)
        ])
        .map(|_| ())
}

/// Makes one range of neighbours of the same version, from the one before `first` to the one behind `last`.
fn merge_ranges(
    transaction: &Transaction<'_>,
    origin: OriginId,
    first: u64,
    last: u64,
) -> Result<(), rusqlite::Error> {
    let near: Vec<(i64, i64)> = transaction
        .prepare_cached(
            "SELECT id, plugin_version FROM _lantern_ledger
             WHERE origin = ?1 AND last_sequence >= ?2 - 1 AND first_sequence <= ?3 + 1 ORDER BY first_sequence",
        )?
        .query_map(params![origin.0, to_sql(first), to_sql(last)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut kept: Option<(i64, i64)> = None;
    for (id, version) in near {
        match kept {
            Some((into, same)) if same == version => {
                transaction
                    .prepare_cached(
                        "UPDATE _lantern_ledger AS l SET last_sequence = m.last_sequence,
                             messages = l.messages + m.messages, projected = l.projected + m.projected,
                             skipped = l.skipped + m.skipped, dead = l.dead + m.dead,
                             missing = l.missing + m.missing, rows = l.rows + m.rows,
                             changed = l.changed + m.changed, inserted = l.inserted + m.inserted,
                             updated = l.updated + m.updated, first_at = min(l.first_at, m.first_at),
                             last_at = max(l.last_at, m.last_at)
                         FROM _lantern_ledger AS m WHERE l.id = ?1 AND m.id = ?2",
                    )?
                    .execute([into, id])?;
                transaction.execute("DELETE FROM _lantern_ledger WHERE id = ?1", [id])?;
            }
            _ => kept = Some((id, version)),
        }
    }
    Ok(())
}

fn settle_letters(
    connection: &mut Connection,
    plugin: &Adopted,
    bad: VersionId,
    letters: Vec<Retried>,
) -> Result<Rewritten, rusqlite::Error> {
    let now = Timestamp::now();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tables = tables_of(&transaction, plugin.manifest.name.as_str())?;
    let mut done = Rewritten::default();
    for Retried {
        id,
        origin,
        mut entry,
    } in letters
    {
        let still: bool = transaction
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM _lantern_dead_letter
                     WHERE id = ?1 AND state = 'resolved' AND resolved_by = ?2)",
            )?
            .query_row([id, bad.0], |row| row.get(0))?;
        if !still {
            continue;
        }
        let look = Look {
            connection: &transaction,
            origin,
            tables: tables.clone(),
        };
        let sequence = entry.delivery.sequence;
        let alone = Piece {
            first: sequence,
            last: sequence,
            missing: 0,
            entries: 0..1,
            left: Known::default(),
        };
        screen_one(&transaction, plugin, origin, &mut entry, now)?;
        let removed = remove(&look, &alone)?;
        let effects = write_alone(&transaction, plugin, origin, &mut entry)?;
        write_letter(&transaction, plugin, origin, &entry, now, &mut done)?;
        let new = count(std::slice::from_ref(&entry)).with_effects(effects);
        account(&transaction, origin, sequence, removed, new)?;
        done.messages += 1;
        done.rows_removed += removed.rows;
        done.rows_written += new.changed;
        done.rows_left_out += new.present();
    }
    transaction.commit()?;
    Ok(done)
}

/// Counts one message of a range anew that counted as projected or skipped.
fn account(
    transaction: &Transaction<'_>,
    origin: OriginId,
    sequence: u64,
    removed: Known,
    new: Counts,
) -> Result<(), rusqlite::Error> {
    // One that has given rows which have expired counts as projected, though it has none.
    transaction
        .prepare_cached(
            "UPDATE _lantern_ledger SET
                 projected = projected - (?3 > 0 OR skipped = 0) + ?4,
                 skipped = skipped - (?3 = 0 AND skipped > 0) + ?5,
                 dead = dead + ?6, rows = max(rows - ?3, 0) + ?7, changed = max(changed - ?3, 0) + ?8,
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
