//! Removes the files of published events, on a thread of its own. Owns `done/` and the pace of the disk.
//!
//! Removing a file takes a disk between ten microseconds and, where every removal is passed on to the device at
//! once, a millisecond. So the drain only moves a published file to `done/`, which costs the same everywhere, and
//! the sweeper removes it from there. What it has not removed when the process ends, the next one does.

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

/// Files in `done/` at most. From there on the drain removes files itself and so goes at the pace of the disk.
const DONE_MAX: u64 = 128 * 1024;
/// Removals are made durable this often. A removal that a power cut undoes is an event published again, which the
/// broker recognises; so this is about the disk's rest and not about safety.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);
/// How long the end of a drain may be held up by files that are still to be removed.
const LAST_SWEEP: Duration = Duration::from_secs(1);

/// The thread and the way to it. Dropping it sweeps once more.
pub(crate) struct Sweeper {
    shared: Arc<Shared>,
    done: Dir,
    pending: Arc<AtomicU64>,
    wishes: Option<SyncSender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Worker {
    shared: Arc<Shared>,
    /// The outbox' own directory, from which the files were moved away.
    outbox: File,
    done: Dir,
    pending: Arc<AtomicU64>,
    /// A listing of `done/` that is not at its end.
    files: Option<ReadDir>,
}

impl Sweeper {
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let done = shared.directory.done()?;
        let pending = Arc::new(AtomicU64::new(0));
        // What an earlier process left is removed as well.
        let files = Some(done.entries()?);
        let worker = Worker {
            shared: Arc::clone(shared),
            outbox: shared.directory.sync_handle()?,
            done: done.try_clone()?,
            pending: Arc::clone(&pending),
            files,
        };
        // One place: a wish covers everything that was removed before it is taken.
        let (wishes, wished) = sync_channel(1);
        let thread = thread::Builder::new().name("lantern-outbox-sweep".to_owned());
        let thread = thread.spawn(move || worker.work(&wished))?;
        Ok(Self {
            shared: Arc::clone(shared),
            done,
            pending,
            wishes: Some(wishes),
            thread: Some(thread),
        })
    }

    /// Takes the file of a published event out of the outbox. When this returns `Ok`, no drain will see it.
    pub(crate) fn remove(&self, entry: Entry) -> io::Result<()> {
        let directory = &self.shared.directory;
        let moved =
            self.pending.load(Ordering::Relaxed) < DONE_MAX && directory.retire(entry, &self.done).is_ok();
        if moved {
            self.pending.fetch_add(1, Ordering::Relaxed);
        } else {
            // Also for a disk so full that `done/` cannot grow: this makes room, and moving does not.
            directory.remove(entry)?;
        }
        if let Some(wishes) = &self.wishes {
            // Full means that one is already wished for.
            let _ = wishes.try_send(());
        }
        Ok(())
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.wishes.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there was printed there.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn work(mut self, wished: &Receiver<()>) {
        loop {
            let wish = match self.files {
                Some(_) => wished.recv_timeout(Duration::ZERO),
                None => wished.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match wish {
                Ok(()) => self.check("sync", |worker| worker.sync()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let until = Instant::now() + SYNC_INTERVAL;
            self.check("clean up", |worker| worker.sweep(until));
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        self.check("sync", |worker| worker.sync());
        self.check("clean up", |worker| worker.sweep(Instant::now() + LAST_SWEEP));
    }

    /// Makes what left the outbox durable, and sees to it that it is swept.
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

    /// Removes what is in `done/` until it is empty or the time is over.
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

    fn check(&mut self, step: &str, work: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = work(self) {
            // The next wish tries again.
            self.files = None;
            let message = format!("cannot {step} after publishing: {error}");
            tracing::warn!(outbox = %self.shared.directory.path().display(), "{message}");
            self.shared.status.error(message);
        }
    }
}
