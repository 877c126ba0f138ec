//! The messages of a canary: for each source the last messages of its stream, or new messages for a while. Each source
//! has its own task, which reads one small batch ahead and ends when the canary is dropped.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::CanaryRequest;
use lantern_broker::{Broker, BrokerError, EphemeralRead};
use lantern_model::batch::Delivery;
use lantern_model::schema::{Manifest, Origin};

/// Messages in one batch: few, so that other work waits only briefly.
const BATCH_MESSAGES: usize = 256;
/// Bytes in one batch; a single message may be larger. Each source holds at most two batches.
const BATCH_BYTES: usize = 1 << 20;
/// How long to wait for a batch of live messages.
const LIVE_WAIT: Duration = Duration::from_millis(300);
/// Maximum number of messages that a live canary reads from one source.
const LIVE_MESSAGES_MAX: u64 = 100_000;

/// An origin that the canary reads, with the index of the source in each version that reads it. Versions that read an
/// origin in the same way share an entry.
#[derive(Clone, Debug)]
pub(super) struct TrialSource {
    /// The source's name.
    pub(super) source: String,
    /// The origin of its messages.
    pub(super) origin: Origin,
    /// The index of the source in the active version.
    pub(super) baseline: Option<usize>,
    /// The index of the source in the candidate.
    pub(super) candidate: Option<usize>,
}

/// An event from a reader.
pub(super) enum ReadEvent {
    /// Messages, in order.
    Batch(usize, Vec<Delivery>),
    /// A source has no more messages.
    End(usize, Option<ReadNote>),
}

/// A remark about a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadNote {
    pub(super) text: String,
    /// Whether the result is incomplete because of it.
    pub(super) partial: bool,
}

impl ReadNote {
    fn note(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            partial: false,
        }
    }

    fn partial(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            partial: true,
        }
    }
}

/// All origins that the two versions read.
pub(super) fn trial_sources(baseline: Option<&Manifest>, candidate: &Manifest) -> Vec<TrialSource> {
    let mut trial_sources = Vec::new();
    for (number, source) in candidate.sources.iter().enumerate() {
        let before = baseline.and_then(|baseline| baseline.source(source.name.as_str()));
        let alike = before.filter(|(_, before)| before.origin == source.origin);
        trial_sources.push(TrialSource {
            source: source.name.to_string(),
            origin: source.origin.clone(),
            baseline: alike.map(|(number, _)| number),
            candidate: Some(number),
        });
    }
    for (number, source) in baseline
        .iter()
        .flat_map(|baseline| baseline.sources.iter().enumerate())
    {
        let name = source.name.as_str();
        let read = |source: &TrialSource| source.source == name && source.baseline.is_some();
        if !trial_sources.iter().any(read) {
            trial_sources.push(TrialSource {
                source: name.to_owned(),
                origin: source.origin.clone(),
                baseline: Some(number),
                candidate: None,
            });
        }
    }
    trial_sources
}

/// Starts to read all sources. The channel closes when all are read.
pub(super) fn read_all(
    broker: &Broker,
    trial_sources: &[TrialSource],
    request: &CanaryRequest,
) -> (JoinSet<()>, mpsc::Receiver<ReadEvent>) {
    // One batch waits while another is processed.
    let (sender, receiver) = mpsc::channel(1);
    let mut readers = JoinSet::new();
    let until = request.live.map(|live| Instant::now() + live);
    for (number, source) in trial_sources.iter().enumerate() {
        let reader = Reader {
            broker: broker.clone(),
            number,
            messages: request.messages,
            until,
            sender: sender.clone(),
        };
        let origin = source.origin.clone();
        readers.spawn(async move {
            let note = reader.read(&origin).await;
            // A canary that has ended needs no more events.
            drop(reader.sender.send(ReadEvent::End(reader.number, note)).await);
        });
    }
    (readers, receiver)
}

struct Reader {
    broker: Broker,
    number: usize,
    messages: Option<u64>,
    until: Option<Instant>,
    sender: mpsc::Sender<ReadEvent>,
}

