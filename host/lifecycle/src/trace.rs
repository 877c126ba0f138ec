//! Where a row comes from, and what a version has made. A row leads to its message, the message to the version that the
//! ledger names for it; the message itself is shown as long as the stream has it, or a dead letter was kept of it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Inner, Lifecycle, LifecycleError};
use lantern_model::batch::Delivery;
use lantern_plugin::Digest;
use lantern_store::{LedgerSpan, Lineage, ProvenanceError, RowKey, ShownRow};

/// A row with where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Trace {
    /// The table.
    pub table: String,
    /// The row's columns; times in RFC 3339, bytes in base64, long values cut.
    #[schema(value_type = Object)]
    pub row: ShownRow,
    /// `_origin`: which history of which source.
    pub origin: i64,
    /// `_row`: its number among the rows of its message.
    pub row_number: u64,
    /// The plugin.
    pub plugin: String,
    /// The version that made it; none where the ledger does not know.
    pub version: Option<String>,
    /// That version's digest.
    pub digest: Option<String>,
    /// Whether its message was a dead letter before that version could project it.
    pub healed: bool,
    /// The source.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// Which history of the source.
    pub epoch: u64,
    /// The sequence of the message in it.
    pub sequence: u64,
    /// What has to be known in order to understand this.
    pub note: Option<String>,
    /// The message, where it is still there.
    pub message: Option<TracedMessage>,
    /// Why it is not.
    pub gone: Option<String>,
}

/// The message behind a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TracedMessage {
    /// Where it was found: `stream`, or `dead-letter`.
    pub found_in: &'static str,
    /// The subject that it was published to.
    pub subject: String,
    /// When (RFC 3339).
    pub published: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its size.
    pub payload_bytes: usize,
    /// Its payload, where that is text.
    pub payload_text: Option<String>,
    /// Its payload.
    pub payload_base64: String,
}

/// What a version has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Written {
    /// The plugin.
    pub plugin: String,
    /// The version that it says it is.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// The ranges of messages that it has handled, in order.
    pub ranges: Vec<WrittenRange>,
    /// Dead letters, of any range, that it could project.
    pub healed: u64,
}

/// Messages that one version has handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct WrittenRange {
    /// The source.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// Which history of the source.
    pub epoch: u64,
    /// The first sequence.
    pub first_sequence: u64,
    /// The last one.
    pub last_sequence: u64,
    /// Messages handled: projected, skipped and dead together.
    pub messages: u64,
    /// Those that gave rows.
    pub projected: u64,
    /// Those that gave nothing on purpose.
    pub skipped: u64,
    /// Those that are dead letters.
    pub dead: u64,
    /// Sequences that were gone before they were read.
    pub missing: u64,
    /// Rows that are there now.
    pub rows: u64,
    /// The same by table.
    pub tables: BTreeMap<String, u64>,
    /// When the first batch was stored (RFC 3339).
    pub first_at: String,
    /// When the last one was.
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
    /// Where a row comes from: which message, handled by which version.
    ///
    /// # Errors
    /// [`LifecycleError::NotFound`] when there is no such table or row, [`LifecycleError::BadSettings`] when the key
    /// cannot be one of the table, and [`LifecycleError::Unavailable`].
    pub async fn trace(&self, table: &str, key: RowKey) -> Result<Trace, LifecycleError> {
        let found = self.inner.parts.store.trace_row(table, key).await?;
        let looked = self.inner.message_of(&found.lineage, found.sequence).await;
        let healed = found.letter.is_some();
        let (message, gone) = match (looked, found.letter) {
            (Ok(delivery), _) => (Some(shown_message("stream", &delivery)), None),
            (Err(_), Some(letter)) => (Some(shown_message("dead-letter", &letter)), None),
            (Err(reason), None) => (None, Some(reason)),
        };
        let note = found.merges.then(|| {
            "writes into this table change rows that are there: this is the last message that wrote the row, and \
             earlier ones may have a part in it"
                .to_owned()
        });
        Ok(Trace {
            table: table.to_owned(),
            row: found.row,
            origin: found.lineage.origin.0,
            row_number: found.row_number,
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

    /// What a version has made: the ranges of messages that it handled, and the rows of them that are there now.
    ///
    /// # Errors
    /// [`LifecycleError::NoVersion`] and [`LifecycleError::Unavailable`].
    pub async fn written_by(&self, plugin: &str, digest: Digest) -> Result<Written, LifecycleError> {
        let store = &self.inner.parts.store;
        let work = store.work_of(plugin, &digest.to_string()).await?;
        let mut ranges = Vec::with_capacity(work.spans.len());
        for span in work.spans {
            let origin = span.lineage.origin;
            let tables = store.rows_of(plugin, origin, span.first, span.last).await?;
            ranges.push(written_range(span, tables));
        }
        Ok(Written {
            plugin: plugin.to_owned(),
            version: work.name,
            digest: digest.to_string(),
            ranges,
            healed: work.healed,
        })
    }
}

impl Inner {
    /// The message that stands at a sequence of a history, or why it cannot be had.
    async fn message_of(&self, lineage: &Lineage, sequence: u64) -> Result<Delivery, String> {
        let stream = self.same_history(lineage).await?;
        let found = self.parts.broker.stored_message(&stream, sequence).await;
        match found {
            Ok(Some(delivery)) => Ok(delivery),
            Ok(None) => Err(format!("it is not in stream {stream} any more")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The stream of a history, when its sequences still mean what they meant; or why not.
    pub(super) async fn same_history(&self, lineage: &Lineage) -> Result<String, String> {
        let Some(stream) = &lineage.stream else {
            return Err("core NATS keeps no messages".to_owned());
        };
        if !lineage.present {
            return Err(format!(
                "it is of an earlier history of stream {stream} (epoch {}), whose numbers mean other messages now",
                lineage.epoch
            ));
        }
        match self.parts.broker.stream_facts(stream).await {
            Ok(Some(facts))
                if lineage
                    .stream_created_ns
                    .is_none_or(|created| created == facts.created_ns) =>
            {
                Ok(stream.clone())
            }
            Ok(Some(_)) => Err(format!("stream {stream} was created anew since")),
            Ok(None) => Err(format!("there is no stream {stream} any more")),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn shown_message(found_in: &'static str, delivery: &Delivery) -> TracedMessage {
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

pub(super) fn written_range(span: LedgerSpan, tables: BTreeMap<String, u64>) -> WrittenRange {
    WrittenRange {
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
