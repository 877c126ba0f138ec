//! What those who follow a table with the same selection are told: the last packets, rendered once for all of them and
//! bounded in bytes. Each of them reads at its own pace; whoever comes too late misses packets and is told how many rows
//! were in them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use crate::cells::{Integers, Item};
use lantern_api::GapEvent;
use lantern_store::reader::{Matcher, RowRecord, Selection, Shape, Stopped};

/// Bytes of packets that one view keeps for slow readers.
pub const BYTES_MAX: usize = 1 << 20;

/// Bytes of packets that all views keep together.
const BYTES_OF_ALL_MAX: usize = 16 << 20;

/// Rows that one packet tells of.
pub const ROWS_MAX: usize = 200;

/// Bytes at which a packet is full. A row with more is left out and counted as such: each client may hold a packet of its
/// own, and large rows can be had as pages and exports.
const PACKET_BYTES: usize = 128 << 10;

/// Rows a second that are told in the long run, and at once after a while with fewer. This is more than anybody reads; a
/// stream that stays faster is thinned out, and those who want all of it have pages and exports.
const ROWS_A_SECOND: f64 = 500.0;
const ROWS_AT_ONCE: f64 = 2_000.0;

/// What is told: which rows, and what of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub selection: Selection,
    pub columns: Vec<usize>,
    pub integers: Integers,
}

/// One way of following a table.
pub struct View {
    pub wanted: Wanted,
    pub matcher: Matcher,
    ring: Mutex<Ring>,
    /// Changes with the ring.
    changed: watch::Sender<u64>,
    /// Bytes that all views keep.
    kept: Arc<AtomicUsize>,
}

