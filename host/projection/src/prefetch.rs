//! Pulls messages in parallel with the pipeline. The messages that arrive while the pipeline is busy form one batch. Several
//! small batches would each wait for a transaction of the writer, so that a short delay of the writer delayed many messages
//! several times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use lantern_broker::{PullError, Pulled, Subscription};
use lantern_model::batch::Delivery;

/// Most messages of one batch. A larger one takes the plugin so long that the writer waits for it.
const MESSAGES_MAX: usize = 4_096;

/// The next batch of a session; bounded in messages and bytes. Dropping it ends the subscription.
pub(super) struct Prefetch {
    slot: Arc<Slot>,
    _pulling: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Slot {
    next: Mutex<Next>,
    /// A batch or an end has arrived.
    filled: Notify,
    /// The batch was taken.
    taken: Notify,
}

#[derive(Default)]
struct Next {
    batch: Option<Pulled>,
    bytes: usize,
    error: Option<PullError>,
    has_ended: bool,
}

impl Prefetch {
    /// Begins to pull batches of about `bytes_max` bytes at most.
    pub(super) fn start(mut subscription: Subscription, messages_max: usize, bytes_max: usize) -> Self {
        let slot = Arc::new(Slot::default());
        let filling = Filling(Arc::clone(&slot));
        let messages_max = messages_max.min(MESSAGES_MAX);
        let pulling = tokio::spawn(async move {
            loop {
                let (messages, bytes) = filling.0.room(messages_max, bytes_max).await;
                match subscription.next(messages, bytes).await {
                    Ok(pulled) => filling.0.add(pulled),
                    Err(error) => return filling.0.fail(error),
                }
            }
        });
        Self {
            slot,
            _pulling: AbortOnDropHandle::new(pulling),
        }
    }

    /// Waits for the next batch. Returns the error of the subscription after its last batch; `None` when pulling has ended
    /// without an error. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> Option<Result<Pulled, PullError>> {
        loop {
            if let Some(result) = self.slot.take() {
                return result;
            }
            self.slot.filled.notified().await;
        }
    }
}

/// Records the end of the task that fills a slot, even after a panic.
struct Filling(Arc<Slot>);

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.filled.notify_one();
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the batch has room. Returns how many messages and bytes.
    async fn room(&self, messages_max: usize, bytes_max: usize) -> (usize, usize) {
        loop {
            if let Some(room) = self.lock().room(messages_max, bytes_max) {
                return room;
            }
            self.taken.notified().await;
        }
    }

    fn add(&self, pulled: Pulled) {
        self.lock().add(pulled);
        self.filled.notify_one();
    }

    fn fail(&self, error: PullError) {
        self.lock().error = Some(error);
    }

    /// The batch, then the error, then the end; the outer `None` if there is nothing yet.
    fn take(&self) -> Option<Option<Result<Pulled, PullError>>> {
        let mut next = self.lock();
        if let Some(batch) = next.batch.take() {
            next.bytes = 0;
            self.taken.notify_one();
            return Some(Some(Ok(batch)));
        }
        match next.error.take() {
            Some(error) => Some(Some(Err(error))),
            None => next.has_ended.then_some(None),
        }
    }
}

impl Next {
    fn room(&self, messages_max: usize, bytes_max: usize) -> Option<(usize, usize)> {
        let messages = self.batch.as_ref().map_or(0, |batch| batch.deliveries.len());
        let left = (
            messages_max.max(1).saturating_sub(messages),
            bytes_max.saturating_sub(self.bytes),
        );
        // The first message of a batch may have any size.
        (messages == 0 || (left.0 > 0 && left.1 > 0)).then_some(left)
    }

    fn add(&mut self, pulled: Pulled) {
        let sizes = pulled.deliveries.iter().map(Delivery::size_bytes);
        self.bytes += sizes.sum::<usize>();
        match &mut self.batch {
            Some(batch) => batch.append(pulled),
            None => self.batch = Some(pulled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled(sequences: &[u64], bytes: usize) -> Pulled {
        let delivery = |sequence: &u64| Delivery {
            subject: String::new(),
            sequence: *sequence,
            published_ns: 0,
            headers: Vec::new(),
            payload: vec![0; bytes].into(),
        };
        Pulled::without_ack(sequences.iter().map(delivery).collect())
    }

    fn sequences(taken: Option<Option<Result<Pulled, PullError>>>) -> Vec<u64> {
        let batch = taken.unwrap().unwrap().unwrap();
        batch
            .deliveries
            .iter()
            .map(|delivery| delivery.sequence)
            .collect()
    }

    #[test]
    fn messages_that_arrive_before_a_batch_is_taken_join_it() {
        let slot = Slot::default();
        slot.add(pulled(&[1], 1));
        slot.add(pulled(&[2, 3], 1));
        assert_eq!(sequences(slot.take()), [1, 2, 3]);
        assert!(slot.take().is_none());
        slot.add(pulled(&[4], 1));
        assert_eq!(sequences(slot.take()), [4]);
    }

    #[test]
    fn a_batch_is_bounded_in_messages_and_bytes_except_for_its_first_message() {
        let mut next = Next::default();
        assert_eq!(next.room(3, 10), Some((3, 10)));
        next.add(pulled(&[1], 4));
        assert_eq!(next.room(3, 10), Some((2, 6)));
        next.add(pulled(&[2, 3], 1));
        assert_eq!(next.room(3, 10), None, "three messages");
        assert_eq!(next.room(4, 6), None, "six bytes");
        assert_eq!(Next::default().room(0, 0), Some((1, 0)));
    }

    #[test]
    fn an_error_follows_the_last_batch_and_the_end_follows_the_error() {
        let slot = Arc::new(Slot::default());
        let filling = Filling(Arc::clone(&slot));
        filling.0.add(pulled(&[1], 1));
        filling.0.fail(PullError::Reconnected);
        drop(filling);
        assert_eq!(sequences(slot.take()), [1]);
        assert!(matches!(slot.take(), Some(Some(Err(PullError::Reconnected)))));
        assert!(matches!(slot.take(), Some(None)));
    }

    #[tokio::test]
    async fn a_full_batch_stops_the_reader_until_it_is_taken() {
        let slot = Arc::new(Slot::default());
        slot.add(pulled(&[1, 2], 1));
        let waiting = tokio::spawn({
            let slot = Arc::clone(&slot);
            async move { slot.room(2, 100).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(sequences(slot.take()), [1, 2]);
        assert_eq!(waiting.await.unwrap(), (2, 100));
    }
}
