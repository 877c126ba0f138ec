//! The producer's handle: put events into the directory, ask how many wait. Putting never needs a broker and
//! never waits for one. Publishing is [`crate::Drain`]'s work.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use crate::directory::{Directory, Modes, is_disk_full};
use crate::entry::{Entry, EntryId, Lane, Writer, continue_after};
use crate::event::{Event, InvalidEvent};
use crate::format;
use crate::status::{Stats, Status};

/// Up to this many files are synced one by one. From there on one flush of the file system is cheaper, although
/// it also writes what other programs have not yet written.
const SYNC_EACH_MAX: usize = 4;

/// What can be chosen about an outbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutboxOptions {
    /// Largest sum of headers and payload that `put` takes, in bytes. The default is 1 MiB, which is the
    /// `max_payload` of a server that was not told otherwise.
    pub size_limit_bytes: usize,
    /// Whether the group of the files may read them. The default is no: directories have mode 0700 and files 0600, since
    /// events hold whatever the producer saw. With `true` they have 0750 and 0640. A directory that exists keeps its mode.
    pub group_readable: bool,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            size_limit_bytes: 1024 * 1024,
            group_readable: false,
        }
    }
}

/// A directory that holds events until the broker has them. Cheap to clone; all clones are one outbox.
#[derive(Clone)]
pub struct Outbox {
    pub(crate) shared: Arc<Shared>,
    /// Marks the entries that are put through this handle.
    writer: Writer,
}

/// What became of the entries of one writer.
pub(crate) struct Own {
    pub(crate) waiting: u64,
    pub(crate) aside: u64,
}

/// One entry of a writer that is not published.
pub(crate) struct OwnEntry {
    pub(crate) entry: Entry,
    pub(crate) file: PathBuf,
    /// Why it is aside; none for one that waits.
    pub(crate) aside: Option<String>,
}

pub(crate) struct Shared {
    pub(crate) directory: Directory,
    pub(crate) status: Status,
    /// Tells the drain of this process that there is something new.
    pub(crate) put: Notify,
    options: OutboxOptions,
    /// Held for as long as this process may be writing.
    _writers_lock: File,
}

