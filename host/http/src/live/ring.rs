//! A view is a table tail with one selection, shared by all its followers: a ring of the last packets, each serialized
//! once and bounded in bytes. Followers read at their own speed; a follower that is too slow misses packets and receives
//! the number of omitted rows.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use crate::items::Item;
use lantern_api::OmittedEvent;
use lantern_model::value::Integers;
use lantern_store::reader::{Matcher, RowRecord, Selection, Shape, Stopped};

/// Bytes of packets that one view keeps for slow followers.
pub const BYTES_MAX: usize = 1 << 20;

/// Bytes of packets that all views together keep.
const BYTES_OF_ALL_MAX: usize = 16 << 20;

/// Maximum number of rows per packet.
pub const ROWS_MAX: usize = 200;

/// Maximum size of a packet. Larger rows are omitted and counted: each client may hold a packet, and pages and exports
/// include large rows.
const PACKET_BYTES: usize = 128 << 10;

/// Rows per second that a view sends on average, and in a burst. More than a person can read; faster streams are thinned
/// out. Pages and exports include all rows.
const ROWS_PER_SECOND: f64 = 500.0;
const ROWS_BURST: f64 = 2_000.0;

/// Rows, columns and format of a view.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewOptions {
    pub selection: Selection,
    pub columns: Vec<usize>,
    pub integers: Integers,
}

/// A table tail with one selection.
pub struct View {
    pub wanted: ViewOptions,
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
    /// Number of the first packet in the ring.
    first: u64,
    bytes: usize,
    /// Rows of all packets, omitted rows included.
    rows: u64,
    ended: bool,
    /// Remaining rows of the rate limit, and the time of the last update.
    allowance: Option<(f64, Instant)>,
}

/// Serialized packets that are not published yet, with their numbers of rows.
pub struct Prepared(Vec<(Bytes, u64)>);

impl Prepared {
    fn omitted(&mut self, rows: u64) {
        if rows > 0 {
            self.0.push((omitted(rows), rows));
        }
    }

    fn rows(
        &mut self,
        shape: &Shape,
        records: &[&RowRecord],
        wanted: &ViewOptions,
        id: &str,
        mut room: usize,
    ) {
        let mut items = Items::new(shape, wanted);
        let mut omitted = 0;
        for (number, record) in records.iter().enumerate() {
            match items.add(record) {
                Added::Yes => {}
                Added::TooLarge => {
                    omitted += 1;
                    continue;
                }
                Added::Full => {
                    let full = std::mem::replace(&mut items, Items::new(shape, wanted));
                    room = room.saturating_sub(full.bytes());
                    self.items(full, None);
                    if room == 0 {
                        omitted += (records.len() - number) as u64;
                        break;
                    }
                    // It fits into an empty packet; otherwise it would have been `TooLarge`.
                    items.add(record);
                }
            }
        }
        // A client may resume after these rows only once it has received the last of them.
        self.items(items, Some(id));
        self.omitted(omitted);
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
    /// Rows of all earlier packets.
    rows_before: u64,
}

/// Position of a follower in the ring.
#[derive(Clone, Copy, Debug)]
pub struct RingPosition {
    next: u64,
    rows: u64,
}

/// Result of a read from the ring.
pub enum Read {
    /// A packet.
    Block(Bytes),
    /// The follower missed this many rows.
    Missed(u64),
    /// No packet yet.
    Nothing,
    /// The view has ended.
    End,
}

impl RingPosition {
    /// Whether both positions are equal.
    pub fn is_at(&self, other: &Self) -> bool {
        self.next == other.next
    }
}

impl View {
    /// `kept` counts the bytes that all views keep.
    pub fn new(wanted: ViewOptions, kept: Arc<AtomicUsize>) -> Self {
        Self {
            matcher: Matcher::new(wanted.selection.clone()),
            wanted,
            ring: Mutex::default(),
            changed: watch::channel(0).0,
            kept,
        }
    }

    /// The position after the newest packet.
    pub fn begin(&self) -> RingPosition {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        RingPosition {
            next: ring.first + ring.packets.len() as u64,
            rows: ring.rows,
        }
    }

