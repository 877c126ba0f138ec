//! What waits in the directory, as the drain sees it: listed in order, read and checked one by one, removed or set
//! aside when done. Owns what has to be remembered between two connections. Does not know the broker.

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

/// Entries known at one time: the oldest of what waits. 24 bytes each, so 3 MiB, and a directory of a million files is
/// listed eight times in all. A resting lane counts as one, so it cannot fill the list and hide the others.
const KNOWN_MAX: usize = 128 * 1024;
/// Lanes that may rest at one time, each with one known entry. Beyond that nothing else is looked at until one is
/// accepted: a broker which refuses this many subjects is not going to take the next one.
const RESTING_MAX: usize = 64 * 1024;
/// Foreign files handled for one listing, so that a directory full of them does not hold up the events.
const FOREIGN_MAX: usize = 64;
/// Files that could not be moved aside. When there are more, they are all tried again.
const SKIPPED_MAX: usize = 4096;
/// Events whose outcome is unknown. A lost connection leaves one window of them.
const UNKNOWN_MAX: usize = 4096;
/// Listing takes at most a tenth of the time, however large the directory is.
const SCAN_REST_FACTOR: u32 = 10;
/// The duplicate window of a stream that was not told otherwise.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

pub(crate) struct Backlog {
    pub(crate) lanes: Lanes,
    shared: Arc<Shared>,
    sweeper: Sweeper,
    /// Names that could not be moved aside.
    skipped: HashSet<String>,
    /// Acknowledged, but still in the directory because removing them failed. Nothing else is published
    /// meanwhile, so there are never more than one window.
    unremoved: Vec<Entry>,
    /// First try of events that were sent and not answered.
    unknown: HashMap<EntryId, Instant>,
    /// Whether the last listing left events out.
    more: bool,
    scan_not_before: Option<Instant>,
    /// Events that waited at the last listing.
    listed: u64,
}