/// Why an outbox could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} the outbox {path}", path = path.display())]
pub struct OutboxError {
    /// What was tried.
    pub step: &'static str,
    /// The directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Why events were not put. In each case the first `stored` events of the call are in the outbox and will be
/// published, and the others left nothing behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// An event breaks a rule. Nothing of the call was written.
    #[error("event {index} of the call cannot be published")]
    Invalid {
        /// Which event of the call, counted from 0.
        index: usize,
        /// The rule.
        #[source]
        source: InvalidEvent,
    },
    /// There is no room for the event. Room comes back when the drain has published, or when something else is deleted.
    #[error("the disk of the outbox {path} is full", path = path.display())]
    DiskFull {
        /// How many events of the call are in the outbox.
        stored: usize,
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory did not take the event for another reason.
    #[error("cannot {step} in the outbox {path}", path = path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// How many events of the call are in the outbox.
        stored: usize,
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// All events of the call are in the outbox and will be published, unless the machine loses its power first:
    /// the last step that makes them safe from that has failed. Putting them again would publish them twice.
    #[error("the events are in the outbox {path}, but a power cut might take them away", path = path.display())]
    NotDurable {
        /// How many events of the call are in the outbox: all of them.
        stored: usize,
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl PutError {
    /// How many events of the call, counted from its first, are in the outbox in spite of the error.
    pub fn stored(&self) -> usize {
        match self {
            Self::Invalid { .. } => 0,
            Self::DiskFull { stored, .. } | Self::Io { stored, .. } | Self::NotDurable { stored, .. } => {
                *stored
            }
        }
    }
}

impl Outbox {
    /// Opens the outbox in `path` with the default options; see [`Outbox::open_with`].
    ///
    /// # Errors
    /// [`OutboxError`] when the directory cannot be made, read or locked.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OutboxError> {
        Self::open_with(path, OutboxOptions::default())
    }

    /// Opens the outbox in `path`, makes the directory when it is not there, and removes what a killed writer
    /// left half written. Several processes may have one outbox open and put into it.
    ///
    /// # Errors
    /// [`OutboxError`] when the directory cannot be made, read or locked.
    pub fn open_with(path: impl AsRef<Path>, options: OutboxOptions) -> Result<Self, OutboxError> {
        let path = path.as_ref();
        let failed = |step| {
            move |source| OutboxError {
                step,
                path: path.to_owned(),
                source,
            }
        };
        let directory = Directory::open(path, Modes::new(options.group_readable)).map_err(failed("open"))?;
        let writers_lock = directory.join_writers().map_err(failed("clean up and lock"))?;
        let mut newest: Option<EntryId> = None;
        let scanned = directory.scan(|found| newest = newest.max(found.ok().map(|entry| entry.id)));
        scanned.map_err(failed("list"))?;
        if let Some(newest) = newest {
            continue_after(newest);
        }
        let shared = Shared {
            directory,
            status: Status::default(),
            put: Notify::new(),
            options,
            _writers_lock: writers_lock,
        };
        Ok(Self {
            shared: Arc::new(shared),
            writer: Writer::random(),
        })
    }

    /// The directory, as it was given.
    pub fn path(&self) -> &Path {
        self.shared.directory.path()
    }

    /// Puts one event. When this returns `Ok` the event is on disk, and will be published once a drain can, even
    /// if the process is killed or the machine loses its power now. Blocks for the disk, never for the broker.
    ///
    /// # Errors
    /// [`PutError`]; see there what is in the outbox then.
    pub fn put(&self, event: &Event) -> Result<EntryId, PutError> {
        let mut entry = None;
        self.put_each(std::slice::from_ref(event), |stored| entry = Some(stored))?;
        // One event that was stored without an error was reported.
        entry
            .map(|entry| entry.id)
            .ok_or_else(|| self.failed("store", 0, io::ErrorKind::Other.into()))
    }

    /// Puts many events and waits for the disk once for all of them. Their order is kept. A kill in the middle
    /// leaves none of them, or the first few.
    ///
    /// # Errors
    /// [`PutError`]; all events are checked before the first byte is written.
    pub fn put_all(&self, events: &[Event]) -> Result<Vec<EntryId>, PutError> {
        let mut ids = Vec::with_capacity(events.len());
        self.put_each(events, |entry| ids.push(entry.id))?;
        Ok(ids)
    }

    /// How many events wait, those in flight included. Lists the directory.
    ///
    /// # Errors
    /// [`OutboxError`] when the directory cannot be listed.
    pub fn len(&self) -> Result<u64, OutboxError> {
        let mut waiting = 0;
        let scanned = self.shared.directory.scan(|_| waiting += 1);
        scanned.map_err(|source| self.unreadable(source))?;
        Ok(waiting)
    }

    /// Whether nothing waits.
    ///
    /// # Errors
    /// [`OutboxError`] when the directory cannot be listed.
    pub fn is_empty(&self) -> Result<bool, OutboxError> {
        Ok(self.len()? == 0)
    }

    /// What waits, what happened, and what is wrong. Lists the directory.
    ///
    /// # Errors
    /// [`OutboxError`] when the directory cannot be listed.
    pub fn stats(&self) -> Result<Stats, OutboxError> {
        let mut aside = 0;
        let scanned = self.shared.directory.scan_aside(|_| aside += 1);
        scanned.map_err(|source| self.unreadable(source))?;
        Ok(self.shared.status.read(self.len()?, aside))
    }

    /// How many events this process' drain has published. Unlike [`Outbox::stats`] it does not list the directory.
    pub fn published(&self) -> u64 {
        self.shared.status.published.load(Ordering::Relaxed)
    }

    /// The same outbox, with entries that can be told from those of this handle.
    pub(crate) fn as_new_writer(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            writer: Writer::random(),
        }
    }

    pub(crate) fn size_limit_bytes(&self) -> usize {
        self.shared.options.size_limit_bytes
    }

    /// What became of the events that were put through this handle and its clones.
    pub(crate) fn own(&self) -> Result<Own, OutboxError> {
        let is_own = |entry: Entry| u64::from(entry.id.writer() == self.writer);
        let mut own = Own { waiting: 0, aside: 0 };
        let scanned = self
            .shared
            .directory
            .scan(|found| own.waiting += found.map_or(0, is_own));
        scanned.map_err(|source| self.unreadable(source))?;
        let scanned = self
            .shared
            .directory
            .scan_aside(|name| own.aside += Entry::parse(name).map_or(0, is_own));
        scanned.map_err(|source| self.unreadable(source))?;
        Ok(own)
    }

    /// The events that were put through this handle and its clones and are not published.
    pub(crate) fn own_entries(&self) -> Result<Vec<OwnEntry>, OutboxError> {
        let directory = &self.shared.directory;
        let mut own = Vec::new();
        let mut add = |entry: Option<Entry>, file: PathBuf, aside: Option<String>| {
            let entry = entry.filter(|entry| entry.id.writer() == self.writer);
            own.extend(entry.map(|entry| OwnEntry { entry, file, aside }));
        };
        let scanned = directory.scan(|found| {
            let entry = found.ok();
            let name = entry.map(Entry::file_name).unwrap_or_default();
            add(entry, self.path().join(name), None);
        });
        scanned.map_err(|source| self.unreadable(source))?;
        let scanned = directory.scan_aside(|name| {
            let file = self.path().join("aside").join(name);
            let reason = directory.reason_aside(name);
            add(Entry::parse(name), file, Some(reason));
        });
        scanned.map_err(|source| self.unreadable(source))?;
        Ok(own)
    }

    /// Puts events as [`Outbox::put_all`] does, and answers with the ids of those that are stored also when there is an
    /// error.
    pub(crate) fn put_some(&self, events: &[Event]) -> (Vec<EntryId>, Result<(), PutError>) {
        let mut ids = Vec::with_capacity(events.len());
        let put = self.put_each(events, |entry| ids.push(entry.id));
        (ids, put)
    }

    /// `stored` is called for each event that is in the outbox afterwards, also when there is an error.
    fn put_each(&self, events: &[Event], mut stored: impl FnMut(Entry)) -> Result<(), PutError> {
        for (index, event) in events.iter().enumerate() {
            let checked = event.check(self.shared.options.size_limit_bytes);
            checked.map_err(|source| PutError::Invalid { index, source })?;
        }
        let entries = self.write_all(events)?;
        let directory = &self.shared.directory;
        for (count, &entry) in entries.iter().enumerate() {
            if let Err(error) = directory.publish_tmp(entry) {
                entries[count..]
                    .iter()
                    .for_each(|&entry| directory.remove_tmp(entry));
                self.shared.put.notify_one();
                return Err(self.failed("rename a file", count, error));
            }
            stored(entry);
        }
        self.shared.put.notify_one();
        directory.sync().map_err(|source| PutError::NotDurable {
            stored: events.len(),
            path: self.path().to_owned(),
            source,
        })
    }

    /// Writes every event under a temporary name, durably, or leaves nothing.
    fn write_all(&self, events: &[Event]) -> Result<Vec<Entry>, PutError> {
        let directory = &self.shared.directory;
        let sync_each = events.len() <= SYNC_EACH_MAX;
        let mut entries = Vec::with_capacity(events.len());
        let mut write = || -> io::Result<()> {
            for event in events {
                let entry = Entry {
                    id: EntryId::next(self.writer),
                    lane: Lane::of(&event.subject),
                };
                let id = event.id.clone().unwrap_or_else(|| entry.id.to_string());
                let bytes = format::encode(event, &id).map_err(io::Error::other)?;
                directory.write_tmp(entry, &bytes, sync_each)?;
                entries.push(entry);
            }
            if sync_each {
                Ok(())
            } else {
                directory.sync_tmp_files(&entries)
            }
        };
        let written = write();
        if written.is_err() {
            entries.iter().for_each(|&entry| directory.remove_tmp(entry));
        }
        written.map_err(|error| self.failed("write a file", 0, error))?;
        Ok(entries)
    }

    pub(crate) fn failed(&self, step: &'static str, stored: usize, source: io::Error) -> PutError {
        let path = self.path().to_owned();
        if is_disk_full(&source) {
            PutError::DiskFull { stored, path, source }
        } else {
            PutError::Io {
                step,
                stored,
                path,
                source,
            }
        }
    }

    fn unreadable(&self, source: io::Error) -> OutboxError {
        OutboxError {
            step: "list",
            path: self.path().to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: &str) -> Event {
        Event::new("obs.a", payload.to_owned())
    }

    fn files(outbox: &Outbox) -> usize {
        std::fs::read_dir(outbox.path()).unwrap().count()
    }

    #[test]
    fn an_invalid_event_stops_the_whole_call_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path().join("made/for/it")).unwrap();
        let before = files(&outbox);
        let error = outbox
            .put_all(&[event("a"), Event::new("obs.*", "b")])
            .unwrap_err();
        assert!(matches!(error, PutError::Invalid { index: 1, .. }), "{error:?}");
        assert_eq!((error.stored(), files(&outbox)), (0, before));
        assert_eq!(outbox.put_all(&[]).unwrap(), []);
        assert!(outbox.is_empty().unwrap());
    }

    #[test]
    fn a_full_disk_leaves_nothing_behind_and_heals() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox.put(&event("before")).unwrap();
        let before = files(&outbox);
        let disk_bytes = &outbox.shared.directory.faults.disk_bytes;
        for (room, count) in [(0, 1), (10, 1), (300, 3), (1500, 50)] {
            disk_bytes.store(room, Ordering::Relaxed);
            let error = outbox.put_all(&vec![event("too much"); count]).unwrap_err();
            assert!(matches!(error, PutError::DiskFull { stored: 0, .. }), "{error:?}");
            assert_eq!(files(&outbox), before, "{room} bytes of room");
        }
        disk_bytes.store(-1, Ordering::Relaxed);
        outbox.put(&event("after")).unwrap();
        assert_eq!(outbox.len().unwrap(), 2);
    }

    #[test]
    fn a_directory_that_is_taken_away_is_an_error_and_not_a_loss() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let outbox = Outbox::open(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        let error = outbox.put(&event("x")).unwrap_err();
        assert!(matches!(error, PutError::Io { stored: 0, .. }), "{error:?}");
    }
}
