//! What those who follow a table with the same selection are told: the last packets, rendered once for all of them and
//! bounded in bytes. Each of them reads at its own pace; whoever comes too late misses packets and is told how many rows
//! were in them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::http::tables::{Integers, Item};
use crate::store::reader::{Matcher, RowRecord, Selection, Shape, Stopped};

/// Bytes of packets that are kept for those who read slowly; the newest packet is kept whatever it has.
const BYTES_MAX: usize = 1 << 20;

/// Rows that one packet tells of.
pub const ROWS_MAX: usize = 200;

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
    pub fn new(wanted: Wanted) -> Self {
        Self {
            matcher: Matcher::new(wanted.selection.clone()),
            wanted,
            ring: Mutex::default(),
            changed: watch::channel(0).0,
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
    /// on. This is work for a blocking thread.
    pub fn prepare(
        &self,
        shape: &Shape,
        records: &[RowRecord],
        skipped: u64,
        id: &str,
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
        let mut parts = wanted[thinned..].chunks(ROWS_MAX).peekable();
        while let Some(part) = parts.next() {
            // Only who has heard the last of them may go on behind it.
            let id = parts.peek().is_none().then_some(id);
            if let Some(block) = rows(shape, part, &self.wanted, id) {
                prepared.0.push((block, part.len() as u64));
            }
        }
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
        ring.packets.push_back(Packet { block, rows_before });
        while ring.bytes > BYTES_MAX && ring.packets.len() > 1 {
            if let Some(packet) = ring.packets.pop_front() {
                ring.bytes -= packet.block.len();
                ring.first += 1;
            }
        }
        drop(ring);
        self.changed.send_modify(|number| *number += 1);
    }
}

/// The data of the event `rows`.
#[derive(Serialize, ToSchema)]
pub struct RowsEvent {
    /// In the order in which their messages were handled.
    items: Vec<Item>,
}

/// The data of the event `gap`.
#[derive(Serialize, ToSchema)]
pub struct GapEvent {
    /// Rows that were left out; counted up to 100,000.
    skipped: u64,
}

/// The event that says that rows were left out.
pub fn gap(skipped: u64) -> Bytes {
    // A number can always be written.
    let data = serde_json::to_string(&GapEvent { skipped }).unwrap_or_default();
    format!("event: gap\ndata: {data}\n\n").into()
}

/// The event that tells of rows; none where there are none.
pub fn rows(shape: &Shape, records: &[&RowRecord], wanted: &Wanted, id: Option<&str>) -> Option<Bytes> {
    if records.is_empty() {
        return None;
    }
    let items = Item::chosen(shape, records, &wanted.columns, wanted.integers);
    // What SQLite holds can be shown as JSON; a number that is not finite never came in.
    let mut data = serde_json::to_vec(&RowsEvent { items }).ok()?;
    // A document is shown to the byte, and its line breaks can only stand between its parts.
    for byte in &mut data {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    let mut block = format!("event: rows\n{id}data: ").into_bytes();
    block.append(&mut data);
    block.extend_from_slice(b"\n\n");
    Some(block.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View::new(Wanted {
            selection: Selection::default(),
            columns: Vec::new(),
            integers: Integers::Text,
        })
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
}
