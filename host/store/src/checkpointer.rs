//! Moves committed pages from the write-ahead log into the database, beside the writer instead of in its way.
//!
//! Most of the work is done by a thread with a connection of its own (passive checkpoints do not wait for anyone).
//! Such a checkpoint can never finish under load, since the writer keeps appending; so once the log is long, the writer
//! itself moves the little that is left right after the thread has moved the rest, and the log starts over.
//!
//! A checkpoint is also what makes commits safe from a power cut that did not wait for the disk themselves. A host with
//! little to do would not fill the log for days, and by then a stream may have dropped what would have to be read again;
//! so there is one at least every half minute in which something was committed.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::Config;
use super::connection::Database;

/// Pages in the log after which the thread is woken: 16 MiB.
const PAGES_BACKGROUND: i32 = 4_000;
/// Pages after which the writer finishes the job: 48 MiB. Between the two the thread has time to do the bulk.
const PAGES_FINISH: i32 = 12_000;

/// Longest time for which a commit is only in the log, and may not be on the disk; unless a reader of another process holds
/// a snapshot from before it, which a checkpoint does not go past.
pub(super) const UNSAFE_FOR: Duration = Duration::from_secs(30);

thread_local! {
    /// Pages in the log after the last commit of this thread; SQLite tells them only to a plain function.
    static LOG_PAGES: Cell<i32> = const { Cell::new(0) };
}

pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    at_work: Arc<AtomicBool>,
    /// Whether something was committed since the last checkpoint began.
    fresh: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    hooked: bool,
    /// Whether the thread has been through since the log passed [`PAGES_FINISH`].
    asked: bool,
}

impl Checkpointer {
    /// Checkpoints when the log is long, and where something was committed at least once in `every`.
    pub(super) fn start(path: &Path, config: &Config, every: Duration) -> Result<Self, String> {
        let database = Database::open(path, &config.for_checkpoints()).map_err(|error| error.to_string())?;
        // One request is enough: it stands for all commits until it is answered.
        let (wake, woken) = sync_channel(1);
        let (at_work, fresh) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn({
                let (at_work, fresh) = (Arc::clone(&at_work), Arc::clone(&fresh));
                move || {
                    while wants_one(&woken, every, &fresh) {
                        if !passive(&database.connection) {
                            fresh.store(true, Ordering::Release);
                        }
                        at_work.store(false, Ordering::Release);
                    }
                }
            })
            .map_err(|error| format!("cannot start the checkpoint thread: {error}"))?;
        Ok(Self {
            wake: Some(wake),
            at_work,
            fresh,
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
        self.fresh.store(true, Ordering::Release);
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

/// Waits until there is a reason for a checkpoint. False at the end.
fn wants_one(woken: &Receiver<()>, every: Duration, fresh: &AtomicBool) -> bool {
    loop {
        let asked = match woken.recv_timeout(every) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        // What is committed from here on may come too late for this one.
        if fresh.swap(false, Ordering::AcqRel) || asked {
            return true;
        }
    }
}

/// Whether it was done. Failing is no harm: the log stays, nothing is lost, and it is tried again. A full disk is told
/// by the writer itself.
fn passive(connection: &Connection) -> bool {
    let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, i64>(2)?,
        ))
    });
    match &done {
        Ok((_, log, moved)) => tracing::trace!(log, moved, "checkpoint"),
        Err(error) => tracing::warn!(%error, "a checkpoint of the write-ahead log failed; it is tried again"),
    }
    done.is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Rows of the table in the file alone, without the log.
    fn safe_rows(path: &Path) -> i64 {
        let copy = tempfile::tempdir().unwrap();
        let copied = copy.path().join("copy.db");
        std::fs::copy(path, &copied).unwrap();
        let connection = Connection::open(copied).unwrap();
        connection
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap_or(0)
    }

    #[test]
    fn a_few_commits_are_safe_after_a_while_also_when_no_other_follows() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path());
        let path = dir.path().join(super::super::DATABASE_FILE);
        // It opens only what is there.
        drop(
            Connection::open(&path)
                .unwrap()
                .pragma_update(None, "journal_mode", "WAL"),
        );
        let writer = Database::open(&path, &config).unwrap();
        let mut checkpointer = Checkpointer::start(&path, &config, Duration::from_millis(20)).unwrap();
        let commit = |sql: &str| writer.connection.execute_batch(sql).unwrap();
        commit("CREATE TABLE t (x INTEGER) STRICT");
        for expected in 1..=3 {
            commit("INSERT INTO t VALUES (1)");
            checkpointer.after_commit(&writer.connection);
            let began = Instant::now();
            while safe_rows(&path) < expected {
                assert!(began.elapsed() < Duration::from_secs(20), "{expected}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // With nothing new there is nothing to do.
        let (wake, woken) = sync_channel::<()>(1);
        let fresh = AtomicBool::new(false);
        let waits = std::thread::scope(|scope| {
            let waiting = scope.spawn(move || wants_one(&woken, Duration::from_millis(1), &fresh));
            std::thread::sleep(Duration::from_millis(50));
            let waits = !waiting.is_finished();
            drop(wake);
            waits && !waiting.join().unwrap()
        });
        assert!(waits);
    }
}