    /// Changes when there may be a new packet.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads the next packet of a follower.
    pub fn read(&self, reading: &mut RingPosition) -> Read {
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

    /// Filters and serializes `records`. After `has_to_stop`, the remaining rows count as omitted, as do `unread` rows
    /// before them and rows beyond `room` bytes. `id` is the position after the rows, for resuming. Call it on a blocking
    /// thread.
    pub fn prepare(
        &self,
        shape: &Shape,
        records: &[RowRecord],
        (unread, id): (u64, &str),
        room: usize,
        has_to_stop: impl Fn() -> bool,
    ) -> Prepared {
        let mut prepared = Prepared(Vec::new());
        let mut wanted: Vec<&RowRecord> = Vec::new();
        let mut not_compared = 0;
        for (number, record) in records.iter().enumerate() {
            match self.matcher.matches(shape, &record.values, &has_to_stop) {
                Ok(true) => wanted.push(record),
                Ok(false) => {}
                Err(Stopped) => {
                    not_compared = (records.len() - number) as u64;
                    break;
                }
            }
        }
        let thinned = wanted.len() - self.allowed(wanted.len());
        prepared.omitted(unread + thinned as u64);
        prepared.rows(shape, &wanted[thinned..], &self.wanted, id, room);
        prepared.omitted(not_compared);
        prepared
    }

    /// Publishes packets to all followers.
    pub fn publish(&self, prepared: Prepared) {
        for (block, rows) in prepared.0 {
            self.push(block, rows);
        }
    }

    /// Applies the rate limit: how many of `wanted` rows may be sent now.
    fn allowed(&self, wanted: usize) -> usize {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (left, since) = ring.allowance.unwrap_or((ROWS_BURST, now));
        let left = (left + now.duration_since(since).as_secs_f64() * ROWS_PER_SECOND).min(ROWS_BURST);
        let allowed = wanted.min(left as usize);
        ring.allowance = Some((left - allowed as f64, now));
        allowed
    }

    /// Ends the view.
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

/// The event `omitted`.
pub fn omitted(rows_omitted: u64) -> Bytes {
    // Serializing a number cannot fail.
    let data = serde_json::to_string(&OmittedEvent { rows_omitted }).unwrap_or_default();
    format!("event: omitted\ndata: {data}\n\n").into()
}

/// Serialized rows of one packet.
pub struct Items {
    columns: Arc<[String]>,
    chosen: Vec<usize>,
    integers: Integers,
    /// JSON of the rows, without the surrounding event.
    data: Vec<u8>,
    rows: usize,
}

/// Result of adding a row to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Yes,
    /// The packet is full; the row belongs into the next one.
    Full,
    /// The row is too large for any packet.
    TooLarge,
}

impl Items {
    pub fn new(shape: &Shape, wanted: &ViewOptions) -> Self {
        let name = |&position: &usize| shape.columns[position].name.to_string();
        Self {
            columns: wanted.columns.iter().map(name).collect(),
            chosen: wanted.columns.clone(),
            integers: wanted.integers,
            data: Vec::new(),
            rows: 0,
        }
    }

    /// Adds a complete row.
    pub fn add(&mut self, record: &RowRecord) -> Added {
        if Item::bytes(record, &self.chosen) > PACKET_BYTES {
            return Added::TooLarge;
        }
        if self.rows >= ROWS_MAX || self.data.len() >= PACKET_BYTES {
            return Added::Full;
        }
        let item = Item::chosen(&self.columns, record, &self.chosen, self.integers);
        // Serializing fails only for a document that is not JSON, and the reader has checked them.
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

    /// The event `rows`.
    pub fn into_event(self, id: Option<&str>) -> Bytes {
        let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
        let mut event = format!("event: rows\n{id}data: {{\"items\":[").into_bytes();
        // JSON documents are embedded unchanged; their line breaks are whitespace between tokens.
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
        let wanted = ViewOptions {
            selection: Selection::default(),
            columns: Vec::new(),
            integers: Integers::Text,
        };
        View::new(wanted, Arc::default())
    }

    fn all(view: &View, reading: &mut RingPosition) -> (u64, u64) {
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
    fn slow_followers_receive_the_number_of_missed_rows() {
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
    fn all_views_together_keep_bounded_memory() {
        let kept = Arc::new(AtomicUsize::new(0));
        let wanted = view().wanted.clone();
        let views: Vec<View> = (0..64)
            .map(|_| View::new(wanted.clone(), Arc::clone(&kept)))
            .collect();
        let mut reading: Vec<RingPosition> = views.iter().map(View::begin).collect();
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