/// One listing of the directory.
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
        // What an earlier drain had to skip is tried again by this one.
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

    /// The oldest event that may be sent now. What turns out to be no event is set aside on the way.
    ///
    /// # Errors
    /// When this process cannot read or remove files at the moment. Nothing may be sent then.
    pub(crate) fn next(&mut self, now: Instant) -> io::Result<Option<(Entry, Event)>> {
        self.remove_unremoved()?;
        while let Some(entry) = self.lanes.next(now) {
            match self.shared.directory.read(&entry.file_name()) {
                Ok(bytes) => match self.check(entry, bytes) {
                    Ok(event) => return Ok(Some((entry, event))),
                    Err(reason) => self.set_aside(entry, &reason),
                },
                Err(ReadError::Gone) => self.lanes.left(entry),
                Err(ReadError::Unreadable(error)) => {
                    self.set_aside(entry, &format!("the file cannot be read: {error}"));
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
                "the file's name is not that of an event on {}",
                event.subject
            ));
        }
        Ok(event)
    }

    /// The broker has the event: its file goes away.
    pub(crate) fn acked(&mut self, entry: Entry, duplicate: bool) {
        let status = &self.shared.status;
        status.published.fetch_add(1, Ordering::Relaxed);
        if duplicate {
            status.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        let first_try = self.unknown.remove(&entry.id);
        if first_try.is_some_and(|first_try| !duplicate && first_try.elapsed() > DUPLICATE_WINDOW) {
            status.late_repeats.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(event = %entry.id, "an event whose first answer was lost was stored again, perhaps twice");
        }
        if self.lanes.acked(entry) {
            // Of a resting lane only the oldest is known; the others are on disk.
            self.more = true;
            if let Some(blocked) = self.shared.status.unblock(entry.lane) {
                tracing::info!(subject = blocked.subject, "the broker takes this subject again");
            }
        }
        if let Err(error) = self.sweeper.remove(entry) {
            self.report(format!(
                "cannot remove {}, which is published: {error}",
                entry.file_name()
            ));
            self.unremoved.push(entry);
        }
    }

    /// The broker does not take the event now.
    pub(crate) fn refused(
        &mut self,
        entry: Entry,
        subject: &str,
        reason: String,
        rest: impl Fn(u32) -> Duration,
    ) {
        if self.shared.status.block(entry.lane, subject, reason.clone()) {
            tracing::warn!(subject, reason, "the broker refuses a subject; others go on");
        }
        self.lanes
            .refused(entry, |failures| Instant::now() + rest(failures));
    }

    /// An event was sent and its outcome is not known.
    pub(crate) fn unanswered(&mut self, id: EntryId, first_try: Instant) {
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.entry(id).or_insert(first_try);
        }
    }

    /// The event can never be published. It is not in the way any more when this returns.
    pub(crate) fn set_aside(&mut self, entry: Entry, reason: &str) {
        self.lanes.left(entry);
        self.unknown.remove(&entry.id);
        self.set_aside_name(&entry.file_name(), reason);
    }

    fn set_aside_name(&mut self, name: &str, reason: &str) {
        match self.shared.directory.set_aside(name, reason) {
            Ok(()) => self.report(format!("{name} was set aside: {reason}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.report(format!(
                    "{name} is skipped, because it cannot be moved aside: {error} ({reason})"
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

    /// Lists the directory again, unless it was just listed: `Ok(false)`.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub(crate) fn scan(&mut self) -> io::Result<bool> {
        let begin = Instant::now();
        if self.scan_not_before.is_some_and(|not_before| begin < not_before) {
            return Ok(false);
        }
        // A listing may miss a file that was renamed while it ran, and show one that was renamed after that. What is
        // older than something that was there before the listing began cannot be missed: so the order is kept.
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
            let reason = "its name is not one that this outbox gives";
            match name.to_str() {
                Some(name) => self.set_aside_name(name, reason),
                None => tracing::debug!(?name, "a file with a name that is not text is left where it is"),
            }
        }
        Ok(true)
    }

    /// The newest event that waits.
    fn newest(&self) -> io::Result<Option<EntryId>> {
        let mut newest = None;
        self.shared
            .directory
            .scan(|found| newest = newest.max(found.ok().map(|entry| entry.id)))?;
        Ok(newest)
    }

    /// Lists what is not newer than `newest`; there is more when something is.
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

    /// Whether the last listing left something out that may be sent.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// When the directory may be listed again at the earliest.
    pub(crate) fn scan_not_before(&self) -> Option<Instant> {
        self.scan_not_before
    }

    /// How many events waited at the last listing.
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
        self.shared.status.error(message);
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

    /// Damages the oldest event that waits, and gives its name.
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
    fn a_damaged_file_that_cannot_be_moved_is_skipped_and_stays() {
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
            .expect("the second event is not held up");
        assert_eq!(event.payload, "1");
        assert_eq!(outbox.stats().unwrap().skipped, 1);
        assert!(dir.path().join(&damaged).exists());
        // It is not tried again and again.
        std::thread::sleep(Duration::from_millis(50));
        assert!(backlog.scan().unwrap());
        assert!(backlog.next(Instant::now()).unwrap().is_none());
        drop(backlog);
        // The next drain tries again.
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

    /// With a million files of a subject that has no stream, other subjects must still be seen.
    #[test]
    fn of_a_resting_lane_only_the_oldest_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox.put_all(&vec![Event::new("blocked", "x"); 20]).unwrap();
        let mut backlog = backlog(&outbox);
        backlog.scan().unwrap();
        let now = Instant::now();
        let (oldest, _) = backlog.next(now).unwrap().unwrap();
        backlog.refused(oldest, "blocked", "no stream".to_owned(), |_| {
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
    fn a_repetition_stored_as_new_after_the_duplicate_window_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox.put_all(&vec![Event::new("a", "x"); 3]).unwrap();
        let mut backlog = backlog(&outbox);
        backlog.scan().unwrap();
        let long_ago = Instant::now().checked_sub(DUPLICATE_WINDOW * 2).unwrap();
        for (first_try, duplicate) in [(long_ago, false), (long_ago, true), (Instant::now(), false)] {
            let (entry, _) = backlog.next(Instant::now()).unwrap().unwrap();
            backlog.unanswered(entry.id, first_try);
            backlog.acked(entry, duplicate);
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
