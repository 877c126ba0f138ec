//! The sources of plugins: where each stands, its epochs, and the questions about its stream that an operator decides.

use crate::sql::{Connection, OptionalExtension, Transaction, params};

use super::commit::{Accepted, Attached, Counts, Mark, NewEpoch, OriginId, Question};
use super::dead_letters::count_open;
use super::leases::Held;
use super::read_error::ReadError;
use super::reader::Reader;
use super::values::{from_sql, to_sql};
use super::{AuditMark, CommitError, Store, anchors};
use lantern_model::batch::Timestamp;

/// Changes to sources.
#[derive(Clone, Copy)]
pub struct Sources<'a>(&'a Store);

impl Store {
    /// Changes to sources.
    pub fn sources(&self) -> Sources<'_> {
        Sources(self)
    }
}

impl Sources<'_> {
    /// Where a source stands, after all batches that were handed to the writer before: a batch whose caller has gone away
    /// may still be on its way. `None` if the source never began.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn attach(self, plugin: &str, source: &str) -> Result<Option<Attached>, CommitError> {
        self.0.flush().await?;
        Ok(self.0.reader().source_position(plugin, source).await?)
    }

    /// Begins a source's next epoch.
    ///
    /// # Errors
    /// As for [`Sources::attach`], and [`CommitError::NotHeld`].
    pub async fn begin_epoch(self, epoch: NewEpoch) -> Result<Attached, CommitError> {
        let held = self.0.held.clone();
        self.0
            .call(move |connection| begin_epoch(connection, &held, &epoch))
            .await?
            .ok_or(CommitError::NotHeld)
    }

    /// Records the present name and creation time of an epoch's stream, after its messages were recognised.
    ///
    /// # Errors
    /// As for [`Sources::attach`].
    pub async fn set_stream(
        self,
        origin: OriginId,
        stream: &str,
        created_ns: i64,
    ) -> Result<(), CommitError> {
        let stream = stream.to_owned();
        self.0
            .call(move |connection| set_stream(connection, origin, &stream, created_ns))
            .await
    }

    /// Records that an operator has to decide whether the stream with this creation time is the epoch's stream; `None`
    /// withdraws the question.
    ///
    /// # Errors
    /// As for [`Sources::attach`].
    pub async fn set_question(
        self,
        origin: OriginId,
        stream_created_ns: Option<i64>,
    ) -> Result<(), CommitError> {
        self.0
            .call(move |connection| set_question(connection, origin, stream_created_ns))
            .await
    }

    /// Records an operator's decision about a source's stream, with its entry in the audit. Returns the creation time of
    /// that stream; `None` if the source has no open question.
    ///
    /// # Errors
    /// As for [`Sources::attach`].
    pub async fn answer_question(
        self,
        plugin: &str,
        source: &str,
        accepted: Accepted,
        mark: Option<AuditMark>,
    ) -> Result<Option<i64>, CommitError> {
        let (plugin, source) = (plugin.to_owned(), source.to_owned());
        let change =
            move |connection: &Transaction<'_>| answer_question(connection, &plugin, &source, accepted);
        let describe = |created_ns: &Option<i64>| {
            created_ns.map(|ns| format!("stream created at {}", Timestamp(ns / 1_000).to_rfc3339()))
        };
        self.0.change(mark, change, describe).await
    }
}

impl Reader {
    /// The stored position of a source; `None` if it never began. Batches that the writer has not committed yet do not
    /// count: see [`Sources::attach`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn source_position(&self, plugin: &str, source: &str) -> Result<Option<Attached>, ReadError> {
        let (plugin, source) = (plugin.to_owned(), source.to_owned());
        self.snapshot(move |connection| Ok(source_position(connection, &plugin, &source)?))
            .await
    }

    /// What identifies the stream of an epoch: its anchors, checkpoint, name and creation time. The counts are zero.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn epoch_identity(&self, origin: OriginId) -> Result<Option<Attached>, ReadError> {
        self.snapshot(move |connection| Ok(attached_where(connection, "o.id = ?1", [origin.0])?))
            .await
    }

    /// The last sequence before an epoch.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn epoch_begins_after(&self, origin: OriginId) -> Result<u64, ReadError> {
        self.snapshot(move |connection| {
            Ok(connection.query_row(
                "SELECT begins_after FROM _lantern_origin WHERE id = ?1",
                [origin.0],
                |row| row.get(0).map(from_sql),
            )?)
        })
        .await
    }
}

/// The newest epoch for which the condition holds, without its counts.
fn attached_where(
    connection: &Connection,
    condition: &str,
    parameters: impl crate::sql::Parameters,
) -> Result<Option<Attached>, crate::sql::Error> {
    let sql = format!(
        "SELECT o.id, o.epoch, o.stream_created_ns, c.sequence, c.published_ns, c.payload_sha256, c.anchors,
             o.stream, o.asked_created_ns, o.accepted
         FROM _lantern_origin o JOIN _lantern_checkpoint c ON c.origin = o.id
         WHERE {condition} ORDER BY o.epoch DESC LIMIT 1"
    );
    let read = |row: &crate::sql::Row<'_>| {
        let checkpoint = Mark {
            sequence: from_sql(row.get(3)?),
            published_ns: row.get(4)?,
            payload_sha256: row.get(5)?,
        };
        let asked: Option<i64> = row.get(8)?;
        let accepted: Option<String> = row.get(9)?;
        Ok(Attached {
            origin: OriginId(row.get(0)?),
            epoch: from_sql(row.get(1)?),
            stream: row.get(7)?,
            stream_created_ns: row.get(2)?,
            anchors: anchors::decode(row.get(6)?, &checkpoint, 6)?,
            checkpoint,
            question: asked.map(|stream_created_ns| Question {
                stream_created_ns,
                accepted: accepted.as_deref().and_then(Accepted::parse),
            }),
            counts: Counts::default(),
            dead_letters: 0,
        })
    };
    connection.query_row(&sql, parameters, read).optional()
}

