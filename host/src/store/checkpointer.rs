//! Moves committed pages from the write-ahead log into the database, beside the writer instead of in its way.
//!
//! Most of the work is done by a thread with a connection of its own (passive checkpoints do not wait for anyone).
//! Such a checkpoint can never finish under load, since the writer keeps appending; so once the log is long, the writer
//! itself moves the little that is left right after the thread has moved the rest, and the log starts over.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::Config;
use super::connection::Database;

/// Pages in the log after which the thread is woken: 16 MiB.
const PAGES_BACKGROUND: i32 = 4_000;
/// Pages after which the writer finishes the job: 48 MiB. Between the two the thread has time to do the bulk.
const PAGES_FINISH: i32 = 12_000;

thread_local! {
    /// Pages in the log after the last commit of this thread; SQLite tells them only to a plain function.
    static LOG_PAGES: Cell<i32> = const { Cell::new(0) };
}

pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    at_work: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    hooked: bool,
    /// Whether the thread has been through since the log passed [`PAGES_FINISH`].
    asked: bool,
}

impl Checkpointer {
    pub(super) fn start(path: &Path, config: &Config) -> Result<Self, String> {
        let database = Database::open(path, &config.for_checkpoints()).map_err(|error| error.to_string())?;
        // One request is enough: it stands for all commits until it is answered.
        let (wake, woken) = sync_channel(1);
        let at_work = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn({
                let at_work = Arc::clone(&at_work);
                move || work(&database.connection, &woken, &at_work)
            })
            .map_err(|error| format!("cannot start the checkpoint thread: {error}"))?;
        Ok(Self {
            wake: Some(wake),
            at_work,
            thread: Some(thread),
            hooked: false,
            asked: false,
        })
    }

    /// Called by the writer's thread after each commit.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        if !self.hooked {
            connection.wal_hook(Some(|_, pages| {
                LOG_PAGES.set(pages);
                Ok(())
            }));
            self.hooked = true;
        }
        let pages = LOG_PAGES.get();
        if pages < PAGES_BACKGROUND {
            self.asked = false;
            return;
        }
        if self.at_work.load(Ordering::Acquire) {
            return;
        }
        if pages >= PAGES_FINISH && self.asked {
            self.asked = false;
            passive(connection);
            return;
        }
        if let Some(wake) = &self.wake {
            self.at_work.store(true, Ordering::Release);
            self.asked = true;
            if wake.try_send(()).is_err() {
                self.at_work.store(false, Ordering::Release);
            }
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

fn work(connection: &Connection, woken: &Receiver<()>, at_work: &AtomicBool) {
    while woken.recv().is_ok() {
        passive(connection);
        at_work.store(false, Ordering::Release);
    }
}

/// Failing is no harm: the log stays, nothing is lost, and the next commit asks again. A full disk is told by the
/// writer itself.
fn passive(connection: &Connection) {
    let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, i64>(2)?,
        ))
    });
    match done {
        Ok((_, log, moved)) => tracing::trace!(log, moved, "checkpoint"),
        Err(error) => tracing::warn!(%error, "a checkpoint of the write-ahead log failed; it is tried again"),
    }
}
