//! Removes the files of published events on a separate thread. Owns `done/`.
//!
//! Removing a file takes between ten microseconds and a millisecond, depending on whether the file system discards blocks
//! immediately. So the drain only moves a published file to `done/`, which is equally fast everywhere, and the sweeper removes
//! it from there. The next process removes the files that remain when a process ends.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, ReadDir};

use crate::entry::Entry;
use crate::outbox::Shared;

/// Maximum number of files in `done/`. Beyond it the drain removes files itself, and so slows down to the speed of the disk.
const DONE_MAX: u64 = 128 * 1024;
/// Interval of syncing removals. If a power failure undoes a removal, the event is published again and the broker detects the
/// duplicate, so this interval only limits the load of the disk.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);
/// Time limit for removing files when a drain ends.
const FINAL_SWEEP: Duration = Duration::from_secs(1);

/// Handle of the sweeper thread. Dropping it runs a final sweep.
pub(crate) struct Sweeper {
    shared: Arc<Shared>,
    done: Dir,
    pending: Arc<AtomicU64>,
    requests: Option<SyncSender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Worker {
    shared: Arc<Shared>,
    /// The directory of the outbox, from which files are moved.
    outbox: File,
    done: Dir,
    pending: Arc<AtomicU64>,
    /// An unfinished listing of `done/`.
    files: Option<ReadDir>,
}

impl Sweeper {
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let done = shared.directory.done()?;
        let pending = Arc::new(AtomicU64::new(0));
        // Includes files left by an earlier process.
        let files = Some(done.entries()?);
        let worker = Worker {
            shared: Arc::clone(shared),
            outbox: shared.directory.sync_handle()?,
            done: done.try_clone()?,
            pending: Arc::clone(&pending),
            files,
        };
        // Capacity one: a request covers everything moved before it is received.
        let (requests, requested) = sync_channel(1);
        let thread = thread::Builder::new().name("lantern-outbox-sweep".to_owned());
        let thread = thread.spawn(move || worker.run(&requested))?;
        Ok(Self {
            shared: Arc::clone(shared),
            done,
            pending,
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Removes the file of a published event from the outbox. After `Ok`, no drain processes it.
    pub(crate) fn remove(&self, entry: Entry) -> io::Result<()> {
        let directory = &self.shared.directory;
        let moved =
            self.pending.load(Ordering::Relaxed) < DONE_MAX && directory.retire(entry, &self.done).is_ok();
        if moved {
            self.pending.fetch_add(1, Ordering::Relaxed);
        } else {
            // Also if the disk is so full that `done/` cannot grow: removing frees space, moving does not.
            directory.remove(entry)?;
        }
        if let Some(requests) = &self.requests {
            // A full channel already has a request.
            let _ = requests.try_send(());
        }
        Ok(())
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // The thread has printed its panic.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn run(mut self, requested: &Receiver<()>) {
        loop {
            let request = match self.files {
                Some(_) => requested.recv_timeout(Duration::ZERO),
                None => requested.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match request {
                Ok(()) => self.report_failure("sync", |worker| worker.sync()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let until = Instant::now() + SYNC_INTERVAL;
            self.report_failure("clean up", |worker| worker.sweep(until));
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        self.report_failure("sync", |worker| worker.sync());
        self.report_failure("clean up", |worker| worker.sweep(Instant::now() + FINAL_SWEEP));
    }

    /// Makes removals from the outbox durable, and starts a listing of `done/`.
    fn sync(&mut self) -> io::Result<()> {
        if self.files.is_none() {
            self.files = Some(self.done.entries()?);
        }
        if cfg!(unix) {
            self.outbox.sync_all()
        } else {
            Ok(())
        }
    }

    /// Removes files from `done/` until it is empty or the time limit is reached.
    fn sweep(&mut self, until: Instant) -> io::Result<()> {
        while let Some(files) = &mut self.files {
            if Instant::now() >= until {
                return Ok(());
            }
            match files.next() {
                Some(file) => {
                    file?.remove_file()?;
                    let _ = self
                        .pending
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                }
                None => self.files = None,
            }
        }
        Ok(())
    }

    fn report_failure(&mut self, step: &str, work: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = work(self) {
            // The next request retries.
            self.files = None;
            let message = format!("cannot {step} after publishing: {error}");
            tracing::warn!(outbox = %self.shared.directory.path().display(), "{message}");
            self.shared.status.set_error(message);
        }
    }
}
