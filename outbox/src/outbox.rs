//! The producer's handle: puts events into the directory and reads statistics. It needs no broker; [`crate::Drain`] publishes
//! the events.

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

/// Up to this many files are synced individually. For more files, one sync of the file system is cheaper, although it
/// includes data of other programs.
const SYNC_EACH_MAX: usize = 4;

/// Options of an outbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutboxOptions {
    /// Maximum size of headers and payload, in bytes. The default is 1 MiB, the default `max_payload` of a server.
    pub size_limit_bytes: usize,
    /// Whether the group can read the files. By default, directories have mode 0700 and files 0600, because events may be
    /// confidential. With `true` they have 0750 and 0640. An existing directory keeps its mode.
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

/// A directory of events that the broker has not acknowledged. Cheap to clone; all clones share one outbox.
#[derive(Clone)]
pub struct Outbox {
    pub(crate) shared: Arc<Shared>,
    /// Identifies the entries of this handle.
    writer: Writer,
}

/// Counts of the entries of one writer.
pub(crate) struct Own {
    pub(crate) waiting: u64,
    pub(crate) aside: u64,
}

/// One unpublished entry of a writer.
pub(crate) struct OwnEntry {
    pub(crate) entry: Entry,
    pub(crate) file: PathBuf,
    /// Why it is in `aside/`; none for a pending entry.
    pub(crate) aside: Option<String>,
}

pub(crate) struct Shared {
    pub(crate) directory: Directory,
    pub(crate) status: Status,
    /// Notifies the drain of this process about new events.
    pub(crate) put: Notify,
    options: OutboxOptions,
    /// Held while this process may write.
    _writers_lock: File,
}

/// An outbox could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} the outbox {path}", path = path.display())]
pub struct OutboxError {
    /// The failed step.
    pub step: &'static str,
    /// The directory.
    pub path: PathBuf,
    /// The error of the system.
    #[source]
    pub source: io::Error,
}

