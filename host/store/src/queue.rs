//! The order in which the writer serves requests: the order of arrival, with one exception. A live batch overtakes the
//! background work that arrived earlier (batches of rebuilds, and steps such as the removal of old rows), and after each
//! live transaction waiting background work is served. So a live batch waits for at most one batch or step of background
//! work, which proceeds under any load. Any other request is a barrier that nothing overtakes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::commit::{Commit, CommitError, Committed};
use super::sql::{self, Connection};

/// Requests that may wait. Each source has at most three batches in flight, and a batch is bounded in bytes, so this
/// bounds the memory of the queue; senders wait when it is full.
pub(super) const REQUESTS_MAX: usize = 64;

pub(super) type CommitReply = oneshot::Sender<Result<Committed, CommitError>>;

/// A change other than a batch. It receives the write connection, or why there is none, and returns the error after which
/// the writer must reopen the connection.
pub(super) type Call = Box<dyn FnOnce(Result<&mut Connection, String>) -> Option<sql::Error> + Send>;

pub(super) enum Request {
    Commit(Box<Commit>, CommitReply),
    Call(Call),
    /// A small step of background work, which live batches overtake.
    Step(Call),
}

/// Which batches a transaction merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteLane {
    /// Batches for the tables in use.
    Live,
    /// Batches of a rebuild, and steps of background work.
    Background,
}

impl WriteLane {
    fn of(commit: &Commit) -> Self {
        // The rows of a rebuild carry the origin of the epoch in use, not its own.
        if commit.stamp == commit.origin {
            Self::Live
        } else {
            Self::Background
        }
    }

    /// The lane of a request; none for a barrier.
    fn of_request(request: &Request) -> Option<Self> {
        match request {
            Request::Commit(commit, _) => Some(Self::of(commit)),
            Request::Step(_) => Some(Self::Background),
            Request::Call(_) => None,
        }
    }
}

/// Messages for which it does not pay to wait for more.
const ROWS_GATHERED: usize = 1_024;

/// How often the writer looks for new requests while batches gather.
const DELAY_STEP: Duration = Duration::from_millis(1);

pub(super) struct Queue {
    requests: mpsc::Receiver<Request>,
    /// Requests taken from the channel, in the order of arrival; at most as many as the channel holds.
    waiting: VecDeque<Request>,
    /// The lane of the last batch.
    last: WriteLane,
}

/// The writer's next work.
pub(super) enum Next {
    Batch(WriteLane, Box<Commit>, CommitReply),
    Call(Call),
}

impl Queue {
    pub(super) fn new(requests: mpsc::Receiver<Request>) -> Self {
        Self {
            requests,
            waiting: VecDeque::new(),
            last: WriteLane::Background,
        }
    }

    /// Waits for the next request. Live batches wait until `due`, unless a barrier or many rows wait; background work does
    /// not. `None` when the last sender is gone and no request waits.
    pub(super) fn next(&mut self, due: Option<Instant>) -> Option<Next> {
        if self.waiting.is_empty() {
            self.waiting.push_back(self.requests.blocking_recv()?);
        }
        self.receive_waiting();
        let mut lane = match self.last {
            WriteLane::Live => WriteLane::Background,
            WriteLane::Background => WriteLane::Live,
        };
        while let Some(left) = due.and_then(|due| self.delay(due)) {
            if self.first(WriteLane::Background).is_some() {
                lane = WriteLane::Background;
                break;
            }
            std::thread::sleep(left.min(DELAY_STEP));
            self.receive_waiting();
        }
        let at = self.first(lane).unwrap_or(0);
        match self.waiting.remove(at)? {
            Request::Call(call) => Some(Next::Call(call)),
            Request::Step(call) => {
                self.last = WriteLane::Background;
                Some(Next::Call(call))
            }
            Request::Commit(commit, reply) => {
                self.last = WriteLane::of(&commit);
                Some(Next::Batch(self.last, commit, reply))
            }
        }
    }

