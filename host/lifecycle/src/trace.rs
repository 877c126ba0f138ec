//! The provenance of a row, and the work of a version. A row leads to its message, and the message to the version that
//! the ledger names. The message itself is available while the stream holds it, or if a dead letter kept it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Inner, Lifecycle, LifecycleError};
use lantern_model::batch::Delivery;
use lantern_model::identity::RowIdentity;
use lantern_plugin::Digest;
use lantern_projection::{HistoryComparison, compare_history};
use lantern_store::{LedgerSpan, Lineage, ProvenanceError, RowKey, RowView};

/// A row and its provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The table.
    pub table: String,
    /// The identity of the row.
    pub id: RowIdentity,
    /// The row's columns; times in RFC 3339, bytes in base64, long values truncated.
    pub row: RowView,
    /// The plugin.
    pub plugin: String,
    /// The version that wrote it; none where the ledger does not know.
    pub version: Option<String>,
    /// That version's digest.
    pub digest: Option<String>,
    /// Whether its message was a dead letter that a retry resolved.
    pub healed: bool,
    /// The source.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The epoch of the source.
    pub epoch: u64,
    /// The sequence of the message.
    pub sequence: u64,
    /// A limitation of this answer.
    pub note: Option<String>,
    /// The message, if it is still available.
    pub message: Option<TracedMessage>,
    /// Why the message is unavailable.
    pub gone: Option<String>,
}

/// The message behind a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedMessage {
    /// Where it was found: `stream` or `dead-letter`.
    pub found_in: &'static str,
    /// The subject of the message.
    pub subject: String,
    /// Publication time (RFC 3339).
    pub published: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Size of the payload in bytes.
    pub payload_bytes: usize,
    /// The payload, if it is UTF-8 text.
    pub payload_text: Option<String>,
    /// The payload in base64.
    pub payload_base64: String,
}

/// The work of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionWork {
    /// The plugin.
    pub plugin: String,
    /// The version number.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// The ranges of messages that it handled, in order.
    pub ranges: Vec<WorkRange>,
    /// Dead letters, of any range, that it resolved.
    pub healed: u64,
}

/// A range of messages that one version handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkRange {
    /// The source.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The epoch of the source.
    pub epoch: u64,
    /// The first sequence.
    pub first_sequence: u64,
    /// The last sequence.
    pub last_sequence: u64,
    /// Messages handled: projected, skipped and dead together.
    pub messages: u64,
    /// Messages that produced rows.
    pub projected: u64,
    /// Messages that the plugin skipped.
    pub skipped: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Sequences that were gone from the stream before the host read them.
    pub missing: u64,
    /// Rows that are present now.
    pub rows: u64,
    /// The same by table.
    pub tables: BTreeMap<String, u64>,
    /// When the first batch was committed (RFC 3339).
    pub first_at: String,
    /// When the last batch was committed.
    pub last_at: String,
}

impl From<ProvenanceError> for LifecycleError {
    fn from(error: ProvenanceError) -> Self {
        match error {
            ProvenanceError::NoVersion { plugin, version } => Self::NoVersion { plugin, version },
            ProvenanceError::Key { .. } => Self::BadSettings(vec![error.to_string()]),
            ProvenanceError::NoTable(_) | ProvenanceError::NoRow(_) => Self::NotFound(error.to_string()),
            ProvenanceError::Unavailable(_) => Self::Unavailable(error.to_string()),
        }
    }
}

impl Lifecycle {
    /// The provenance of a row: its message, and the version that handled it.
    ///
    /// # Errors
    /// [`LifecycleError::NotFound`] when there is no such table or row, [`LifecycleError::BadSettings`] when the key
    /// cannot be one of the table, and [`LifecycleError::Unavailable`].
    pub async fn trace(&self, table: &str, key: RowKey) -> Result<Trace, LifecycleError> {
        let found = self.inner.parts.store.reader().trace_row(table, key).await?;
        let stream_message = self.inner.message_of(&found.lineage, found.sequence).await;
        let healed = found.letter.is_some();
        let (message, gone) = match (stream_message, found.letter) {
            (Ok(delivery), _) => (Some(to_view("stream", &delivery)), None),
            (Err(_), Some(letter)) => (Some(to_view("dead-letter", &letter)), None),
            (Err(reason), None) => (None, Some(reason)),
        };
        let note = found.merges.then(|| {
            "writes into this table update rows: this is the last message that wrote the row, and earlier messages \
             may have contributed to it"
                .to_owned()
        });
        Ok(Trace {
            table: table.to_owned(),
            id: found.id,
            row: found.row,
            plugin: found.plugin,
            version: found.version,
            digest: found.digest,
            healed,
            source: found.lineage.source,
            stream: found.lineage.stream,
            epoch: found.lineage.epoch,
            sequence: found.sequence,
            note,
            message,
            gone,
        })
    }

