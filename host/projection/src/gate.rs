//! Keeps the projections of a rebuild at or before the live checkpoints, and orders messages of several sources by
//! time.
//!
//! A rebuild reads exactly the messages that the live tables were made from: no message after their checkpoint. Its
//! counters are therefore comparable with the ledger. Where several sources write tables with keys, the order of their
//! messages determines a row; the gate admits them in the order in which the broker stored them.

use std::sync::Arc;

use tokio::sync::watch;

use lantern_broker::AckToken;
use lantern_model::batch::Delivery;

/// Shared by the projections of one rebuild and the task that drives it.
pub struct Gate {
    sources: watch::Sender<Vec<Source>>,
    in_order: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    /// The last sequence that the gate admits.
    until: u64,
    /// Every message up to here that the stream still holds is stored.
    through: u64,
    /// Publication time of the next message; `None` while unknown.
    next_ns: Option<i64>,
    /// The checkpoint of the rebuild's projection.
    checkpoint: u64,
    state: FillState,
}

/// The state of one projection of a rebuild. The rebuild decides by this value; the status is for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FillState {
    /// It has no subscription at the moment.
    #[default]
    Waiting,
    /// It reads its source.
    Reading,
    /// It cannot continue, for this reason.
    Failed(String),
}

impl Gate {
    /// Creates a gate with one source for each sequence; a source may take messages up to its sequence. With
    /// `in_order`, the gate admits messages of different sources in the order of their times.
    pub fn new(until: &[u64], in_order: bool) -> Arc<Self> {
        let source = |until: &u64| Source {
            until: *until,
            through: 0,
            next_ns: None,
            checkpoint: 0,
            state: FillState::default(),
        };
        Arc::new(Self {
            sources: watch::Sender::new(until.iter().map(source).collect()),
            in_order: in_order && until.len() > 1,
        })
    }

    /// Whether the gate orders messages of different sources by time, which is slower.
    pub fn is_in_order(&self) -> bool {
        self.in_order
    }

    /// Lets a source take messages up to this sequence. The limit never decreases.
    pub fn raise(&self, source: usize, until: u64) {
        self.change(source, |source| source.until = source.until.max(until));
    }

    /// The last sequence that a source may take.
    pub fn until(&self, source: usize) -> u64 {
        self.sources.borrow().get(source).map_or(0, |source| source.until)
    }

    /// Whether a source has stored everything that it may take.
    pub fn is_through(&self, source: usize) -> bool {
        let sources = self.sources.borrow();
        sources
            .get(source)
            .is_some_and(|source| source.through >= source.until)
    }

    /// Whether a source reads, and lacks at most `lag_max` sequences of what it may take.
    pub fn is_nearly_through(&self, source: usize, lag_max: u64) -> bool {
        self.sources.borrow().get(source).is_some_and(|source| {
            source.state == FillState::Reading
                && (source.through >= source.until || source.checkpoint + lag_max >= source.until)
        })
    }

    /// The first source that cannot continue, with the reason.
    pub fn failure(&self) -> Option<(usize, String)> {
        let sources = self.sources.borrow();
        let mut failures = sources
            .iter()
            .enumerate()
            .filter_map(|(number, source)| match &source.state {
                FillState::Failed(reason) => Some((number, reason.clone())),
                FillState::Waiting | FillState::Reading => None,
            });
        failures.next()
    }

    /// Waits until all sources have stored everything that they may take.
    pub async fn all_through(&self) {
        let mut sources = self.sources.subscribe();
        let through = |sources: &Vec<Source>| sources.iter().all(|source| source.through >= source.until);
        // The sender is `self`, so waiting cannot fail.
        drop(sources.wait_for(through).await);
    }

    fn change(&self, source: usize, act: impl FnOnce(&mut Source)) {
        self.sources
            .send_if_modified(|sources| match sources.get_mut(source) {
                Some(source) => {
                    let before = source.clone();
                    act(source);
                    *source != before
                }
                None => false,
            });
    }
}

