//! The pending events of the directory: listed in order, read and checked individually, removed or moved to `aside/` when
//! done. Owns the state that outlasts a connection. Does not know the broker.

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::directory::ReadError;
use crate::entry::{Entry, EntryId, Lane};
use crate::event::Event;
use crate::format;
use crate::lanes::Lanes;
use crate::outbox::Shared;
use crate::status::chain;
use crate::sweeper::Sweeper;

/// Maximum number of known entries, oldest first. With 24 bytes each this is 3 MiB, and a directory of a million files is
/// listed eight times. A resting lane counts as one entry, so it cannot displace the others.
const KNOWN_MAX: usize = 128 * 1024;
/// Maximum number of resting lanes, with one known entry each. Beyond it no other lane is read until one is accepted: a broker
/// that rejects this many subjects is unlikely to accept the next one.
const RESTING_MAX: usize = 64 * 1024;
/// Maximum number of foreign files per listing, so that many of them do not delay events.
const FOREIGN_MAX: usize = 64;
/// Maximum number of remembered files that could not be moved to `aside/`. When exceeded, all are retried.
const SKIPPED_MAX: usize = 4096;
/// Maximum number of events with an unknown outcome. A lost connection leaves one window of them.
const UNKNOWN_MAX: usize = 4096;
/// Listing takes at most a tenth of the time, independent of the size of the directory.
const SCAN_REST_FACTOR: u32 = 10;
/// The default duplicate window of a stream.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

pub(crate) struct Backlog {
    pub(crate) lanes: Lanes,
    shared: Arc<Shared>,
    sweeper: Sweeper,
    /// Names of files that could not be moved to `aside/`.
    skipped: HashSet<String>,
    /// Acknowledged entries that could not be removed. Nothing else is published meanwhile, so there is at most one window.
    unremoved: Vec<Entry>,
    /// Time of the first attempt of events without an acknowledgement.
    unknown: HashMap<EntryId, Instant>,
    /// Whether the last listing was incomplete.
    more: bool,
    scan_not_before: Option<Instant>,
    /// Number of pending events at the last listing.
    listed: u64,
}

/// The result of listing the directory.
#[derive(Default)]
struct Listing {
    oldest: BinaryHeap<Entry>,
    resting: BTreeMap<Lane, EntryId>,
    foreign: Vec<OsString>,
    truncated: bool,
    count: u64,
}

impl Backlog {
    pub(crate) fn new(shared: Arc<Shared>, window: usize, sweeper: Sweeper) -> Self {
        // Retries files skipped by an earlier drain.
        shared.status.skipped.store(0, Ordering::Relaxed);
        Self {
            lanes: Lanes::new(window),
            shared,
            sweeper,
            skipped: HashSet::new(),
            unremoved: Vec::new(),
            unknown: HashMap::new(),
            more: true,
            scan_not_before: None,
            listed: 0,
        }
    }

