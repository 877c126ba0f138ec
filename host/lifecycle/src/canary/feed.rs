//! What a canary reads: for each source the last messages of its stream, or what comes for a while. Each source has a
//! task of its own that reads ahead by one small batch; the task ends by itself, or when the canary is dropped.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::CanaryRequest;
use lantern_broker::{Broker, BrokerError, EphemeralRead};
use lantern_model::batch::Delivery;
use lantern_model::schema::{Manifest, Origin};

/// Messages of one batch: few, so that nothing is held up for long by the work on them.
const BATCH_MESSAGES: usize = 256;
/// Bytes of one batch; a single message may be larger. Each source holds two batches at the most.
const BATCH_BYTES: usize = 1 << 20;
/// How long a batch of live messages is waited for.
const LIVE_WAIT: Duration = Duration::from_millis(300);
/// Messages of one source that a live canary reads at the most.
const LIVE_MESSAGES_MAX: u64 = 100_000;

/// One thing that is read, and which version takes part in it by which number of the source. Both do where they read
/// it in the same way.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// The source's name.
    pub(super) source: String,
    /// Where its messages come from.
    pub(super) origin: Origin,
    /// The source's number in the active version.
    pub(super) old: Option<usize>,
    /// The source's number in the candidate.
    pub(super) new: Option<usize>,
}

/// What a reader hands over.
pub(super) enum Fed {
    /// Messages, in order.
    Batch(usize, Vec<Delivery>),
    /// A lane is read to its end. The remark says what is worth knowing.
    End(usize, Option<Remark>),
}

/// What was not as it should be with a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) words: String,
    /// Whether the result is not the whole one because of it.
    pub(super) partial: bool,
}

impl Remark {
    fn note(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            partial: false,
        }
    }

    fn partial(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            partial: true,
        }
    }
}

/// All lanes of two versions.
pub(super) fn lanes(old: Option<&Manifest>, new: &Manifest) -> Vec<Lane> {
    let mut lanes = Vec::new();
    for (number, source) in new.sources.iter().enumerate() {
        let before = old.and_then(|old| old.source(source.name.as_str()));
        let alike = before.filter(|(_, before)| before.origin == source.origin);
        lanes.push(Lane {
            source: source.name.to_string(),
            origin: source.origin.clone(),
            old: alike.map(|(number, _)| number),
            new: Some(number),
        });
    }
    for (number, source) in old.iter().flat_map(|old| old.sources.iter().enumerate()) {
        let name = source.name.as_str();
        let read = |lane: &Lane| lane.source == name && lane.old.is_some();
        if !lanes.iter().any(read) {
            lanes.push(Lane {
                source: name.to_owned(),
                origin: source.origin.clone(),
                old: Some(number),
                new: None,
            });
        }
    }
    lanes
}

/// Begins to read all lanes. What they hand over comes through the channel, which ends when all are read.
pub(super) fn read_all(
    broker: &Broker,
    lanes: &[Lane],
    request: &CanaryRequest,
) -> (JoinSet<()>, mpsc::Receiver<Fed>) {
    // One batch waits while another is worked on.
    let (sender, receiver) = mpsc::channel(1);
    let mut readers = JoinSet::new();
    let until = request.live.map(|live| Instant::now() + live);
    for (number, lane) in lanes.iter().enumerate() {
        let reader = Reader {
            broker: broker.clone(),
            number,
            messages: request.messages,
            until,
            sender: sender.clone(),
        };
        let origin = lane.origin.clone();
        readers.spawn(async move {
            let remark = reader.read(&origin).await;
            // A canary that has ended needs no more.
            drop(reader.sender.send(Fed::End(reader.number, remark)).await);
        });
    }
    (readers, receiver)
}

struct Reader {
    broker: Broker,
    number: usize,
    messages: Option<u64>,
    until: Option<Instant>,
    sender: mpsc::Sender<Fed>,
}

impl Reader {
    async fn read(&self, origin: &Origin) -> Option<Remark> {
        match origin {
            Origin::JetStream { stream, subjects } => match self.stream(stream, subjects).await {
                Ok(remark) => remark,
                Err(error) => Some(Remark::partial(error.to_string())),
            },
            Origin::Core { subjects } => self.core(subjects).await,
        }
    }

    async fn stream(&self, stream: &str, subjects: &[String]) -> Result<Option<Remark>, BrokerError> {
        let Some(facts) = self.broker.stream_facts(stream).await? else {
            return Ok(Some(Remark::note(format!("there is no stream {stream}"))));
        };
        let last = facts.last_sequence;
        let (first, surplus) = match self.messages {
            Some(messages) => self.broker.sequence_of_last(stream, subjects, messages).await?,
            None => (last + 1, 0),
        };
        let Some(mut reading) = self.broker.read(stream, subjects, first).await? else {
            return Ok(Some(Remark::note(format!("there is no stream {stream}"))));
        };
        let read = self.stretch(&mut reading, last, surplus).await;
        reading.close().await;
        read
    }

    /// From the beginning of the reading to `last`, and on from there while it is live. `surplus` messages are left
    /// out at the beginning.
    async fn stretch(
        &self,
        reading: &mut EphemeralRead,
        last: u64,
        surplus: u64,
    ) -> Result<Option<Remark>, BrokerError> {
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
            if !self.hand_over(batch).await {
                return Ok(None);
            }
        }
        let mut live = 0;
        while let Some(until) = self.until
            && Instant::now() < until
        {
            if live >= LIVE_MESSAGES_MAX {
                return Ok(Some(too_many()));
            }
            let wait = LIVE_WAIT
                .min(until - Instant::now())
                .max(Duration::from_millis(1));
            let batch = reading.next(BATCH_MESSAGES, BATCH_BYTES, wait).await?;
            live += batch.len() as u64;
            if !self.hand_over(batch).await {
                return Ok(None);
            }
        }
        Ok(None)
    }

    async fn core(&self, subjects: &[String]) -> Option<Remark> {
        let Some(until) = self.until else {
            return Some(Remark::note(
                "core NATS keeps no messages: it takes part in a live canary only",
            ));
        };
        let mut subscription = match self.broker.subscribe_core(subjects).await {
            Ok(subscription) => subscription,
            Err(error) => return Some(Remark::partial(error.to_string())),
        };
        let mut sequence = 0;
        while let Ok(batch) =
            tokio::time::timeout_at(until, subscription.next(BATCH_MESSAGES, BATCH_BYTES)).await
        {
            let mut batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Some(Remark::partial(error.to_string())),
            };
            for delivery in &mut batch {
                sequence += 1;
                delivery.sequence = sequence;
            }
            if !self.hand_over(batch).await {
                return None;
            }
            if sequence >= LIVE_MESSAGES_MAX {
                return Some(too_many());
            }
        }
        match subscription.dropped() {
            0 => None,
            dropped => Some(Remark::partial(format!(
                "{dropped} messages were dropped: they came faster than they were projected"
            ))),
        }
    }

    /// Whether there is anybody who wants more.
    async fn hand_over(&self, batch: Vec<Delivery>) -> bool {
        batch.is_empty() || self.sender.send(Fed::Batch(self.number, batch)).await.is_ok()
    }
}

fn too_many() -> Remark {
    Remark::partial(format!(
        "more than {LIVE_MESSAGES_MAX} messages came; the rest was not read"
    ))
}
