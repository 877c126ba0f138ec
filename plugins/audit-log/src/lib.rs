//! Projects the stream `AUDIT`, the audit events of the management system, into the table `audit_log`.

use lantern_sdk::prelude::*;
use serde::Deserialize;

lantern_sdk::export!(AuditLog);

/// The plugin.
pub struct AuditLog;

impl Plugin for AuditLog {
    const SOURCES: Sources<Self> = &[Source::stream("audit", "AUDIT", &["audit.>"], event)];
    const WRITES: Writes = &[AuditEvent::WRITE];
}

/// Audit events, kept without limit.
///
/// The key prevents a message from being stored twice. The sequence alone is not sufficient: a recreated stream starts again at
/// one, so the time at which the broker stored the message is part of the key. It is the same in a replay, and different in
/// a recreated stream.
#[derive(Deserialize, Table, Row)]
#[table(name = "audit_log", unique = [stream_seq, recorded_at])]
#[row(on_conflict = ignore)]
struct AuditEvent {
    /// The actor.
    #[column(entity)]
    actor: String,
    /// The action.
    #[column(facet)]
    action: String,
    /// The target of the action.
    target: Option<String>,
    payload: Json,
    /// The time of the action, by the clock of its machine.
    #[column(time)]
    occurred_at: Timestamp,
    /// The sequence of the message in the stream.
    #[serde(skip)]
    stream_seq: i64,
    /// The time at which the broker stored the message.
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