    /// The oldest event that can be sent now. Moves invalid files to `aside/`.
    ///
    /// # Errors
    /// If files currently cannot be read or removed. Then nothing may be sent.
    pub(crate) fn next(&mut self, now: Instant) -> io::Result<Option<(Entry, Event)>> {
        self.remove_unremoved()?;
        while let Some(entry) = self.lanes.next(now) {
            match self.shared.directory.read(&entry.file_name()) {
                Ok(bytes) => match self.check(entry, bytes) {
                    Ok(event) => return Ok(Some((entry, event))),
                    Err(reason) => self.set_aside(entry, &reason),
                },
                Err(ReadError::Gone) => self.lanes.remove(entry),
                Err(ReadError::Unreadable(error)) => {
                    self.set_aside(entry, &format!("cannot read the file: {error}"));
                }
                Err(ReadError::Busy(error)) => {
                    self.lanes.put_back(entry);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    fn check(&self, entry: Entry, bytes: Vec<u8>) -> Result<Event, String> {
        let event = format::decode(&Bytes::from(bytes)).map_err(|corrupt| chain(&corrupt))?;
        if Lane::of(&event.subject) != entry.lane {
            return Err(format!(
                "the file name does not match the subject {}",
                event.subject
            ));
        }
        Ok(event)
    }

    /// The broker has acknowledged the event: removes its file.
    pub(crate) fn acked(&mut self, entry: Entry, duplicate: bool, now: Instant) {
        let status = &self.shared.status;
        status.published.fetch_add(1, Ordering::Relaxed);
        if duplicate {
            status.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        let first_try = self.unknown.remove(&entry.id);
        let is_late = |first_try| now.saturating_duration_since(first_try) > DUPLICATE_WINDOW;
        if !duplicate && first_try.is_some_and(is_late) {
            status.late_repeats.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(event = %entry.id, "an event without an acknowledgement was stored after the duplicate window; it may be duplicated");
        }
        if self.lanes.acked(entry) {
            // Only the oldest entry of a resting lane is known.
            self.more = true;
            if let Some(blocked) = self.shared.status.unblock(entry.lane) {
                tracing::info!(subject = blocked.subject, "the broker accepts this subject again");
            }
        }
        if let Err(error) = self.sweeper.remove(entry) {
            self.report(format!(
                "cannot remove the published {}: {error}",
                entry.file_name()
            ));
            self.unremoved.push(entry);
        }
    }

    /// The broker has rejected the event for now.
    pub(crate) fn rejected(
        &mut self,
        entry: Entry,
        subject: &str,
        reason: String,
        rest: impl Fn(u32) -> Duration,
    ) {
        if self.shared.status.block(entry.lane, subject, reason.clone()) {
            tracing::warn!(
                subject,
                reason,
                "the broker rejects a subject; other subjects continue"
            );
        }
        self.lanes
            .rejected(entry, |failures| Instant::now() + rest(failures));
    }

    /// An event was sent, and its outcome is unknown.
    pub(crate) fn unanswered(&mut self, id: EntryId, first_try: Instant) {
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.entry(id).or_insert(first_try);
        }
    }

    /// The event can never be published: moves its file to `aside/`.
    pub(crate) fn set_aside(&mut self, entry: Entry, reason: &str) {
        self.lanes.remove(entry);
        self.unknown.remove(&entry.id);
        self.set_aside_name(&entry.file_name(), reason);
    }

    fn set_aside_name(&mut self, name: &str, reason: &str) {
        match self.shared.directory.set_aside(name, reason) {
            Ok(()) => self.report(format!("moved {name} to aside: {reason}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.report(format!(
                    "skipping {name}, which cannot be moved to aside: {error} ({reason})"
                ));
                if self.skipped.len() >= SKIPPED_MAX {
                    self.skipped.clear();
                }
                self.skipped.insert(name.to_owned());
                self.shared
                    .status
                    .skipped
                    .store(self.skipped.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Lists the directory, unless it was just listed: `Ok(false)`.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub(crate) fn scan(&mut self) -> io::Result<bool> {
        let begin = Instant::now();
        if self.scan_not_before.is_some_and(|not_before| begin < not_before) {
            return Ok(false);
        }
        // A listing may miss a file that is renamed meanwhile and include a later one. Files older than the newest one before
        // the listing cannot be missed, so only these are used, which preserves the order.
        let newest = self.newest()?;
        let listing = self.list(newest)?;
        let end = Instant::now();
        self.scan_not_before = Some(end + (end - begin) * SCAN_REST_FACTOR);
        self.more = listing.truncated;
        self.listed = listing.count;
        let resting = listing.resting.into_iter().map(|(lane, id)| Entry { id, lane });
        let mut entries: Vec<Entry> = listing.oldest.into_iter().chain(resting).collect();
        entries.sort_unstable();
        for lane in self.lanes.refill(&entries) {
            self.shared.status.unblock(lane);
        }
        for name in listing.foreign {
            let reason = "the file name is not valid for an outbox";
            match name.to_str() {
                Some(name) => self.set_aside_name(name, reason),
                None => tracing::debug!(?name, "ignoring a file with a name that is not UTF-8"),
            }
        }
        Ok(true)
    }

    /// The newest pending event.
    fn newest(&self) -> io::Result<Option<EntryId>> {
        let mut newest = None;
        self.shared
            .directory
            .scan(|found| newest = newest.max(found.ok().map(|entry| entry.id)))?;
        Ok(newest)
    }

    /// Lists entries up to `newest`; newer ones mark the listing as incomplete.
    fn list(&self, newest: Option<EntryId>) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let only_resting = self.lanes.resting() >= RESTING_MAX;
        self.shared.directory.scan(|found| match found {
            Ok(entry) => {
                if self.unremoved.contains(&entry)
                    || !self.skipped.is_empty() && self.skipped.contains(&entry.file_name())
                {
                    return;
                }
                listing.count += 1;
                if newest.is_none_or(|newest| entry.id > newest) {
                    listing.truncated = true;
                    return;
                }
                if self.lanes.is_resting(entry.lane) {
                    let oldest = listing.resting.entry(entry.lane).or_insert(entry.id);
                    *oldest = entry.id.min(*oldest);
                } else if only_resting {
                    listing.truncated = true;
                } else {
                    listing.oldest.push(entry);
                    if listing.oldest.len() > KNOWN_MAX {
                        listing.oldest.pop();
                        listing.truncated = true;
                    }
                }
            }
            Err(name) => {
                let skipped = name.to_str().is_none_or(|name| self.skipped.contains(name));
                if listing.foreign.len() < FOREIGN_MAX && !skipped {
                    listing.foreign.push(name);
                }
            }
        })?;
        Ok(listing)
    }

    /// Whether there are entries beyond the last listing.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// Earliest time of the next listing.
    pub(crate) fn scan_not_before(&self) -> Option<Instant> {
        self.scan_not_before
    }

    /// Number of pending events at the last listing.
    pub(crate) fn listed(&self) -> u64 {
        self.listed
    }

    fn remove_unremoved(&mut self) -> io::Result<()> {
        while let Some(&entry) = self.unremoved.last() {
            self.sweeper.remove(entry)?;
            self.unremoved.pop();
        }
        Ok(())
    }

    fn report(&self, message: String) {
        tracing::warn!(outbox = %self.shared.directory.path().display(), "{message}");
        self.shared.status.set_error(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;

    fn backlog(outbox: &Outbox) -> Backlog {
        let sweeper = Sweeper::start(&outbox.shared).unwrap();
        Backlog::new(Arc::clone(&outbox.shared), 8, sweeper)
    }

    /// Damages the oldest pending event and returns its name.
    fn damage_oldest(outbox: &Outbox) -> String {
        let mut names = Vec::new();
        let directory = &outbox.shared.directory;
        directory
            .scan(|found| names.push(found.unwrap().file_name()))
            .unwrap();
        let name = names.into_iter().min().unwrap();
        std::fs::write(outbox.path().join(&name), b"").unwrap();
        name
    }

    #[test]
    fn a_damaged_file_that_cannot_be_moved_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox
            .put_all(&[Event::new("a", "0"), Event::new("a", "1")])
            .unwrap();
        let damaged = damage_oldest(&outbox);
        outbox
            .shared
            .directory
            .faults
            .renames_fail
            .store(true, Ordering::Relaxed);
        let mut backlog = backlog(&outbox);
        assert!(backlog.scan().unwrap());
        let (_, event) = backlog
            .next(Instant::now())
            .unwrap()
            .expect("the second event is not blocked");
        assert_eq!(event.payload, "1");
        assert_eq!(outbox.stats().unwrap().skipped, 1);
        assert!(dir.path().join(&damaged).exists());
        // It is not retried.
        std::thread::sleep(Duration::from_millis(50));
        assert!(backlog.scan().unwrap());
        assert!(backlog.next(Instant::now()).unwrap().is_none());
        drop(backlog);
        // The next drain retries it.
        outbox
            .shared
            .directory
            .faults
            .renames_fail
            .store(false, Ordering::Relaxed);
        let mut backlog = self::backlog(&outbox);
        backlog.scan().unwrap();
        backlog.next(Instant::now()).unwrap();
        assert!(dir.path().join("aside").join(&damaged).exists());
    }

    /// A million files of a subject without a stream must not hide other subjects.
    #[test]
    fn only_the_oldest_entry_of_a_resting_lane_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox.put_all(&vec![Event::new("blocked", "x"); 20]).unwrap();
        let mut backlog = backlog(&outbox);
        backlog.scan().unwrap();
        let now = Instant::now();
        let (oldest, _) = backlog.next(now).unwrap().unwrap();
        backlog.rejected(oldest, "blocked", "no stream".to_owned(), |_| {
            Duration::from_secs(3600)
        });
        outbox.put(&Event::new("free", "y")).unwrap();
        let listing = backlog.list(backlog.newest().unwrap()).unwrap();
        assert_eq!(
            (listing.oldest.len(), listing.resting.len(), listing.count),
            (1, 1, 21)
        );
        assert_eq!(listing.resting.values().next(), Some(&oldest.id));
    }

    #[test]
    fn late_repetitions_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox.put_all(&vec![Event::new("a", "x"); 3]).unwrap();
        let mut backlog = backlog(&outbox);
        backlog.scan().unwrap();
        let first_try = Instant::now();
        let late = first_try + DUPLICATE_WINDOW * 2;
        for (now, duplicate) in [(late, false), (late, true), (first_try, false)] {
            let (entry, _) = backlog.next(first_try).unwrap().unwrap();
            backlog.unanswered(entry.id, first_try);
            backlog.acked(entry, duplicate, now);
        }
        let stats = outbox.stats().unwrap();
        assert_eq!(
            (
                stats.published,
                stats.duplicates,
                stats.late_repeats,
                stats.waiting
            ),
            (3, 1, 1, 0)
        );
    }
}