    /// How long the waiting live batches still gather others; none if they should be committed now.
    fn delay(&self, due: Instant) -> Option<Duration> {
        let left = due.saturating_duration_since(Instant::now());
        let gathers = left > Duration::ZERO
            && self.first(WriteLane::Live).is_some()
            && self
                .waiting
                .iter()
                .all(|request| WriteLane::of_request(request).is_some())
            && self.rows() < ROWS_GATHERED;
        gathers.then_some(left)
    }

    /// Messages of the waiting batches.
    fn rows(&self) -> usize {
        let rows = |request: &Request| match request {
            Request::Commit(commit, _) => commit.entries.len(),
            Request::Call(_) | Request::Step(_) => 0,
        };
        self.waiting.iter().map(rows).sum()
    }

    /// The next batch for the open transaction, if any: of the same lane, and no `durable` one unless the transaction
    /// is durable, because that was decided when it began. A rebuild's transaction ends when a live batch waits.
    pub(super) fn more(&mut self, lane: WriteLane, durable: bool) -> Option<(Commit, CommitReply)> {
        self.receive_waiting();
        if lane == WriteLane::Background && self.first(WriteLane::Live).is_some() {
            return None;
        }
        let at = self.first(lane)?;
        match self.waiting.get(at) {
            Some(Request::Commit(commit, _)) if durable || !commit.durable => {}
            _ => return None,
        }
        match self.waiting.remove(at)? {
            Request::Commit(commit, reply) => Some((*commit, reply)),
            Request::Call(_) | Request::Step(_) => None,
        }
    }

    /// Moves arrived requests from the channel to `waiting`.
    fn receive_waiting(&mut self) {
        while self.waiting.len() < REQUESTS_MAX {
            match self.requests.try_recv() {
                Ok(request) => self.waiting.push_back(request),
                Err(_) => return,
            }
        }
    }

    /// The index of the first waiting request of `lane` before the first barrier.
    fn first(&self, lane: WriteLane) -> Option<usize> {
        self.waiting
            .iter()
            .map_while(WriteLane::of_request)
            .position(|of| of == lane)
    }
}

#[cfg(test)]
mod tests {
    use super::super::commit::OriginId;
    use super::super::testing;
    use super::*;

    /// Requests that arrive together, as letters: `l` and `L` are live batches, `L` a durable one, `r` a batch of a
    /// rebuild, `s` a step of background work, `c` any other call. Returns the order of service, with a space between
    /// transactions.
    fn served(arriving: &str) -> String {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        for letter in arriving.chars() {
            let request = if letter == 'c' {
                Request::Call(Box::new(|_| None))
            } else if letter == 's' {
                Request::Step(Box::new(|_| None))
            } else {
                let mut commit = testing::empty_commit();
                commit.durable = letter == 'L';
                commit.stamp = OriginId(commit.origin.0 + i64::from(letter == 'r'));
                Request::Commit(Box::new(commit), tokio::sync::oneshot::channel().0)
            };
            sender.try_send(request).ok().unwrap();
        }
        drop(sender);
        let mut calls = arriving.chars().filter(|letter| "cs".contains(*letter));
        let letter = |commit: &Commit| match (WriteLane::of(commit), commit.durable) {
            (WriteLane::Background, _) => 'r',
            (WriteLane::Live, true) => 'L',
            (WriteLane::Live, false) => 'l',
        };
        let mut queue = Queue::new(requests);
        let mut order = Vec::new();
        while let Some(next) = queue.next(None) {
            order.push(match next {
                Next::Call(_) => calls.next().unwrap().to_string(),
                Next::Batch(lane, commit, _) => {
                    let mut group = letter(&commit).to_string();
                    while let Some((more, _)) = queue.more(lane, commit.durable) {
                        group.push(letter(&more));
                    }
                    group
                }
            });
        }
        order.join(" ")
    }

