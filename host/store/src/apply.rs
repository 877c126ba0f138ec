//! One batch inside the open transaction: rows, dead letters, gaps, ledger, checkpoint. Nothing here begins or ends a
//! transaction; the writer does.

mod ledger;
mod row_writer;
mod server;
mod writes;

use crate::sql::{Connection, OptionalExtension, params};

use super::anchors;
use super::commit::{Adopted, Anchor, Commit, Counts, Entry, Mark, OriginId, RowEffects, VersionId};
use super::forget::screen::{insert_forgotten_dead_letter, screen_commit};
use super::leases::Held;
use super::values::{from_sql, to_sql};
use lantern_model::batch::{Delivery, Outcome, Rejection, RejectionClass, Timestamp};
use ledger::{write_gap, write_ledger};
use writes::Writes;

/// Messages whose rows the database rejected, with the reason.
pub(super) type Refused = Vec<(u64, String)>;

/// The effect of a batch.
pub(super) struct Applied {
    pub(super) counts: Counts,
    /// For each write of the manifest.
    pub(super) effects: Vec<RowEffects>,
    pub(super) refused: Refused,
    /// Of the messages counted as dead, those that an operator had erased.
    pub(super) forgotten: u64,
}

/// Why a batch had no effect.
pub(super) enum ApplyError {
    /// The stored checkpoint is another one.
    Stale(Option<u64>),
    /// Another host holds the lease of the plugin.
    NotHeld,
    /// The database rejected a row, and the transaction contains a part of the batch.
    Refused,
    /// SQLite failed for a reason other than the batch's rows.
    Sqlite(crate::sql::Error),
}

impl From<crate::sql::Error> for ApplyError {
    fn from(error: crate::sql::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// All rows in sequence. When the database rejects one, the transaction has to restart: a savepoint around each
    /// batch would copy every page that it changes, and cost a tenth of the writer's time for a rare event.
    None,
    /// With savepoints that find the messages at fault: they become dead letters.
    PerMessage,
}

/// Applies a batch to the open transaction.
pub(super) fn apply(
    connection: &Connection,
    held: &Held,
    commit: &mut Commit,
    now: Timestamp,
    isolation: Isolation,
) -> Result<Applied, ApplyError> {
    let before = match read_checkpoint(connection, commit.origin)? {
        Some((found, before)) if found.sequence == commit.after => before,
        found => return Err(ApplyError::Stale(found.map(|(found, _)| found.sequence))),
    };
    if !held.verify(connection, commit.plugin.manifest.name.as_str())? {
        return Err(ApplyError::NotHeld);
    }
    let gone = screen_commit(connection, commit, now)?;
    let (effects, refused) = write_rows(connection, commit, isolation)?;
    let mut counts = count(&commit.entries).with_effects(total(&effects));
    counts.messages += gone.len() as u64;
    counts.dead += gone.len() as u64;
    let entries = commit.entries.iter();
    let forgotten = gone.len() + entries.filter(|entry| entry.outcome.is_forgotten()).count();
    for (sequence, published_ns) in gone {
        let version = commit.plugin.version;
        insert_forgotten_dead_letter(connection, commit.origin, version, sequence, published_ns, now)?;
    }
    for entry in &commit.entries {
        if let Outcome::Reject(rejection) = &entry.outcome {
            write_dead_letter(
                connection,
                commit.origin,
                commit.plugin.version,
                entry,
                rejection,
                now,
            )?;
        }
    }
    for gap in &commit.gaps {
        counts.missing += gap.count();
        write_gap(connection, commit.origin, gap, now)?;
    }
    write_ledger(connection, commit, counts, now)?;
    let anchors = anchors::advance(&before, &commit.through, &commit.entries);
    write_checkpoint(connection, commit, &anchors, now)?;
    Ok(Applied {
        counts,
        effects,
        refused,
        forgotten: forgotten as u64,
    })
}

/// Returns the effects of each write, and the messages that were rejected.
fn write_rows(
    connection: &Connection,
    commit: &mut Commit,
    isolation: Isolation,
) -> Result<(Vec<RowEffects>, Refused), ApplyError> {
    let origin = commit.stamp;
    if isolation == Isolation::PerMessage {
        return Ok(write_isolated(
            connection,
            &commit.plugin,
            origin,
            &mut commit.entries,
        )?);
    }
    let written = match connection {
        Connection::Sqlite(_) => write_in_order(connection, &commit.plugin, origin, &commit.entries),
        Connection::Postgres(session) => {
            server::write_batch(session, &commit.plugin, origin, &commit.entries)
        }
    };
    match written {
        Ok(effects) => Ok((effects, Vec::new())),
        Err(error) if error.is_caused_by_data() => Err(ApplyError::Refused),
        Err(error) => Err(ApplyError::Sqlite(error)),
    }
}

fn write_in_order(
    connection: &Connection,
    plugin: &Adopted,
    origin: OriginId,
    entries: &[Entry],
) -> Result<Vec<RowEffects>, crate::sql::Error> {
    let mut writes = Writes::prepare(connection, plugin)?;
    for entry in entries {
        writes.write_entry(origin, entry)?;
    }
    writes.finish()
}

/// Writes rows so that a row which the database rejects makes only its message a rejection.
///
/// Returns the effects of each write, and the messages that were rejected.
pub(super) fn write_isolated(
    connection: &Connection,
    plugin: &Adopted,
    origin: OriginId,
    entries: &mut [Entry],
) -> Result<(Vec<RowEffects>, Refused), crate::sql::Error> {
    match connection {
        Connection::Sqlite(_) => row_writer::write_isolated(connection, plugin, origin, entries),
        Connection::Postgres(session) => server::write_isolated(session, plugin, origin, entries),
    }
}

/// Writes the rows of one message, for a dead letter that is retried. When the database rejects a row, the outcome
/// becomes a rejection.
pub(super) fn write_alone(
    connection: &Connection,
    plugin: &Adopted,
    origin: OriginId,
    entry: &mut Entry,
) -> Result<RowEffects, crate::sql::Error> {
    let (effects, _) = write_isolated(connection, plugin, origin, std::slice::from_mut(entry))?;
    Ok(total(&effects))
}

/// The sum of the effects of all writes.
pub(super) fn total(effects: &[RowEffects]) -> RowEffects {
    let mut total = RowEffects::default();
    for effects in effects {
        total += *effects;
    }
    total
}

pub(super) fn count(entries: &[Entry]) -> Counts {
    let mut counts = Counts {
        messages: entries.len() as u64,
        ..Counts::default()
    };
    for entry in entries {
        match &entry.outcome {
            Outcome::Rows(rows) if !rows.is_empty() => {
                counts.projected += 1;
                counts.rows += rows.len() as u64;
            }
            Outcome::Rows(_) | Outcome::Skip => counts.skipped += 1,
            Outcome::Reject(_) => counts.dead += 1,
        }
    }
    counts
}

pub(super) fn write_dead_letter(
    connection: &Connection,
    origin: OriginId,
    version: VersionId,
    entry: &Entry,
    rejection: &Rejection,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    if rejection.class == RejectionClass::Forgotten {
        let Delivery {
            sequence,
            published_ns,
            ..
        } = entry.delivery;
        return insert_forgotten_dead_letter(connection, origin, version, sequence, published_ns, now);
    }
    let headers = serde_json::to_string(&entry.delivery.headers).map_err(crate::sql::Error::encode)?;
    connection
        .prepare_cached(
            "INSERT INTO _lantern_dead_letter (origin, sequence, plugin_version, class, reason, subject,
                 published_ns, headers, payload, attempts, state, first_at, last_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, 'open', ?10, ?10)",
        )?
        .execute(params![
            origin.0,
            to_sql(entry.delivery.sequence),
            version.0,
            rejection.class.as_str(),
            rejection.reason,
            entry.delivery.subject,
            entry.delivery.published_ns,
            headers,
            &entry.delivery.payload[..],
            now.0,
        ])
        .map(|_| ())
}