/// One projection's handle to the gate.
#[derive(Clone)]
pub struct GateKeeper {
    gate: Arc<Gate>,
    source: usize,
    changes: watch::Receiver<Vec<Source>>,
}

impl GateKeeper {
    /// The handle of the source with this number.
    pub fn new(gate: &Arc<Gate>, source: usize) -> Self {
        Self {
            gate: Arc::clone(gate),
            source,
            changes: gate.sources.subscribe(),
        }
    }

    /// Records a checkpoint. No projection waits for it.
    pub(super) fn record_checkpoint(&self, checkpoint: u64) {
        self.gate.sources.send_if_modified(|sources| {
            if let Some(source) = sources.get_mut(self.source) {
                source.checkpoint = checkpoint;
            }
            false
        });
    }

    pub(super) fn set_state(&self, state: FillState) {
        self.gate.change(self.source, |source| source.state = state);
    }

    /// Waits until the gate has changed since [`Self::admit`].
    pub(super) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns how many of the waiting messages the projection may take now. `stored` is the last stored sequence, or
    /// `None` while a taken message is not stored yet.
    pub(super) fn admit(&mut self, waiting: &[Delivery], stored: Option<u64>) -> usize {
        let next = waiting
            .first()
            .map(|delivery| (delivery.sequence, delivery.published_ns));
        self.gate.change(self.source, |source| {
            source.next_ns = next
                .filter(|(sequence, _)| *sequence <= source.until)
                .map(|(_, time)| time);
            if let Some(stored) = stored {
                source.through = source.through.max(stored);
                if next.is_some_and(|(sequence, _)| sequence > source.until) {
                    source.through = source.through.max(source.until);
                }
            }
        });
        let sources = self.changes.borrow_and_update();
        let Some(own) = sources.get(self.source) else {
            return 0;
        };
        let until = waiting
            .iter()
            .take_while(|delivery| delivery.sequence <= own.until);
        if !self.gate.in_order {
            return until.count();
        }
        let mut before = None;
        for (number, other) in sources.iter().enumerate() {
            if number == self.source || other.through >= other.until {
                continue;
            }
            let Some(next_ns) = other.next_ns else {
                return 0;
            };
            before = Some(before.map_or((next_ns, number), |before: (i64, usize)| {
                before.min((next_ns, number))
            }));
        }
        until
            .take_while(|delivery| before.is_none_or(|before| (delivery.published_ns, self.source) < before))
            .count()
    }

    /// Records that the stream holds no message up to `sequence` that is not stored.
    pub(super) fn nothing_left(&self, sequence: u64) {
        self.gate.change(self.source, |source| {
            source.through = source.through.max(sequence)
        });
    }

    /// The last sequence that the source may take.
    pub(super) fn until(&self) -> u64 {
        self.gate.until(self.source)
    }
}

/// Pulled messages that were not projected yet: the gate does not admit them, or the plugin is slow.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) deliveries: Vec<Delivery>,
    ack: Option<AckToken>,
}

impl Waiting {
    pub(super) fn put(&mut self, mut deliveries: Vec<Delivery>, ack: AckToken, handed: u64) {
        deliveries.retain(|delivery| delivery.sequence > handed);
        *self = Self {
            deliveries,
            ack: Some(ack),
        };
    }

    /// Takes the first `count` messages. The last of them carries the acknowledgement of all.
    pub(super) fn take(&mut self, count: usize) -> (Vec<Delivery>, Option<AckToken>) {
        let rest = self.deliveries.split_off(count);
        let part = std::mem::replace(&mut self.deliveries, rest);
        let ack = self.deliveries.is_empty().then(|| self.ack.take()).flatten();
        (part, ack)
    }

    /// Puts messages back in front, with their acknowledgement.
    pub(super) fn put_back(&mut self, mut deliveries: Vec<Delivery>, ack: Option<AckToken>) {
        deliveries.append(&mut self.deliveries);
        self.deliveries = deliveries;
        if ack.is_some() {
            self.ack = ack;
        }
    }
}

