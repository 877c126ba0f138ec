//! The order in which the writer serves requests: the order of arrival, with one exception. A live batch overtakes the
//! batches of rebuilds that arrived earlier, and after each live transaction a waiting rebuild is served. So a live
//! batch waits for at most one batch of a rebuild, and a rebuild proceeds under any load. A request that is not a batch
//! is a barrier that nothing overtakes.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::commit::Commit;
use super::writer::{CommitReply, REQUESTS_MAX, Request};

/// Which batches a transaction merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteLane {
    /// Batches for the tables in use.
    Live,
    /// Batches of a rebuild.
    Rebuild,
}

impl WriteLane {
    fn of(commit: &Commit) -> Self {
        // The rows of a rebuild carry the origin of the epoch in use, not its own.
        if commit.stamp == commit.origin {
            Self::Live
        } else {
            Self::Rebuild
        }
    }
}

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
    Call(super::writer::Call),
}

impl Queue {
    pub(super) fn new(requests: mpsc::Receiver<Request>) -> Self {
        Self {
            requests,
            waiting: VecDeque::new(),
            last: WriteLane::Rebuild,
        }
    }

    /// Waits for the next request. `None` when the last sender is gone and no request waits.
    pub(super) fn next(&mut self) -> Option<Next> {
        if self.waiting.is_empty() {
            self.waiting.push_back(self.requests.blocking_recv()?);
        }
        self.receive_waiting();
        let lane = match self.last {
            WriteLane::Live => WriteLane::Rebuild,
            WriteLane::Rebuild => WriteLane::Live,
        };
        let at = self.first(lane).unwrap_or(0);
        match self.waiting.remove(at)? {
            Request::Call(call) => Some(Next::Call(call)),
            Request::Commit(commit, reply) => {
                self.last = WriteLane::of(&commit);
                Some(Next::Batch(self.last, commit, reply))
            }
        }
    }

    /// The next batch for the open transaction, if any: of the same lane, and no `durable` one unless the transaction
    /// is durable, because that was decided when it began. A rebuild's transaction ends when a live batch waits.
    pub(super) fn more(&mut self, lane: WriteLane, durable: bool) -> Option<(Commit, CommitReply)> {
        self.receive_waiting();
        if lane == WriteLane::Rebuild && self.first(WriteLane::Live).is_some() {
            return None;
        }
        let at = self.first(lane)?;
        match self.waiting.get(at) {
            Some(Request::Commit(commit, _)) if durable || !commit.durable => {}
            _ => return None,
        }
        match self.waiting.remove(at)? {
            Request::Commit(commit, reply) => Some((*commit, reply)),
            Request::Call(_) => None,
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

    /// The index of the first waiting batch of `lane` before the first barrier.
    fn first(&self, lane: WriteLane) -> Option<usize> {
        self.waiting
            .iter()
            .take_while(|request| matches!(request, Request::Commit(..)))
            .position(
                |request| matches!(request, Request::Commit(commit, _) if WriteLane::of(commit) == lane),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::super::commit::OriginId;
    use super::super::testing;
    use super::*;

    /// Requests that arrive together, as letters: `l` and `L` are live batches, `L` a durable one, `r` a batch of a
    /// rebuild, `c` a call. Returns the order of service, with a space between transactions.
    fn served(arriving: &str) -> String {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        for letter in arriving.chars() {
            let request = if letter == 'c' {
                Request::Call(Box::new(|_| None))
            } else {
                let mut commit = testing::empty_commit();
                commit.durable = letter == 'L';
                commit.stamp = OriginId(commit.origin.0 + i64::from(letter == 'r'));
                Request::Commit(Box::new(commit), tokio::sync::oneshot::channel().0)
            };
            sender.try_send(request).ok().unwrap();
        }
        drop(sender);
        let letter = |commit: &Commit| match (WriteLane::of(commit), commit.durable) {
            (WriteLane::Rebuild, _) => 'r',
            (WriteLane::Live, true) => 'L',
            (WriteLane::Live, false) => 'l',
        };
        let mut queue = Queue::new(requests);
        let mut order = Vec::new();
        while let Some(next) = queue.next() {
            order.push(match next {
                Next::Call(_) => "c".to_owned(),
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