/// Events could not be put. In each case, the first `stored` events of the call are in the outbox and will be published; the
/// others left no files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// An event is invalid. No event of the call was written.
    #[error("event {index} of the call cannot be published")]
    Invalid {
        /// Index of the event in the call.
        index: usize,
        /// The violated rule.
        #[source]
        source: InvalidEvent,
    },
    /// The disk is full. The drain frees space by publishing.
    #[error("the disk of the outbox {path} is full", path = path.display())]
    DiskFull {
        /// Number of events of the call in the outbox.
        stored: usize,
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// Another error of the file system.
    #[error("cannot {step} in the outbox {path}", path = path.display())]
    Io {
        /// The failed step.
        step: &'static str,
        /// Number of events of the call in the outbox.
        stored: usize,
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// All events of the call are in the outbox and will be published, but may be lost in a power failure, because the final
    /// sync failed. Putting them again would publish them twice.
    #[error("the events are in the outbox {path}, but may be lost in a power failure", path = path.display())]
    NotDurable {
        /// Number of events of the call in the outbox: all.
        stored: usize,
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

impl PutError {
    /// Number of events of the call that are in the outbox despite the error; these are the first ones.
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
    /// [`OutboxError`] if the directory cannot be created, read or locked.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OutboxError> {
        Self::open_with(path, OutboxOptions::default())
    }

    /// Opens the outbox in `path`, creates the directory if it does not exist, and removes partial files of killed writers.
    /// Several processes can open one outbox and put into it.
    ///
    /// # Errors
    /// [`OutboxError`] if the directory cannot be created, read or locked.
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

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        self.shared.directory.path()
    }

    /// Puts one event. After `Ok` the event is on disk and will be published, even after a crash or a power failure. Blocks for
    /// the disk, never for the broker.
    ///
    /// # Errors
    /// [`PutError`], which states what is in the outbox.
    pub fn put(&self, event: &Event) -> Result<EntryId, PutError> {
        let mut entry = None;
        self.put_each(std::slice::from_ref(event), |stored| entry = Some(stored))?;
        // Without an error, the callback was called once.
        entry
            .map(|entry| entry.id)
            .ok_or_else(|| self.failed("store", 0, io::ErrorKind::Other.into()))
    }

    /// Puts many events in order and waits for the disk once. If the process is killed, none or the first few are stored.
    ///
    /// # Errors
    /// [`PutError`]. All events are checked before the first one is written.
    pub fn put_all(&self, events: &[Event]) -> Result<Vec<EntryId>, PutError> {
        let mut ids = Vec::with_capacity(events.len());
        self.put_each(events, |entry| ids.push(entry.id))?;
        Ok(ids)
    }

    /// Number of pending events, including those in flight. Lists the directory.
    ///
    /// # Errors
    /// [`OutboxError`] if the directory cannot be listed.
    pub fn len(&self) -> Result<u64, OutboxError> {
        let mut waiting = 0;
        let scanned = self.shared.directory.scan(|_| waiting += 1);
        scanned.map_err(|source| self.unreadable(source))?;
        Ok(waiting)
    }

    /// Whether no event is pending.
    ///
    /// # Errors
    /// [`OutboxError`] if the directory cannot be listed.
    pub fn is_empty(&self) -> Result<bool, OutboxError> {
        Ok(self.len()? == 0)
    }

    /// Statistics of the outbox. Lists the directory.
    ///
    /// # Errors
    /// [`OutboxError`] if the directory cannot be listed.
    pub fn stats(&self) -> Result<Stats, OutboxError> {
        let mut aside = 0;
        let scanned = self.shared.directory.scan_aside(|_| aside += 1);
        scanned.map_err(|source| self.unreadable(source))?;
        Ok(self.shared.status.snapshot(self.len()?, aside))
    }

    /// Number of events published by this process' drain. Unlike [`Outbox::stats`] it does not list the directory.
    pub fn published(&self) -> u64 {
        self.shared.status.published.load(Ordering::Relaxed)
    }

    /// A handle of the same outbox whose entries are distinguishable from those of this handle.
    pub(crate) fn as_new_writer(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            writer: Writer::random(),
        }
    }

    pub(crate) fn size_limit_bytes(&self) -> usize {
        self.shared.options.size_limit_bytes
    }

    /// Counts the events put through this handle and its clones.
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

    /// The unpublished events put through this handle and its clones.
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

    /// Puts events like [`Outbox::put_all`], and returns the ids of the stored events even in case of an error.
    pub(crate) fn put_some(&self, events: &[Event]) -> (Vec<EntryId>, Result<(), PutError>) {
        let mut ids = Vec::with_capacity(events.len());
        let put = self.put_each(events, |entry| ids.push(entry.id));
        (ids, put)
    }

    /// Puts events, and calls `stored` for each event in the outbox, even in case of an error.
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

    /// Writes all events durably to temporary files, or none.
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
    fn an_invalid_event_rejects_the_whole_call() {
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
    fn after_a_full_disk_no_files_remain_and_put_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        outbox.put(&event("before")).unwrap();
        let before = files(&outbox);
        let disk_bytes = &outbox.shared.directory.faults.disk_bytes;
        for (room, count) in [(0, 1), (10, 1), (300, 3), (1500, 50)] {
            disk_bytes.store(room, Ordering::Relaxed);
            let error = outbox.put_all(&vec![event("too much"); count]).unwrap_err();
            assert!(matches!(error, PutError::DiskFull { stored: 0, .. }), "{error:?}");
            assert_eq!(files(&outbox), before, "{room} bytes free");
        }
        disk_bytes.store(-1, Ordering::Relaxed);
        outbox.put(&event("after")).unwrap();
        assert_eq!(outbox.len().unwrap(), 2);
    }

    #[test]
    fn a_removed_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let outbox = Outbox::open(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        let error = outbox.put(&event("x")).unwrap_err();
        assert!(matches!(error, PutError::Io { stored: 0, .. }), "{error:?}");
    }
}
