//! The provenance of a row, and the work of a version. A row leads to its message, and the message to the version that
//! the ledger names. The message itself is available while the stream holds it, or if a dead letter kept it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Inner, Lifecycle, LifecycleError};
use lantern_model::batch::Delivery;
use lantern_model::results::work::{Trace, TracedMessage, VersionWork, WorkRange};
use lantern_plugin::Digest;
use lantern_projection::{HistoryComparison, compare_history};
use lantern_store::{LedgerSpan, Lineage, ProvenanceError, RowKey};

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
        let was_dead_letter = found.dead_letter.is_some();
        let (message, message_missing) = match (stream_message, found.dead_letter) {
            (Ok(delivery), _) => (Some(to_view("stream", &delivery)), None),
            (Err(_), Some(dead_letter)) => (Some(to_view("dead-letter", &dead_letter)), None),
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
            was_dead_letter,
            source: found.lineage.source,
            stream: found.lineage.stream,
            epoch: found.lineage.epoch,
            sequence: found.sequence,
            note,
            message,
            message_missing,
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
            resolved: work.resolved,
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

fn to_view(found_in: &str, delivery: &Delivery) -> TracedMessage {
    TracedMessage {
        found_in: found_in.to_owned(),
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
        row_count: tables.values().sum(),
        row_count_by_table: tables,
        first_at: span.first_at.to_rfc3339(),
        last_at: span.last_at.to_rfc3339(),
    }
}