/// Waits until the gate has changed; forever if there is no gate.
pub(super) async fn gate_changed(gate: &mut Option<GateKeeper>) {
    match gate {
        Some(gate) => gate.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliveries(of: &[(u64, i64)]) -> Vec<Delivery> {
        let each = of.iter().map(|(sequence, published_ns)| Delivery {
            subject: "s".into(),
            sequence: *sequence,
            published_ns: *published_ns,
            headers: Vec::new(),
            payload: bytes::Bytes::new(),
        });
        each.collect()
    }

    #[test]
    fn no_message_after_the_live_checkpoint_is_projected() {
        let gate = Gate::new(&[5], true);
        let mut keeper = GateKeeper::new(&gate, 0);
        let waiting = deliveries(&[(4, 40), (5, 50), (6, 60)]);
        assert_eq!(keeper.admit(&waiting, Some(3)), 2);
        assert!(!gate.is_through(0));
        assert_eq!(keeper.admit(&waiting[2..], None), 0);
        assert!(!gate.is_through(0), "5 is not stored yet");
        assert_eq!(keeper.admit(&waiting[2..], Some(5)), 0);
        assert!(gate.is_through(0));
        gate.raise(0, 6);
        assert!(!gate.is_through(0));
        assert_eq!(keeper.admit(&waiting[2..], Some(5)), 1);
        keeper.nothing_left(9);
        assert!(gate.is_through(0));
    }

    #[test]
    fn the_state_of_a_fill_decides_and_not_its_status() {
        let gate = Gate::new(&[100], false);
        let keeper = GateKeeper::new(&gate, 0);
        keeper.record_checkpoint(95);
        assert!(!gate.is_nearly_through(0, 10), "it does not read yet");
        keeper.set_state(FillState::Reading);
        assert!(gate.is_nearly_through(0, 5));
        assert!(!gate.is_nearly_through(0, 4));
        keeper.nothing_left(100);
        assert!(gate.is_nearly_through(0, 0), "the stream holds nothing more");
        assert_eq!(gate.failure(), None);
        keeper.set_state(FillState::Failed("the disk is full".into()));
        assert!(!gate.is_nearly_through(0, 10));
        assert_eq!(gate.failure(), Some((0, "the disk is full".to_owned())));
    }

    #[test]
    fn a_message_after_the_checkpoint_shows_that_all_before_it_were_read() {
        let gate = Gate::new(&[5], false);
        let mut keeper = GateKeeper::new(&gate, 0);
        // The stream no longer holds 5.
        assert_eq!(keeper.admit(&deliveries(&[(6, 60)]), Some(4)), 0);
        assert!(gate.is_through(0));
    }

    #[test]
    fn sources_alternate_in_order_of_time() {
        let gate = Gate::new(&[9, 9], true);
        let [mut one, mut two] = [0, 1].map(|source| GateKeeper::new(&gate, source));
        let first = deliveries(&[(1, 10), (2, 30), (3, 50)]);
        let second = deliveries(&[(1, 20), (2, 30), (3, 60)]);
        assert_eq!(
            one.admit(&first, Some(0)),
            0,
            "the next message of the other source is unknown"
        );
        assert_eq!(two.admit(&second, Some(0)), 0, "20 is later than 10");
        assert_eq!(one.admit(&first, Some(0)), 1);
        assert_eq!(one.admit(&first[1..], None), 0);
        assert_eq!(two.admit(&second, Some(0)), 1);
        assert_eq!(
            two.admit(&second[1..], None),
            0,
            "at equal times, the first source goes first"
        );
        assert_eq!(one.admit(&first[1..], None), 1);
        assert_eq!(one.admit(&first[2..], None), 0);
        assert_eq!(two.admit(&second[1..], None), 1);
        assert_eq!(two.admit(&second[2..], None), 0);
        assert_eq!(one.admit(&first[2..], None), 1);
        // The first source has no messages left.
        one.nothing_left(9);
        assert_eq!(two.admit(&second[2..], None), 1);
    }
}