impl Drop for View {
    fn drop(&mut self) {
        let ring = self.ring.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.kept.fetch_sub(ring.bytes, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Ring {
    packets: VecDeque<Packet>,
    /// The number of the first packet that is kept.
    first: u64,
    bytes: usize,
    /// Rows told of in all packets, also those that were left out.
    rows: u64,
    ended: bool,
    /// Rows that may be told now, as of the last time.
    allowance: Option<(f64, Instant)>,
}

/// Packets that were rendered and not yet published, each with the rows that it tells of.
pub struct Prepared(Vec<(Bytes, u64)>);

impl Prepared {
    fn gap(&mut self, rows: u64) {
        if rows > 0 {
            self.0.push((gap(rows), rows));
        }
    }

    fn rows(&mut self, shape: &Shape, records: &[&RowRecord], wanted: &Wanted, id: &str, mut room: usize) {
        let mut items = Items::new(shape, wanted);
        let mut left_out = 0;
        for (number, record) in records.iter().enumerate() {
            match items.add(record) {
                Added::Yes => {}
                Added::TooLarge => {
                    left_out += 1;
                    continue;
                }
                Added::Full => {
                    let full = std::mem::replace(&mut items, Items::new(shape, wanted));
                    room = room.saturating_sub(full.bytes());
                    self.items(full, None);
                    if room == 0 {
                        left_out += (records.len() - number) as u64;
                        break;
                    }
                    // It fits in one that is empty, or it would have been too large.
                    items.add(record);
                }
            }
        }
        // Only who has heard the last of them may go on behind it.
        self.items(items, Some(id));
        self.gap(left_out);
    }

    fn items(&mut self, items: Items, id: Option<&str>) {
        let rows = items.rows();
        if rows > 0 {
            self.0.push((items.into_event(id), rows as u64));
        }
    }
}

struct Packet {
    block: Bytes,
    /// Rows told of before it.
    rows_before: u64,
}

/// How far somebody has read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    next: u64,
    rows: u64,
}

/// What there is to read.
pub enum Read {
    /// A packet.
    Block(Bytes),
    /// So many rows were missed.
    Missed(u64),
    /// Nothing yet.
    Nothing,
    /// There will be nothing more.
    End,
}

impl Reading {
    /// Whether both have read the same.
    pub fn is_at(&self, other: &Self) -> bool {
        self.next == other.next
    }
}

impl View {
    /// `kept` counts the bytes that all views keep.
    pub fn new(wanted: Wanted, kept: Arc<AtomicUsize>) -> Self {
        Self {
            matcher: Matcher::new(wanted.selection.clone()),
            wanted,
            ring: Mutex::default(),
            changed: watch::channel(0).0,
            kept,
        }
    }

    /// From now on.
    pub fn begin(&self) -> Reading {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            next: ring.first + ring.packets.len() as u64,
            rows: ring.rows,
        }
    }

    /// Resolves when there is something to read, or soon after.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The next packet for somebody.
    pub fn read(&self, reading: &mut Reading) -> Read {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if reading.next < ring.first {
            reading.next = ring.first;
            let before = ring
                .packets
                .front()
                .map_or(ring.rows, |packet| packet.rows_before);
            let missed = before.saturating_sub(reading.rows);
            reading.rows = before;
            if missed > 0 {
                return Read::Missed(missed);
            }
        }
        let number = usize::try_from(reading.next - ring.first).unwrap_or(usize::MAX);
        match ring.packets.get(number) {
            Some(packet) => {
                let after = ring.packets.get(number + 1);
                reading.rows = after.map_or(ring.rows, |packet| packet.rows_before);
                reading.next += 1;
                Read::Block(packet.block.clone())
            }
            None if ring.ended => Read::End,
            None => Read::Nothing,
        }
    }

    /// Renders the rows among `records` that are wanted, until `has_to_stop` says so: the rows that were not compared by
    /// then count as left out, as do `skipped` rows before them. `id` is where a client that has read all of it may go
    /// on. Rows beyond `room` bytes are left out as well. This is work for a blocking thread.
    pub fn prepare(
        &self,
        shape: &Shape,
        records: &[RowRecord],
        (skipped, id): (u64, &str),
        room: usize,
        has_to_stop: impl Fn() -> bool,
    ) -> Prepared {
        let mut prepared = Prepared(Vec::new());
        let mut wanted: Vec<&RowRecord> = Vec::new();
        let mut not_compared = 0;
        for (number, record) in records.iter().enumerate() {
            match self.matcher.matches(shape, &record.cells, &has_to_stop) {
                Ok(true) => wanted.push(record),
                Ok(false) => {}
                Err(Stopped) => {
                    not_compared = (records.len() - number) as u64;
                    break;
                }
            }
        }
        let thinned = wanted.len() - self.allowed(wanted.len());
        prepared.gap(skipped + thinned as u64);
        prepared.rows(shape, &wanted[thinned..], &self.wanted, id, room);
        prepared.gap(not_compared);
        prepared
    }

    /// Hands packets to all who follow this way.
    pub fn publish(&self, prepared: Prepared) {
        for (block, rows) in prepared.0 {
            self.push(block, rows);
        }
    }

    /// How many of so many rows may be told now.
    fn allowed(&self, wanted: usize) -> usize {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (left, since) = ring.allowance.unwrap_or((ROWS_AT_ONCE, now));
        let left = (left + now.duration_since(since).as_secs_f64() * ROWS_A_SECOND).min(ROWS_AT_ONCE);
        let allowed = wanted.min(left as usize);
        ring.allowance = Some((left - allowed as f64, now));
        allowed
    }

    /// Nobody will be told anything more.
    pub fn end(&self) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.send_modify(|number| *number += 1);
    }

    fn push(&self, block: Bytes, rows: u64) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let rows_before = ring.rows;
        ring.rows += rows;
        ring.bytes += block.len();
        let mut of_all = self.kept.fetch_add(block.len(), Ordering::Relaxed) + block.len();
        ring.packets.push_back(Packet { block, rows_before });
        // When all views together keep too much, this view keeps nothing; its followers receive the number of rows they missed.
        while (ring.bytes > BYTES_MAX && ring.packets.len() > 1) || of_all > BYTES_OF_ALL_MAX {
            let Some(packet) = ring.packets.pop_front() else {
                break;
            };
            ring.bytes -= packet.block.len();
            ring.first += 1;
            of_all = self.kept.fetch_sub(packet.block.len(), Ordering::Relaxed) - packet.block.len();
        }
        drop(ring);
        self.changed.send_modify(|number| *number += 1);
    }
}

/// The event that says that rows were left out.
pub fn gap(skipped: u64) -> Bytes {
    // A number can always be written.
    let data = serde_json::to_string(&GapEvent { skipped }).unwrap_or_default();
    format!("event: gap\ndata: {data}\n\n").into()
}

/// Rows of one packet, rendered one by one.
pub struct Items {
    columns: Arc<[String]>,
    chosen: Vec<usize>,
    integers: Integers,
    /// As they stand in the event, without what is around them.
    data: Vec<u8>,
    rows: usize,
}

