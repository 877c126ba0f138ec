//! Projects the stream `AUDIT`, who did what in the management system, into the table `audit_log`.

use lantern_sdk::prelude::*;
use serde::Deserialize;

lantern_sdk::export!(AuditLog);

/// The plugin.
pub struct AuditLog;

impl Plugin for AuditLog {
    const SOURCES: Sources<Self> = &[Source::stream("audit", "AUDIT", &["audit.>"], event)];
    const WRITES: Writes = &[AuditEvent::WRITE];
}

/// Who did what, for good.
///
/// The stream's sequence is the key that keeps a message from being recorded twice, but it is none by itself: when
/// the stream is made anew its numbers begin again at 1, and the new message 1 must not be taken for the old one.
/// So the time at which the broker stored the message is part of the key. A replay shows the same time; a new
/// stream's message cannot have it.
#[derive(Deserialize, Table, Row)]
#[table(name = "audit_log", unique = [stream_seq, recorded_at])]
#[row(on_conflict = ignore)]
struct AuditEvent {
    /// Who did it.
    #[column(entity)]
    actor: String,
    /// What was done.
    #[column(facet)]
    action: String,
    /// To what it was done.
    target: Option<String>,
    payload: Json,
    /// When it was done, by the clock of the machine where it was done.
    #[column(time)]
    occurred_at: Timestamp,
    /// The message's sequence in the stream.
    #[serde(skip)]
    stream_seq: i64,
    /// When the broker stored the message.
    #[serde(skip)]
    recorded_at: Timestamp,
}

fn event(message: &Message<'_>, rows: &mut Rows<AuditLog>) -> Result {
    let stream_seq = i64::try_from(message.sequence).map_err(Rejection::invalid)?;
    rows.put(AuditEvent {
        stream_seq,
        recorded_at: message.published,
        ..message.json()?
    });
    Ok(())
}
