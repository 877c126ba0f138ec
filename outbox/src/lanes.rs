//! Which event goes next. Pure: no clock of its own, no files, no connection.
//!
//! Events of one lane (one subject) go in the order in which they were put; lanes do not wait for each other. A
//! lane starts with one event in flight and doubles with each acknowledgement. So when a broker refuses a subject
//! (no stream yet, a full stream), one event is refused and not a window full of them, of which a later one
//! might have been taken and would then stand before the earlier ones for good.
//!
//! Among the lanes that may send, the one with the oldest event does.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use crate::entry::{Entry, EntryId, Lane};

/// The known entries, by lane. Holds as many as it is given by [`Lanes::refill`].
pub(crate) struct Lanes {
    lanes: HashMap<Lane, State>,
    /// The oldest entry of every lane that may send now.
    ready: BTreeSet<(EntryId, Lane)>,
    /// Lanes that were refused and have nothing in flight, by the time of the next try.
    resting: BTreeSet<(Instant, Lane)>,
    /// How far a lane's own window grows.
    window_max: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<EntryId>,
    in_flight: BTreeSet<EntryId>,
    window: usize,
    failures: u32,
    rest_until: Option<Instant>,
    /// Where the lane stands in `ready` or `resting`, so that it can be taken out again.
    listed: Listed,
}

#[derive(Clone, Copy, Default)]
enum Listed {
    #[default]
    Nowhere,
    Ready(EntryId),
    Resting(Instant),
}

