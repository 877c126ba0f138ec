//! Selects the next event. Pure: no clock, no files, no connection.
//!
//! Events of one lane (one subject) are sent in the order of `put`; lanes are independent. The window of a lane starts with one
//! event and doubles with each acknowledgement. So when the broker rejects a subject (no stream yet, a full stream), it rejects
//! one event and not a whole window, of which it might accept a later event before the earlier ones.
//!
//! Among the lanes that can send, the one with the oldest event is next.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use crate::entry::{Entry, EntryId, Lane};

/// The known entries by lane, as set by [`Lanes::refill`].
pub(crate) struct Lanes {
    lanes: HashMap<Lane, LaneState>,
    /// The oldest entry of every lane that can send now.
    ready: BTreeSet<(EntryId, Lane)>,
    /// Rejected lanes with nothing in flight, by the time of the next attempt.
    resting: BTreeSet<(Instant, Lane)>,
    /// Maximum window of a lane.
    window_max: usize,
}

#[derive(Default)]
struct LaneState {
    queue: VecDeque<EntryId>,
    in_flight: BTreeSet<EntryId>,
    window: usize,
    failures: u32,
    rest_until: Option<Instant>,
    /// The key of the lane in `ready` or `resting`, for removal.
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

    /// Replaces the pending entries by `entries`, which must be sorted, without changing those in flight. Returns the removed
    /// empty lanes.
    pub(crate) fn refill(&mut self, entries: &[Entry]) -> Vec<Lane> {
        debug_assert!(entries.is_sorted());
        self.lanes.values_mut().for_each(|lane| lane.queue.clear());
        for entry in entries {
            let lane = self.lanes.entry(entry.lane).or_default();
            if !lane.in_flight.contains(&entry.id) {
                lane.queue.push_back(entry.id);
            }
        }
        let empty = |lane: &LaneState| lane.queue.is_empty() && lane.in_flight.is_empty();
        let removed: Vec<Lane> = self
            .lanes
            .iter()
            .filter(|(_, lane)| empty(lane))
            .map(|(&key, _)| key)
            .collect();
        for &key in &removed {
            self.unlist(key);
            self.lanes.remove(&key);
        }
        let keys: Vec<Lane> = self.lanes.keys().copied().collect();
        keys.into_iter().for_each(|key| self.list(key));
        removed
    }

    /// Takes the oldest entry that can be sent at `now`, and marks it as in flight.
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

    /// The broker has acknowledged the entry. Returns whether its lane had been rejected before.
    pub(crate) fn acked(&mut self, entry: Entry) -> bool {
        let window_max = self.window_max;
        let mut was_rejected = false;
        if let Some(lane) = self.lanes.get_mut(&entry.lane) {
            lane.in_flight.remove(&entry.id);
            lane.window = (lane.window.max(1) * 2).min(window_max);
            was_rejected = std::mem::take(&mut lane.failures) > 0;
        }
        self.list(entry.lane);
        was_rejected
    }

    /// Removes an entry in flight that is not to be published.
    pub(crate) fn remove(&mut self, entry: Entry) {
        if let Some(lane) = self.lanes.get_mut(&entry.lane) {
            lane.in_flight.remove(&entry.id);
        }
        self.list(entry.lane);
    }

