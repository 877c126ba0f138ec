//! The order in which the writer does what waits for it. Requests are served as they come, with one exception: a batch of
//! the tables in use goes before the batches of a rebuild that came first, and after each transaction for the tables in
//! use a waiting rebuild has its turn. So a live batch waits for one batch of a rebuild at the most, and a rebuild goes on
//! however much comes in. Anything that is not a batch is a barrier that nothing passes.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::commit::Commit;
use super::writer::{CommitReply, REQUESTS_MAX, Request};

/// Whose batches a transaction takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Those of the tables in use.
    Live,
    /// Those of a rebuild.
    Rebuild,
}

impl Turn {
    fn of(commit: &Commit) -> Self {
        // A rebuild writes rows that look like those of another history than its own.
        if commit.stamp == commit.origin {
            Self::Live
        } else {
            Self::Rebuild
        }
    }
}

pub(super) struct Queue {
    requests: mpsc::Receiver<Request>,
    /// Taken from the channel, in the order in which they came. No more than the channel itself holds.
    waiting: VecDeque<Request>,
    /// Whose turn it was last.
    last: Turn,
}

/// What the writer does next.
pub(super) enum Next {
    Batch(Turn, Box<Commit>, CommitReply),
    Call(super::writer::Call),
}

impl Queue {
    pub(super) fn new(requests: mpsc::Receiver<Request>) -> Self {
        Self {
            requests,
            waiting: VecDeque::new(),
            last: Turn::Rebuild,
        }
    }

    /// Waits for the next request. None when the last sender is gone and all is done.
    pub(super) fn next(&mut self) -> Option<Next> {
        if self.waiting.is_empty() {
            self.waiting.push_back(self.requests.blocking_recv()?);
        }
        self.look();
        let turn = match self.last {
            Turn::Live => Turn::Rebuild,
            Turn::Rebuild => Turn::Live,
        };
        let at = self.first(turn).unwrap_or(0);
        match self.waiting.remove(at)? {
            Request::Call(call) => Some(Next::Call(call)),
            Request::Commit(commit, reply) => {
                self.last = Turn::of(&commit);
                Some(Next::Batch(self.last, commit, reply))
            }
        }
    }

    /// Another batch for the transaction that is open, if there is one: of the same turn, and no `durable` one where the
    /// transaction is not, because that was decided when it began. A rebuild's transaction ends where a live batch waits.
    pub(super) fn more(&mut self, turn: Turn, durable: bool) -> Option<(Commit, CommitReply)> {
        self.look();
        if turn == Turn::Rebuild && self.first(Turn::Live).is_some() {
            return None;
        }
        let at = self.first(turn)?;
        match self.waiting.get(at) {
            Some(Request::Commit(commit, _)) if durable || !commit.durable => {}
            _ => return None,
        }
        match self.waiting.remove(at)? {
            Request::Commit(commit, reply) => Some((*commit, reply)),
            Request::Call(_) => None,
        }
    }

    /// Takes in what has come meanwhile.
    fn look(&mut self) {
        while self.waiting.len() < REQUESTS_MAX {
            match self.requests.try_recv() {
                Ok(request) => self.waiting.push_back(request),
                Err(_) => return,
            }
        }
    }

    /// Where the first batch of `turn` waits, this side of the first barrier.
    fn first(&self, turn: Turn) -> Option<usize> {
        self.waiting
            .iter()
            .take_while(|request| matches!(request, Request::Commit(..)))
            .position(|request| matches!(request, Request::Commit(commit, _) if Turn::of(commit) == turn))
    }
}

#[cfg(test)]
mod tests {
    use super::super::commit::OriginId;
    use super::super::testing;
    use super::*;

    /// Requests that arrive together, as letters: `l` and `L` are live batches, `L` a durable one, `r` one of a rebuild,
    /// `c` a call. Returns the order of service; the batches of one transaction stand together.
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
        let letter = |commit: &Commit| match (Turn::of(commit), commit.durable) {
            (Turn::Rebuild, _) => 'r',
            (Turn::Live, true) => 'L',
            (Turn::Live, false) => 'l',
        };
        let mut queue = Queue::new(requests);
        let mut order = Vec::new();
        while let Some(next) = queue.next() {
            order.push(match next {
                Next::Call(_) => "c".to_owned(),
                Next::Batch(turn, commit, _) => {
                    let mut group = letter(&commit).to_string();
                    while let Some((more, _)) = queue.more(turn, commit.durable) {
                        group.push(letter(&more));
                    }
                    group
                }
            });
        }
        order.join(" ")
    }

    #[test]
    fn live_batches_go_before_those_of_a_rebuild() {
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
    fn nothing_passes_a_call() {
        for (arriving, order) in [("rcl", "r c l"), ("lcrl", "l c r l"), ("rlcrlc", "l r c l r c")] {
            assert_eq!(served(arriving), order, "{arriving}");
        }
    }

    #[test]
    fn a_durable_batch_begins_a_transaction_of_its_own() {
        for (arriving, order) in [("lL", "l L"), ("Ll", "Ll"), ("lLrl", "l r Ll")] {
            assert_eq!(served(arriving), order, "{arriving}");
        }
    }
}