/// Whether a row was added to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Yes,
    /// It goes into the next packet.
    Full,
    /// It goes into none.
    TooLarge,
}

impl Items {
    pub fn new(shape: &Shape, wanted: &Wanted) -> Self {
        let name = |&position: &usize| shape.columns[position].name.to_string();
        Self {
            columns: wanted.columns.iter().map(name).collect(),
            chosen: wanted.columns.clone(),
            integers: wanted.integers,
            data: Vec::new(),
            rows: 0,
        }
    }

    /// Adds a row that was read whole.
    pub fn add(&mut self, record: &RowRecord) -> Added {
        if Item::bytes(record, &self.chosen) > PACKET_BYTES {
            return Added::TooLarge;
        }
        if self.rows >= ROWS_MAX || self.data.len() >= PACKET_BYTES {
            return Added::Full;
        }
        let item = Item::chosen(&self.columns, record, &self.chosen, self.integers);
        // What SQLite holds can be shown as JSON; a number that is not finite never came in.
        let mut rendered = match serde_json::to_vec(&item) {
            Ok(rendered) if rendered.len() <= PACKET_BYTES => rendered,
            Ok(_) | Err(_) => return Added::TooLarge,
        };
        if self.rows > 0 {
            if self.data.len() + rendered.len() > PACKET_BYTES {
                return Added::Full;
            }
            self.data.push(b',');
        }
        self.data.append(&mut rendered);
        self.rows += 1;
        Added::Yes
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The event that tells of them.
    pub fn into_event(self, id: Option<&str>) -> Bytes {
        let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
        let mut event = format!("event: rows\n{id}data: {{\"items\":[").into_bytes();
        // A document is shown to the byte, and its line breaks can only stand between its parts.
        let line = |byte: u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
        event.extend(self.data.into_iter().map(line));
        event.extend_from_slice(b"]}\n\n");
        event.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let wanted = Wanted {
            selection: Selection::default(),
            columns: Vec::new(),
            integers: Integers::Text,
        };
        View::new(wanted, Arc::default())
    }

    fn all(view: &View, reading: &mut Reading) -> (u64, u64) {
        let (mut blocks, mut missed) = (0, 0);
        loop {
            match view.read(reading) {
                Read::Block(_) => blocks += 1,
                Read::Missed(rows) => missed += rows,
                Read::Nothing | Read::End => return (blocks, missed),
            }
        }
    }

    #[test]
    fn whoever_is_slow_is_told_what_was_missed_and_costs_nothing() {
        let view = view();
        let (mut slow, mut quick) = (view.begin(), view.begin());
        for _ in 0..100 {
            view.push(Bytes::from(vec![0; 100_000]), 7);
            assert_eq!(all(&view, &mut quick), (1, 0));
        }
        let ring = view.ring.lock().unwrap();
        assert!(ring.bytes <= BYTES_MAX);
        let kept = ring.packets.len() as u64;
        drop(ring);
        assert_eq!(all(&view, &mut slow), (kept, (100 - kept) * 7));
        let mut late = view.begin();
        view.push(Bytes::from(vec![0; 3 * BYTES_MAX]), 1);
        assert_eq!(all(&view, &mut late), (1, 0));
        view.end();
        assert!(matches!(view.read(&mut late), Read::End));
    }

    #[test]
    fn all_views_together_keep_a_bounded_number_of_bytes() {
        let kept = Arc::new(AtomicUsize::new(0));
        let wanted = view().wanted.clone();
        let views: Vec<View> = (0..64)
            .map(|_| View::new(wanted.clone(), Arc::clone(&kept)))
            .collect();
        let mut reading: Vec<Reading> = views.iter().map(View::begin).collect();
        for _ in 0..10 {
            for view in &views {
                view.push(Bytes::from(vec![0; 100_000]), 1);
            }
        }
        assert!(kept.load(Ordering::Relaxed) <= BYTES_OF_ALL_MAX);
        // Every follower receives either the rows or their number: rows that were not kept are counted.
        for (view, reading) in views.iter().zip(&mut reading) {
            let (blocks, missed) = all(view, reading);
            assert_eq!(blocks + missed, 10);
        }
        drop(views);
        assert_eq!(kept.load(Ordering::Relaxed), 0);
    }
}