    /// Returns an entry in flight to its place in the queue.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        if let Some(lane) = self.lanes.get_mut(&entry.lane)
            && lane.in_flight.remove(&entry.id)
        {
            let place = lane.queue.partition_point(|&id| id < entry.id);
            lane.queue.insert(place, entry.id);
        }
        self.list(entry.lane);
    }

    /// The broker has rejected the entry. Its lane sends nothing until all its events in flight are answered and the time of
    /// `rest_until`, which receives the number of failures in a row, is reached.
    pub(crate) fn rejected(&mut self, entry: Entry, rest_until: impl FnOnce(u32) -> Instant) {
        if let Some(lane) = self.lanes.get_mut(&entry.lane)
            // Failures of the same window count as one.
            && lane.rest_until.is_none()
        {
            lane.failures = lane.failures.saturating_add(1);
            lane.rest_until = Some(rest_until(lane.failures));
        }
        self.put_back(entry);
    }

    /// The connection is lost. Every lane restarts at its oldest entry with a window of one.
    pub(crate) fn reset_in_flight(&mut self) {
        let keys: Vec<Lane> = self.lanes.keys().copied().collect();
        for key in keys {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.window = 1;
                let in_flight = std::mem::take(&mut lane.in_flight);
                if !in_flight.is_empty() {
                    lane.queue.extend(in_flight);
                    lane.queue.make_contiguous().sort_unstable();
                }
            }
            self.list(key);
        }
    }

    /// Time of the next attempt of a resting lane.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.resting.first().map(|&(until, _)| until)
    }

    /// Whether the lane rests with nothing in flight; then only its oldest entry is relevant.
    pub(crate) fn is_resting(&self, lane: Lane) -> bool {
        self.lanes
            .get(&lane)
            .is_some_and(|lane| matches!(lane.listed, Listed::Resting(_)))
    }

    /// Number of resting lanes.
    pub(crate) fn resting(&self) -> usize {
        self.resting.len()
    }

    /// Updates `ready` and `resting` according to the state of the lane.
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

    /// Entries on these subjects, in order.
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
    fn the_oldest_entry_is_first_and_lanes_are_independent() {
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
        assert_eq!(drain(&mut lanes, now), [all[4]], "b continues while a waits");
        lanes.acked(all[0]);
        assert_eq!(drain(&mut lanes, now), [all[2]]);
    }

    #[test]
    fn a_rejected_lane_rests_and_then_retries_its_oldest_entry() {
        let all = entries(&["a", "a", "a", "b", "b"]);
        let mut lanes = Lanes::new(8);
        lanes.refill(&all);
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        assert_eq!(drain(&mut lanes, now), [all[0], all[3]]);
        lanes.acked(all[0]);
        assert_eq!(drain(&mut lanes, now), [all[1], all[2]], "two in flight");
        lanes.rejected(all[2], |failures| {
            assert_eq!(failures, 1);
            until
        });
        assert_eq!(drain(&mut lanes, until), [], "one is still in flight");
        assert_eq!(lanes.wake_at(), None);
        lanes.rejected(all[1], |_| unreachable!("both belong to one failure"));
        assert!(lanes.is_resting(all[0].lane));
        assert_eq!((lanes.wake_at(), lanes.resting()), (Some(until), 1));
        lanes.acked(all[3]);
        assert_eq!(drain(&mut lanes, now), [all[4]], "b is independent");
        assert_eq!(drain(&mut lanes, until), [all[1]], "the oldest, alone");
        lanes.rejected(all[1], |failures| {
            assert_eq!(failures, 2);
            until
        });
        assert_eq!(drain(&mut lanes, until), [all[1]]);
        assert!(lanes.acked(all[1]), "it had been rejected");
        assert_eq!(drain(&mut lanes, until), [all[2]]);
    }

    #[test]
    fn after_a_lost_connection_lanes_restart_at_the_oldest_entry() {
        let all = entries(&["a"; 6]);
        let mut lanes = Lanes::new(4);
        lanes.refill(&all);
        let now = Instant::now();
        lanes.next(now);
        lanes.acked(all[0]);
        assert_eq!(drain(&mut lanes, now), [all[1], all[2]]);
        lanes.acked(all[2]);
        lanes.reset_in_flight();
        assert_eq!(drain(&mut lanes, now), [all[1]]);
        lanes.acked(all[1]);
        assert_eq!(drain(&mut lanes, now), [all[3], all[4]]);
    }

    #[test]
    fn a_refill_keeps_entries_in_flight_and_resting_lanes() {
        let all = entries(&["a", "a", "b", "c"]);
        let mut lanes = Lanes::new(4);
        lanes.refill(&all[..3]);
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        assert_eq!(drain(&mut lanes, now), [all[0], all[2]]);
        lanes.rejected(all[2], |_| until);
        assert_eq!(lanes.refill(&all), []);
        assert_eq!(
            drain(&mut lanes, now),
            [all[3]],
            "a is in flight, b rests, c is new"
        );
        lanes.remove(all[3]);
        lanes.acked(all[0]);
        let mut removed = lanes.refill(&[]);
        removed.sort();
        let mut expected = vec![all[0].lane, all[2].lane, all[3].lane];
        expected.sort();
        assert_eq!(removed, expected);
        assert_eq!((lanes.wake_at(), lanes.next(until)), (None, None));
    }

    #[test]
    fn an_entry_put_back_returns_to_its_place() {
        let all = entries(&["a", "a"]);
        let mut lanes = Lanes::new(4);
        lanes.refill(&all);
        let now = Instant::now();
        assert_eq!(lanes.next(now), Some(all[0]));
        lanes.put_back(all[0]);
        assert_eq!(lanes.next(now), Some(all[0]));
        lanes.remove(all[0]);
        assert_eq!(lanes.next(now), Some(all[1]));
    }
}