fn source_position(
    connection: &Connection,
    plugin: &str,
    source: &str,
) -> Result<Option<Attached>, crate::sql::Error> {
    let found = attached_where(connection, "o.plugin = ?1 AND o.source = ?2", [plugin, source])?;
    let Some(mut attached) = found else {
        return Ok(None);
    };
    attached.counts = ledger_sums(connection, attached.origin)?;
    attached.dead_letters = count_open(connection, plugin, source)?;
    Ok(Some(attached))
}

/// The sums over an origin's ledger.
pub(super) fn ledger_sums(connection: &Connection, origin: OriginId) -> Result<Counts, crate::sql::Error> {
    connection.query_row(
        "SELECT coalesce(sum(messages), 0), coalesce(sum(projected), 0), coalesce(sum(skipped), 0),
                coalesce(sum(dead), 0), coalesce(sum(missing), 0), coalesce(sum(rows), 0),
                coalesce(sum(changed), 0), coalesce(sum(inserted), 0), coalesce(sum(updated), 0)
         FROM _lantern_ledger WHERE origin = ?1",
        [origin.0],
        |row| {
            Ok(Counts {
                messages: from_sql(row.get(0)?),
                projected: from_sql(row.get(1)?),
                skipped: from_sql(row.get(2)?),
                dead: from_sql(row.get(3)?),
                missing: from_sql(row.get(4)?),
                rows: from_sql(row.get(5)?),
                changed: from_sql(row.get(6)?),
                inserted: from_sql(row.get(7)?),
                updated: from_sql(row.get(8)?),
            })
        },
    )
}

/// Begins a source's next epoch, or its first.
pub(super) fn begin_epoch(
    connection: &mut Connection,
    held: &Held,
    epoch: &NewEpoch,
) -> Result<Option<Attached>, crate::sql::Error> {
    let transaction = connection.begin()?;
    if !held.verify(&transaction, epoch.plugin_of_rebuild())? {
        return Ok(None);
    }
    let origin: i64 = transaction.query_row(
        "INSERT INTO _lantern_origin (plugin, source, epoch, stream, stream_created_ns, begins_after, reason,
             began_at)
         SELECT ?1, ?2, coalesce(max(epoch), 0) + 1, ?3, ?4, ?5, ?6, ?7 FROM _lantern_origin
         WHERE plugin = ?1 AND source = ?2 RETURNING id",
        params![
            epoch.plugin,
            epoch.source,
            epoch.stream,
            epoch.stream_created_ns,
            to_sql(epoch.after),
            epoch.reason,
            epoch.at.0
        ],
        |row| row.get(0),
    )?;
    // If the message before the epoch is known, the checkpoint records it like one that was read.
    let last = epoch.anchors.iter().find(|anchor| anchor.sequence == epoch.after);
    transaction.execute(
        "INSERT INTO _lantern_checkpoint (origin, sequence, published_ns, payload_sha256, anchors, committed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            origin,
            to_sql(epoch.after),
            last.map_or(0, |anchor| anchor.published_ns),
            last.map(|anchor| &anchor.payload_sha256[..]),
            anchors::encode(&epoch.anchors),
            epoch.at.0
        ],
    )?;
    let attached = source_position(&transaction, &epoch.plugin, &epoch.source)?;
    transaction.commit()?;
    attached.map(Some).ok_or(crate::sql::Error::NoRows)
}

/// Also withdraws an open question about the stream.
fn set_stream(
    connection: &Connection,
    origin: OriginId,
    stream: &str,
    created_ns: i64,
) -> Result<(), crate::sql::Error> {
    // A promoted mirror has the same messages under another name.
    connection.execute(
        "INSERT INTO _lantern_forgotten_message (stream, sequence, published_ns, forgotten_at)
         SELECT ?2, f.sequence, f.published_ns, f.forgotten_at FROM _lantern_origin o
         JOIN _lantern_forgotten_message f ON f.stream = o.stream WHERE o.id = ?1 AND o.stream <> ?2
         ON CONFLICT DO NOTHING",
        params![origin.0, stream],
    )?;
    connection
        .execute(
            "UPDATE _lantern_origin
             SET stream = ?2, stream_created_ns = ?3, asked_created_ns = NULL, accepted = NULL WHERE id = ?1",
            params![origin.0, stream, created_ns],
        )
        .map(|_| ())
}

fn set_question(
    connection: &Connection,
    origin: OriginId,
    stream_created_ns: Option<i64>,
) -> Result<(), crate::sql::Error> {
    connection
        .execute(
            "UPDATE _lantern_origin SET asked_created_ns = ?2, accepted = NULL WHERE id = ?1",
            params![origin.0, stream_created_ns],
        )
        .map(|_| ())
}

fn answer_question(
    connection: &Connection,
    plugin: &str,
    source: &str,
    accepted: Accepted,
) -> Result<Option<i64>, crate::sql::Error> {
    connection
        .query_row(
            "UPDATE _lantern_origin SET accepted = ?3
             WHERE asked_created_ns IS NOT NULL AND id =
                 (SELECT id FROM _lantern_origin WHERE plugin = ?1 AND source = ?2 ORDER BY epoch DESC LIMIT 1)
             RETURNING asked_created_ns",
            [plugin, source, accepted.as_str()],
            |row| row.get(0),
        )
        .optional()
}