impl Lanes {
    pub(crate) fn new(window_max: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            resting: BTreeSet::new(),
            window_max,
        }
    }

    /// Replaces everything that waits by `entries`, which must be sorted. What is in flight stays so. Answers with
    /// the lanes that hold nothing any more and are forgotten.
    pub(crate) fn refill(&mut self, entries: &[Entry]) -> Vec<Lane> {
        debug_assert!(entries.is_sorted());
        self.lanes.values_mut().for_each(|lane| lane.queue.clear());
        for entry in entries {
            let lane = self.lanes.entry(entry.lane).or_default();
            if !lane.in_flight.contains(&entry.id) {
                lane.queue.push_back(entry.id);
            }
        }
        let empty = |lane: &State| lane.queue.is_empty() && lane.in_flight.is_empty();
        let forgotten: Vec<Lane> = self
            .lanes
            .iter()
            .filter(|(_, lane)| empty(lane))
            .map(|(&key, _)| key)
            .collect();
        for &key in &forgotten {
            self.unlist(key);
            self.lanes.remove(&key);
        }
        let keys: Vec<Lane> = self.lanes.keys().copied().collect();
        keys.into_iter().for_each(|key| self.list(key));
        forgotten
    }

    /// The oldest entry that may be sent at `now`. It is in flight from here on.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Entry> {
        while let Some(&(until, key)) = self.resting.first() {
            if until > now {
                break;
            }
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.rest_until = None;
                lane.window = 1;
            }
            self.list(key);
        }
        let &(id, key) = self.ready.first()?;
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.queue.pop_front();
            lane.in_flight.insert(id);
        }
        self.list(key);
        Some(Entry { id, lane: key })
    }

    /// The entry is done and the broker took it. Says whether its lane had been refused before.
    pub(crate) fn acked(&mut self, entry: Entry) -> bool {
        let window_max = self.window_max;
        let mut was_refused = false;
        if let Some(lane) = self.lanes.get_mut(&entry.lane) {
            lane.in_flight.remove(&entry.id);
            lane.window = (lane.window.max(1) * 2).min(window_max);
            was_refused = std::mem::take(&mut lane.failures) > 0;
        }
        self.list(entry.lane);
        was_refused
    }

    /// The entry is done without having been published.
    pub(crate) fn left(&mut self, entry: Entry) {
        if let Some(lane) = self.lanes.get_mut(&entry.lane) {
            lane.in_flight.remove(&entry.id);
        }
        self.list(entry.lane);
    }

    /// The entry goes back to its place and may be sent again at once.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        if let Some(lane) = self.lanes.get_mut(&entry.lane)
            && lane.in_flight.remove(&entry.id)
        {
            let place = lane.queue.partition_point(|&id| id < entry.id);
            lane.queue.insert(place, entry.id);
        }
        self.list(entry.lane);
    }

    /// The broker refused the entry. Its lane sends nothing until all of it that is in flight is answered and the
    /// rest, whose length `rest_until` gets from the number of failures in a row, is over.
    pub(crate) fn refused(&mut self, entry: Entry, rest_until: impl FnOnce(u32) -> Instant) {
        if let Some(lane) = self.lanes.get_mut(&entry.lane)
            // The others of a window that fail together are one failure.
            && lane.rest_until.is_none()
        {
            lane.failures = lane.failures.saturating_add(1);
            lane.rest_until = Some(rest_until(lane.failures));
        }
        self.put_back(entry);
    }

    /// Nothing is in flight any more: the connection is gone. Every lane starts again at its oldest, with one.
    pub(crate) fn land(&mut self) {
        let keys: Vec<Lane> = self.lanes.keys().copied().collect();
        for key in keys {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.window = 1;
                let flown = std::mem::take(&mut lane.in_flight);
                if !flown.is_empty() {
                    lane.queue.extend(flown);
                    lane.queue.make_contiguous().sort_unstable();
                }
            }
            self.list(key);
        }
    }

    /// When the next resting lane may try again.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.resting.first().map(|&(until, _)| until)
    }

    /// Whether the lane rests with nothing in flight: then only its oldest entry is of interest.
    pub(crate) fn is_resting(&self, lane: Lane) -> bool {
        self.lanes
            .get(&lane)
            .is_some_and(|lane| matches!(lane.listed, Listed::Resting(_)))
    }

    /// How many lanes rest.
    pub(crate) fn resting(&self) -> usize {
        self.resting.len()
    }

    /// Puts the lane where its state says it belongs.
    fn list(&mut self, key: Lane) {
        self.unlist(key);
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        lane.listed = match (lane.rest_until, lane.queue.front()) {
            (Some(until), Some(_)) if lane.in_flight.is_empty() => {
                self.resting.insert((until, key));
                Listed::Resting(until)
            }
            (None, Some(&oldest)) if lane.in_flight.len() < lane.window.max(1) => {
                self.ready.insert((oldest, key));
                Listed::Ready(oldest)
            }
            _ => Listed::Nowhere,
        };
    }

    fn unlist(&mut self, key: Lane) {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        match std::mem::take(&mut lane.listed) {
            Listed::Nowhere => {}
            Listed::Ready(oldest) => {
                self.ready.remove(&(oldest, key));
            }
            Listed::Resting(until) => {
                self.resting.remove(&(until, key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::entry::Writer;

    /// Entries on the lanes named, in this order.
    fn entries(subjects: &[&str]) -> Vec<Entry> {
        let writer = Writer::random();
        subjects
            .iter()
            .map(|subject| Entry {
                id: EntryId::next(writer),
                lane: Lane::of(subject),
            })
            .collect()
    }

    fn drain(lanes: &mut Lanes, now: Instant) -> Vec<Entry> {
        std::iter::from_fn(|| lanes.next(now)).collect()
    }

    #[test]
    fn a_lane_starts_with_one_and_doubles() {
        let all = entries(&["a"; 20]);
        let mut lanes = Lanes::new(8);
        lanes.refill(&all);
        let now = Instant::now();
        let mut sizes = Vec::new();
        let mut sent: Vec<Entry> = Vec::new();
        for _ in 0..6 {
            let flight = drain(&mut lanes, now);
            sizes.push(flight.len());
            sent.extend(&flight);
            flight.into_iter().for_each(|entry| assert!(!lanes.acked(entry)));
        }
        assert_eq!(sizes, [1, 2, 8, 8, 1, 0]);
        assert_eq!(sent, all);
    }

    #[test]
    fn the_oldest_goes_first_and_lanes_do_not_wait_for_each_other() {
        let all = entries(&["a", "b", "a", "c", "b"]);
        let mut lanes = Lanes::new(8);
        lanes.refill(&all);
        let now = Instant::now();
        assert_eq!(
            drain(&mut lanes, now),
            [all[0], all[1], all[3]],
            "the first of each lane"
        );
        lanes.acked(all[1]);
        assert_eq!(drain(&mut lanes, now), [all[4]], "b went on while a waits");
        lanes.acked(all[0]);
        assert_eq!(drain(&mut lanes, now), [all[2]]);
    }

    #[test]
    fn a_refused_lane_rests_alone_and_then_tries_its_oldest() {
        let all = entries(&["a", "a", "a", "b", "b"]);
        let mut lanes = Lanes::new(8);
        lanes.refill(&all);
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        assert_eq!(drain(&mut lanes, now), [all[0], all[3]]);
        lanes.acked(all[0]);
        assert_eq!(drain(&mut lanes, now), [all[1], all[2]], "two in flight");
        lanes.refused(all[2], |failures| {
            assert_eq!(failures, 1);
            until
        });
        assert_eq!(drain(&mut lanes, until), [], "one is still in flight");
        assert_eq!(lanes.wake_at(), None);
        lanes.refused(all[1], |_| unreachable!("both belong to one failure"));
        assert!(lanes.is_resting(all[0].lane));
        assert_eq!((lanes.wake_at(), lanes.resting()), (Some(until), 1));
        lanes.acked(all[3]);
        assert_eq!(drain(&mut lanes, now), [all[4]], "b does not care");
        assert_eq!(drain(&mut lanes, until), [all[1]], "the oldest, alone");
        lanes.refused(all[1], |failures| {
            assert_eq!(failures, 2);
            until
        });
        assert_eq!(drain(&mut lanes, until), [all[1]]);
        assert!(lanes.acked(all[1]), "it had been refused");
        assert_eq!(drain(&mut lanes, until), [all[2]]);
    }

    #[test]
    fn after_a_lost_connection_everything_starts_at_the_oldest() {
        let all = entries(&["a"; 6]);
        let mut lanes = Lanes::new(4);
        lanes.refill(&all);
        let now = Instant::now();
        lanes.next(now);
        lanes.acked(all[0]);
        assert_eq!(drain(&mut lanes, now), [all[1], all[2]]);
        lanes.acked(all[2]);
        lanes.land();
        assert_eq!(drain(&mut lanes, now), [all[1]]);
        lanes.acked(all[1]);
        assert_eq!(drain(&mut lanes, now), [all[3], all[4]]);
    }

    #[test]
    fn a_refill_keeps_what_flies_and_what_rests() {
        let all = entries(&["a", "a", "b", "c"]);
        let mut lanes = Lanes::new(4);
        lanes.refill(&all[..3]);
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        assert_eq!(drain(&mut lanes, now), [all[0], all[2]]);
        lanes.refused(all[2], |_| until);
        assert_eq!(lanes.refill(&all), []);
        assert_eq!(drain(&mut lanes, now), [all[3]], "a flies, b rests, c is new");
        lanes.left(all[3]);
        lanes.acked(all[0]);
        let mut forgotten = lanes.refill(&[]);
        forgotten.sort();
        let mut expected = vec![all[0].lane, all[2].lane, all[3].lane];
        expected.sort();
        assert_eq!(forgotten, expected);
        assert_eq!((lanes.wake_at(), lanes.next(until)), (None, None));
    }

    #[test]
    fn what_is_put_back_takes_its_old_place() {
        let all = entries(&["a", "a"]);
        let mut lanes = Lanes::new(4);
        lanes.refill(&all);
        let now = Instant::now();
        assert_eq!(lanes.next(now), Some(all[0]));
        lanes.put_back(all[0]);
        assert_eq!(lanes.next(now), Some(all[0]));
        lanes.left(all[0]);
        assert_eq!(lanes.next(now), Some(all[1]));
    }
}