    /// The work of a version: the ranges of messages that it handled, and their rows that are present now.
    ///
    /// # Errors
    /// [`LifecycleError::NoVersion`] and [`LifecycleError::Unavailable`].
    pub async fn work_of(&self, plugin: &str, digest: Digest) -> Result<VersionWork, LifecycleError> {
        let store = &self.inner.parts.store;
        let work = store.reader().version_work(plugin, &digest.to_string()).await?;
        let mut ranges = Vec::with_capacity(work.spans.len());
        for span in work.spans {
            let origin = span.lineage.origin;
            let tables = store
                .reader()
                .count_rows_of_range(plugin, origin, span.first, span.last)
                .await?;
            ranges.push(to_work_range(span, tables));
        }
        Ok(VersionWork {
            plugin: plugin.to_owned(),
            version: work.name,
            digest: digest.to_string(),
            ranges,
            healed: work.healed,
        })
    }
}

impl Inner {
    /// The message at a sequence of a history; the error says why it is unavailable.
    async fn message_of(&self, lineage: &Lineage, sequence: u64) -> Result<Delivery, String> {
        let stream = self.same_history(lineage).await?;
        let found = self.parts.broker.stored_message(&stream, sequence).await;
        match found {
            Ok(Some(delivery)) => Ok(delivery),
            Ok(None) => Err(format!("it is no longer in stream {stream}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The stream of a history, if its sequences still identify the same messages; otherwise the reason.
    pub(super) async fn same_history(&self, lineage: &Lineage) -> Result<String, String> {
        let Some(stream) = &lineage.stream else {
            return Err("core NATS stores no messages".to_owned());
        };
        if !lineage.present {
            return Err(format!(
                "it belongs to an earlier history of stream {stream} (epoch {}), whose sequences now identify other \
                 messages",
                lineage.epoch
            ));
        }
        let identity = self.parts.store.reader().epoch_identity(lineage.origin).await;
        let Some(attached) = identity.map_err(|error| error.with_cause())? else {
            return Err(format!("epoch {} has no checkpoint", lineage.epoch));
        };
        match compare_history(&self.parts.broker, stream, &attached).await {
            Ok(HistoryComparison::Same(_)) => Ok(stream.clone()),
            Ok(HistoryComparison::Other(reason)) => Err(other_history(stream, &reason)),
            Ok(HistoryComparison::Missing) => Err(format!("stream {stream} no longer exists")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Why the sequences of a stream do not identify the messages that were read.
pub(super) fn other_history(stream: &str, reason: &str) -> String {
    format!("stream {stream} is not the one that was read: {reason}")
}

fn to_view(found_in: &'static str, delivery: &Delivery) -> TracedMessage {
    TracedMessage {
        found_in,
        subject: delivery.subject.clone(),
        published: delivery.published().to_rfc3339(),
        headers: delivery.headers.clone(),
        payload_bytes: delivery.payload.len(),
        payload_text: std::str::from_utf8(&delivery.payload).ok().map(str::to_owned),
        payload_base64: STANDARD.encode(&delivery.payload),
    }
}

pub(super) fn to_work_range(span: LedgerSpan, tables: BTreeMap<String, u64>) -> WorkRange {
    WorkRange {
        source: span.lineage.source,
        stream: span.lineage.stream,
        epoch: span.lineage.epoch,
        first_sequence: span.first,
        last_sequence: span.last,
        messages: span.counts.messages,
        projected: span.counts.projected,
        skipped: span.counts.skipped,
        dead: span.counts.dead,
        missing: span.counts.missing,
        rows: tables.values().sum(),
        tables,
        first_at: span.first_at.to_rfc3339(),
        last_at: span.last_at.to_rfc3339(),
    }
}
