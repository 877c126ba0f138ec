//! Deletes erased messages from their streams. A deletion is a round trip and a write on the broker, so several are in
//! flight.

use std::sync::Arc;

use futures_util::StreamExt as _;

use super::super::LifecycleError;
use super::{BATCH_MESSAGES, ErasureTask, REQUESTS, stored, unavailable};
use lantern_broker::BrokerError;
use lantern_store::forget::{Erased, Erasure, OutstandingMessage, StoredMessage};

impl ErasureTask<'_> {
    /// Deletes erased messages from their streams, also those that earlier erasures have left.
    pub(super) async fn delete_outstanding(&mut self) -> Result<(), LifecycleError> {
        let store = Arc::clone(&self.inner.parts.store);
        let limit = u32::try_from(BATCH_MESSAGES).unwrap_or(u32::MAX);
        let mut after = None;
        loop {
            let batch = store.outstanding_messages(after.take(), limit).await?;
            let Some(last) = batch.last() else {
                break;
            };
            after = Some((last.stream.clone(), last.sequence));
            // The batch is in the order of streams.
            for messages in batch.chunk_by(|one, next| one.stream == next.stream) {
                let done = self.delete_some(messages).await?;
                store.note_deleted(done).await?;
            }
        }
        let names: Vec<String> = self
            .report
            .streams
            .iter()
            .map(|stream| stream.stream.clone())
            .collect();
        for name in names {
            self.note_copies(&name).await?;
        }
        Ok(())
    }

    /// Deletes messages of one stream. Returns those that the stream no longer holds.
    async fn delete_some(
        &mut self,
        messages: &[OutstandingMessage],
    ) -> Result<Vec<OutstandingMessage>, LifecycleError> {
        let Some(name) = messages.first().map(|message| message.stream.clone()) else {
            return Ok(Vec::new());
        };
        if self.stream(&name).reason.is_some() {
            self.stream(&name).messages_left += messages.len() as u64;
            return Ok(Vec::new());
        }
        let found = self.find(&name, messages).await?;
        let (mut done, mut present) = (Vec::new(), Vec::new());
        for (message, found) in messages.iter().zip(found) {
            match found {
                Some(found) => present.push((message.sequence, found)),
                None => done.push(message.clone()),
            }
        }
        self.stream(&name).messages_gone += done.len() as u64;
        self.erase_unknown(&name, &present).await?;
        let deleted = self.delete_present(&name, &present).await?;
        let is_deleted = |message: &&OutstandingMessage| deleted.contains(&message.sequence);
        done.extend(messages.iter().filter(is_deleted).cloned());
        Ok(done)
    }

    /// The messages as the stream holds them; none where it holds no message, or that of another history.
    async fn find(
        &mut self,
        name: &str,
        messages: &[OutstandingMessage],
    ) -> Result<Vec<Option<StoredMessage>>, LifecycleError> {
        let created_ns = self.facts(name).await?.map_or(0, |facts| facts.created_ns);
        let broker = &self.inner.parts.broker;
        let wanted: Vec<(u64, i64)> = messages
            .iter()
            .map(|message| (message.sequence, message.published_ns))
            .collect();
        let reads = wanted.into_iter().map(|(sequence, published_ns)| async move {
            let found = stored(broker, name.to_owned(), created_ns, sequence).await?;
            Ok::<_, BrokerError>(found.filter(|found| found.published_ns == published_ns))
        });
        let found: Vec<Result<_, BrokerError>> = futures_util::stream::iter(reads)
            .buffered(REQUESTS)
            .collect()
            .await;
        let found: Result<Vec<_>, BrokerError> = found.into_iter().collect();
        found.map_err(|error| unavailable(&error))
    }

    /// Erases in the database what this run has not erased: plugins may have stored rows of these messages since.
    async fn erase_unknown(
        &mut self,
        name: &str,
        present: &[(u64, StoredMessage)],
    ) -> Result<(), LifecycleError> {
        let unknown = present
            .iter()
            .filter(|(sequence, _)| !self.erased.contains(&(name.to_owned(), *sequence)));
        let erasures: Vec<Erasure> = unknown
            .map(|(sequence, stored)| Erasure {
                origin: None,
                sequence: *sequence,
                stored: Some(stored.clone()),
            })
            .collect();
        if erasures.is_empty() {
            return Ok(());
        }
        let Erased {
            rows, dead_letters, ..
        } = self.inner.parts.store.erase(erasures).await?;
        self.count_rows(&rows);
        self.report.dead_letters += dead_letters;
        Ok(())
    }

    /// Deletes messages that the stream holds. Returns the sequences that it no longer holds.
    async fn delete_present(
        &mut self,
        name: &str,
        present: &[(u64, StoredMessage)],
    ) -> Result<Vec<u64>, LifecycleError> {
        let broker = &self.inner.parts.broker;
        let sequences: Vec<u64> = present.iter().map(|(sequence, _)| *sequence).collect();
        let requests = sequences
            .into_iter()
            .map(|sequence| async move { (sequence, broker.delete_message(name, sequence).await) });
        let answers: Vec<(u64, Result<bool, BrokerError>)> = futures_util::stream::iter(requests)
            .buffered(REQUESTS)
            .collect()
            .await;
        let (mut done, mut failure) = (Vec::new(), None);
        for (sequence, answer) in answers {
            let stream = self.stream(name);
            match answer {
                Ok(true) => stream.messages_deleted += 1,
                Ok(false) => stream.messages_gone += 1,
                Err(error @ (BrokerError::Forbidden { .. } | BrokerError::JetStream { .. })) => {
                    let reason = error.to_string();
                    stream.messages_left += 1;
                    stream.remedy = Some(remedy(name, &reason));
                    stream.reason = Some(reason);
                    continue;
                }
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            }
            done.push(sequence);
        }
        match failure {
            // The messages that were deleted stay recorded as outstanding; a repetition finds that they are gone.
            Some(error) => Err(unavailable(&error)),
            None => Ok(done),
        }
    }
}

/// What an operator does about messages that cannot be deleted.
pub(super) fn remedy(stream: &str, reason: &str) -> String {
    if reason.contains("permit ") {
        return format!(
            "permit the host's user to publish to $JS.API.STREAM.MSG.DELETE.{stream}, then run `lantern forget \
             --outstanding`; or delete each with `nats stream rmm {stream} SEQUENCE` as another user"
        );
    }
    format!(
        "deny_delete and sealed cannot be unset: remove the messages with `nats stream purge {stream}` where purging is \
         allowed, let them expire (`nats stream edit {stream} --max-age`), or move the rest to another stream; until then \
         the host does not project them again"
    )
}