    #[test]
    fn a_live_batch_overtakes_batches_of_a_rebuild() {
        for (arriving, order) in [
            ("", ""),
            ("lll", "lll"),
            ("rrr", "rrr"),
            ("rrrl", "l rrr"),
            ("rlrlr", "ll rrr"),
        ] {
            assert_eq!(served(arriving), order, "{arriving}");
        }
    }

    #[test]
    fn a_live_batch_overtakes_steps_of_background_work_and_waits_for_at_most_one() {
        for (arriving, order) in [
            ("s", "s"),
            ("sssl", "l s s s"),
            ("rsl", "l r s"),
            ("srrl", "l s rr"),
            ("slcs", "l s c s"),
        ] {
            assert_eq!(served(arriving), order, "{arriving}");
        }
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let mut queue = Queue::new(requests);
        let live = || {
            Request::Commit(
                Box::new(testing::empty_commit()),
                tokio::sync::oneshot::channel().0,
            )
        };
        for _ in 0..3 {
            sender.try_send(Request::Step(Box::new(|_| None))).ok().unwrap();
        }
        assert!(matches!(queue.next(None), Some(Next::Call(_))));
        // It arrives while the first step is carried out.
        sender.try_send(live()).ok().unwrap();
        assert!(matches!(queue.next(None), Some(Next::Batch(WriteLane::Live, ..))));
        sender.try_send(live()).ok().unwrap();
        assert!(
            matches!(queue.next(None), Some(Next::Call(_))),
            "background work proceeds"
        );
        assert!(matches!(queue.next(None), Some(Next::Batch(WriteLane::Live, ..))));
    }

    #[test]
    fn live_batches_gather_until_they_are_due() {
        let live = || {
            Request::Commit(
                Box::new(testing::empty_commit()),
                tokio::sync::oneshot::channel().0,
            )
        };
        let step = || Request::Step(Box::new(|_| None));
        let call = || Request::Call(Box::new(|_| None));
        let long = Duration::from_secs(3_600);
        // Nothing to wait for: no live batch, a call, or too many rows.
        let full = {
            let mut commit = testing::empty_commit();
            commit.entries = vec![testing::entry(1, testing::note(1)); ROWS_GATHERED];
            Request::Commit(Box::new(commit), tokio::sync::oneshot::channel().0)
        };
        for requests in [vec![step()], vec![live(), call()], vec![live(), full]] {
            let (sender, received) = mpsc::channel(REQUESTS_MAX);
            let mut queue = Queue::new(received);
            for request in requests {
                sender.try_send(request).ok().unwrap();
            }
            assert!(queue.next(Some(Instant::now() + long)).is_some());
        }
        // Background work uses the time.
        let (sender, received) = mpsc::channel(REQUESTS_MAX);
        let mut queue = Queue::new(received);
        for request in [live(), step(), step()] {
            sender.try_send(request).ok().unwrap();
        }
        for _ in 0..2 {
            let next = queue.next(Some(Instant::now() + long));
            assert!(matches!(next, Some(Next::Call(_))));
        }
        let due = Instant::now() + Duration::from_millis(20);
        let next = queue.next(Some(due));
        assert!(matches!(next, Some(Next::Batch(WriteLane::Live, ..))));
        assert!(Instant::now() >= due);
    }

    #[test]
    fn nothing_overtakes_a_call() {
        for (arriving, order) in [("rcl", "r c l"), ("lcrl", "l c r l"), ("rlcrlc", "l r c l r c")] {
            assert_eq!(served(arriving), order, "{arriving}");
        }
    }

    #[test]
    fn a_durable_batch_begins_its_own_transaction() {
        for (arriving, order) in [("lL", "l L"), ("Ll", "Ll"), ("lLrl", "l r Ll")] {
            assert_eq!(served(arriving), order, "{arriving}");
        }
    }
}