impl Reader {
    async fn read(&self, origin: &Origin) -> Option<ReadNote> {
        match origin.replay() {
            Some((stream, subjects)) => match self.stream(stream, subjects).await {
                Ok(note) => note,
                Err(error) => Some(ReadNote::partial(error.to_string())),
            },
            None => self.core(origin.subjects()).await,
        }
    }

    async fn stream(&self, stream: &str, subjects: &[String]) -> Result<Option<ReadNote>, BrokerError> {
        let Some(facts) = self.broker.stream_facts(stream).await? else {
            return Ok(Some(ReadNote::note(format!("there is no stream {stream}"))));
        };
        let last = facts.last_sequence;
        let (first, surplus) = match self.messages {
            Some(messages) => self.broker.sequence_of_last(stream, subjects, messages).await?,
            None => (last + 1, 0),
        };
        let Some(mut reading) = self.broker.read(stream, subjects, first).await? else {
            return Ok(Some(ReadNote::note(format!("there is no stream {stream}"))));
        };
        let read = self.read_range(&mut reading, last, surplus).await;
        reading.close().await;
        read
    }

    /// Reads from the first message to `last`, then live messages if requested. Skips the first `surplus` messages.
    async fn read_range(
        &self,
        reading: &mut EphemeralRead,
        last: u64,
        surplus: u64,
    ) -> Result<Option<ReadNote>, BrokerError> {
        let mut surplus = usize::try_from(surplus).unwrap_or(usize::MAX);
        let mut done = self.messages.is_none();
        while !done {
            let mut batch = reading.next(BATCH_MESSAGES, BATCH_BYTES, Duration::ZERO).await?;
            done = batch.last().is_none_or(|delivery| delivery.sequence >= last);
            if self.until.is_none() {
                batch.retain(|delivery| delivery.sequence <= last);
            }
            let left_out = surplus.min(batch.len());
            batch.drain(..left_out);
            surplus -= left_out;
            if !self.send_batch(batch).await {
                return Ok(None);
            }
        }
        let mut live = 0;
        while let Some(until) = self.until
            && Instant::now() < until
        {
            if live >= LIVE_MESSAGES_MAX {
                return Ok(Some(limit_note()));
            }
            let wait = LIVE_WAIT
                .min(until - Instant::now())
                .max(Duration::from_millis(1));
            let batch = reading.next(BATCH_MESSAGES, BATCH_BYTES, wait).await?;
            live += batch.len() as u64;
            if !self.send_batch(batch).await {
                return Ok(None);
            }
        }
        Ok(None)
    }

    async fn core(&self, subjects: &[String]) -> Option<ReadNote> {
        let Some(until) = self.until else {
            return Some(ReadNote::note(
                "core NATS stores no messages: the source takes part in a live canary only",
            ));
        };
        let mut subscription = match self.broker.subscribe_core(subjects).await {
            Ok(subscription) => subscription,
            Err(error) => return Some(ReadNote::partial(error.to_string())),
        };
        let mut sequence = 0;
        while let Ok(batch) =
            tokio::time::timeout_at(until, subscription.next(BATCH_MESSAGES, BATCH_BYTES)).await
        {
            let mut batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Some(ReadNote::partial(error.to_string())),
            };
            for delivery in &mut batch {
                sequence += 1;
                delivery.sequence = sequence;
            }
            if !self.send_batch(batch).await {
                return None;
            }
            if sequence >= LIVE_MESSAGES_MAX {
                return Some(limit_note());
            }
        }
        match subscription.dropped() {
            0 => None,
            dropped => Some(ReadNote::partial(format!(
                "{dropped} messages were dropped, because they arrived faster than the canary projected them"
            ))),
        }
    }

    /// Sends a batch. Returns whether the receiver wants more.
    async fn send_batch(&self, batch: Vec<Delivery>) -> bool {
        batch.is_empty()
            || self
                .sender
                .send(ReadEvent::Batch(self.number, batch))
                .await
                .is_ok()
    }
}

fn limit_note() -> ReadNote {
    ReadNote::partial(format!(
        "more than {LIVE_MESSAGES_MAX} messages arrived; the rest was not read"
    ))
}