/// The checkpoint of an origin with its anchors.
pub(super) fn read_checkpoint(
    connection: &Connection,
    origin: OriginId,
) -> Result<Option<(Mark, Vec<Anchor>)>, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT sequence, published_ns, payload_sha256, anchors FROM _lantern_checkpoint WHERE origin = ?1",
        )?
        .query_row([origin.0], |row| {
            let checkpoint = Mark {
                sequence: row.get(0).map(from_sql)?,
                published_ns: row.get(1)?,
                payload_sha256: row.get(2)?,
            };
            let anchors = anchors::decode(row.get(3)?, &checkpoint, 3)?;
            Ok((checkpoint, anchors))
        })
        .optional()
}

/// Replaces the checkpoint that the batch continues. It was read at the start of the batch; at a server, another program
/// may have changed it since.
fn write_checkpoint(
    connection: &Connection,
    commit: &Commit,
    anchors: &[Anchor],
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    let mark = &commit.through;
    let replaced = connection
        .prepare_cached(
            "UPDATE _lantern_checkpoint SET sequence = ?2, published_ns = ?3, payload_sha256 = ?4, anchors = ?5,
                 committed_at = ?6
             WHERE origin = ?1 AND sequence = ?7",
        )?
        .execute(params![
            commit.origin.0,
            to_sql(mark.sequence),
            mark.published_ns,
            mark.payload_sha256.as_ref().map(<[u8; 32]>::as_slice),
            anchors::encode(anchors),
            now.0,
            to_sql(commit.after)
        ])?;
    match replaced {
        1 => Ok(()),
        _ => Err(crate::sql::Error::CheckpointMoved),
    }
}
