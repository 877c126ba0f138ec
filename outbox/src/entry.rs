//! File names in an outbox. A name contains the time and the lane of the event, so that listing the directory is sufficient to
//! determine the order. No I/O.
//!
//! A name is `<uuid>-<lane>.event`. The UUID has version 7: 48 bits of milliseconds, 12 bits of fraction (RFC 9562, method 3),
//! and 62 bits that distinguish processes. Within one process the time is strictly increasing, even if the clock is not.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

pub(crate) const EVENT_SUFFIX: &str = ".event";
pub(crate) const TMP_SUFFIX: &str = ".tmp";

/// A tick is 1/4096 ms, the resolution of the 60 time bits of a version 7 UUID.
const TICKS_PER_MS: u64 = 4096;
/// Names after the year 10000 are ignored, because continuing after them would exhaust the ticks.
const TICK_MAX: u64 = 253_402_300_800_000 * TICKS_PER_MS;

/// The last tick used in this process, shared by all its outboxes, so that their entries are ordered.
static LAST_TICK: AtomicU64 = AtomicU64::new(0);

/// The id of one event in an outbox. Ids sort in the order of `put`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(Uuid);

impl EntryId {
    /// The next id, greater than all earlier ids of this process.
    pub(crate) fn next(writer: Writer) -> Self {
        Self::at(next_tick(now_ticks()), writer, Uuid::new_v4().as_u128() as u32)
    }

    fn at(tick: u64, writer: Writer, random: u32) -> Self {
        let (ms, fraction) = (u128::from(tick / TICKS_PER_MS), u128::from(tick % TICKS_PER_MS));
        let tail = (u128::from(writer.0) << 32) | u128::from(random);
        Self(Uuid::from_u128(
            (ms << 80) | (7 << 76) | (fraction << 64) | (0b10 << 62) | tail,
        ))
    }

    fn tick(self) -> u64 {
        let bits = self.0.as_u128();
        ((bits >> 80) as u64) * TICKS_PER_MS + ((bits >> 64) as u64 & (TICKS_PER_MS - 1))
    }

    /// The outbox handle that created this id.
    pub(crate) fn writer(self) -> Writer {
        Writer((self.0.as_u128() >> 32) as u32 & Writer::MASK)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Thirty random bits that identify the entries of one outbox handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Writer(u32);

impl Writer {
    const MASK: u32 = (1 << 30) - 1;

    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4().as_u128() as u32 & Self::MASK)
    }
}

/// An ordered queue: the subjects with the same checksum, nearly always one. Two subjects in one lane only block each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lane(u32);

impl Lane {
    pub(crate) fn of(subject: &str) -> Self {
        Self(crc32fast::hash(subject.as_bytes()))
    }
}

/// One pending file in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) lane: Lane,
}

impl Entry {
    pub(crate) fn file_name(self) -> String {
        format!("{}-{:08x}{EVENT_SUFFIX}", self.id, self.lane.0)
    }

    pub(crate) fn tmp_name(self) -> String {
        format!("{}{TMP_SUFFIX}", self.id)
    }

    /// Parses a file name. `None` for any name that [`Entry::file_name`] does not produce.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (id, lane) = name.strip_suffix(EVENT_SUFFIX)?.split_at_checked(36)?;
        let id = Uuid::try_parse(id).ok()?;
        let lane = u32::from_str_radix(lane.strip_prefix('-')?, 16).ok()?;
        let entry = Self {
            id: EntryId(id),
            lane: Lane(lane),
        };
        (id.get_version_num() == 7 && entry.file_name() == name).then_some(entry)
    }
}

/// Ensures that later ids sort after `seen`: if the clock was set back, new events must not precede pending ones.
pub(crate) fn continue_after(seen: EntryId) {
    if seen.tick() < TICK_MAX {
        LAST_TICK.fetch_max(seen.tick(), Ordering::AcqRel);
    }
}

fn now_ticks() -> u64 {
    // A clock before 1970 counts as 1970; the order within the process does not depend on it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = u64::from(now.subsec_nanos() % 1_000_000) * TICKS_PER_MS / 1_000_000;
    u64::try_from(now.as_millis())
        .unwrap_or(0)
        .saturating_mul(TICKS_PER_MS)
        .saturating_add(fraction)
}

fn next_tick(now: u64) -> u64 {
    let mut last = LAST_TICK.load(Ordering::Acquire);
    loop {
        let tick = now.max(last + 1);
        match LAST_TICK.compare_exchange_weak(last, tick, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return tick,
            Err(seen) => last = seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_and_strictly_increasing() {
        let writer = Writer::random();
        let mut last = EntryId::next(writer);
        for _ in 0..100_000 {
            let next = EntryId::next(writer);
            assert!(next > last, "{next} after {last}");
            assert!(next.to_string() > last.to_string(), "names sort like ids");
            last = next;
        }
        assert_eq!(last.0.get_version_num(), 7);
        assert_eq!(last.writer(), writer);
    }

    #[test]
    fn ids_increase_in_concurrent_threads() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    let writer = Writer::random();
                    (0..10_000).map(|_| EntryId::next(writer)).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut all = std::collections::HashSet::new();
        for thread in threads {
            let ids = thread.join().unwrap();
            assert!(ids.is_sorted());
            all.extend(ids.into_iter().map(|id| id.tick()));
        }
        assert_eq!(all.len(), 40_000, "no tick is used twice");
    }

    #[test]
    fn a_clock_set_back_does_not_change_the_order() {
        let ahead = EntryId::at(now_ticks() + 3_600_000 * TICKS_PER_MS, Writer::random(), 1);
        continue_after(ahead);
        assert!(EntryId::next(Writer::random()) > ahead);
        // A name from the far future is ignored.
        continue_after(EntryId::at(u64::MAX / 16, Writer::random(), 1));
        assert!(EntryId::next(Writer::random()).tick() < TICK_MAX);
    }

    #[test]
    fn only_valid_names_are_parsed() {
        let entry = Entry {
            id: EntryId::next(Writer::random()),
            lane: Lane::of("obs.pc"),
        };
        let name = entry.file_name();
        assert_eq!(Entry::parse(&name), Some(entry));
        let foreign = [
            String::new(),
            ".event".to_owned(),
            entry.tmp_name(),
            name.to_uppercase(),
            name.replace("-", ""),
            format!("{name}.bak"),
            format!("+{name}"),
            name.replace(".event", "0.event"),
            format!("{}-00000000.event", Uuid::new_v4()),
        ];
        for name in foreign {
            assert_eq!(Entry::parse(&name), None, "{name}");
        }
    }
}
