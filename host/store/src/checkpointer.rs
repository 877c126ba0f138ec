//! Copies committed pages from the write-ahead log into the database without delaying the writer.
//!
//! A thread with its own connection does most of the work (passive checkpoints wait for nothing). Under load such a
//! checkpoint never finishes, because the writer keeps appending. Once the log is long, the thread repeats it until one
//! has copied only few pages; right after that the writer itself copies the small remainder, and the log restarts.
//!
//! A checkpoint also makes commits durable that did not sync themselves. A host with little load would not fill the log
//! for days, and by then a stream may have dropped the messages that would have to be read again; so a checkpoint runs
//! at least every half minute in which something was committed.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::StoreConfig;
use super::connection::open_file;
use super::sql;

/// Size of the log at which a checkpoint begins. A page that changes often is copied once for each checkpoint, so rare
/// checkpoints write less.
const LOG_BYTES: u32 = 32 << 20;
/// Growth of the log after which another checkpoint begins if the log could not restart, because a reader used it.
const LOG_BYTES_MORE: u32 = 4 << 20;
/// Bytes that the writer may have to copy and sync to finish a checkpoint: about a millisecond.
const BYTES_LEFT: u32 = 1 << 20;
/// Checkpoints of the thread in a row. Each copies what was appended during the one before, so a few are enough unless
/// the writer appends as fast as the disk writes.
const PASSES_MAX: u32 = 6;

/// Longest time for which a commit may be only in the log and not on disk; unless a reader of another process holds an
/// older snapshot, which limits every checkpoint.
pub(super) const UNSAFE_FOR: Duration = Duration::from_secs(30);

thread_local! {
    /// Pages in the log after the last commit of this thread; SQLite reports them only to a plain function.
    static LOG_PAGES: Cell<i32> = const { Cell::new(0) };
}

pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    at_work: Arc<AtomicBool>,
    /// Whether something was committed since the last checkpoint began.
    fresh: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    hooked: bool,
    pacing: Pacing,
}

/// Decides when a checkpoint begins.
#[derive(Debug)]
struct Pacing {
    page_bytes: u32,
    /// Pages in the log at which the next one begins.
    next: i32,
    /// Whether the thread was woken, and the writer has not finished its work yet.
    is_begun: bool,
}

/// What the writer does after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// It wakes the thread.
    Begin,
    /// It copies the remainder itself.
    Finish,
}

impl Pacing {
    fn new(page_bytes: u32) -> Self {
        Self {
            page_bytes,
            next: pages(LOG_BYTES, page_bytes),
            is_begun: false,
        }
    }

    /// `length` is the length of the log in pages. `is_at_work`: whether the thread runs a checkpoint.
    fn step(&mut self, length: i32, is_at_work: bool) -> Step {
        if length < pages(LOG_BYTES, self.page_bytes) {
            *self = Self::new(self.page_bytes);
        }
        if length < self.next || is_at_work {
            return Step::Nothing;
        }
        if self.is_begun {
            self.is_begun = false;
            self.next = length + pages(LOG_BYTES_MORE, self.page_bytes);
            return Step::Finish;
        }
        self.is_begun = true;
        Step::Begin
    }
}

/// The number of pages of this size.
fn pages(bytes: u32, page_bytes: u32) -> i32 {
    i32::try_from(bytes / page_bytes.max(1)).unwrap_or(i32::MAX)
}

impl Checkpointer {
    /// Runs a checkpoint when the log is long, and at least every `every` if something was committed.
    pub(super) fn start(path: &Path, config: &StoreConfig, every: Duration) -> Result<Self, sql::Error> {
        let connection = open_file(path, &config.for_checkpoints())?;
        let page_bytes = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        // One request is enough: it stands for all commits until the thread serves it.
        let (wake, woken) = sync_channel(1);
        let (at_work, fresh) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn({
                let (at_work, fresh) = (Arc::clone(&at_work), Arc::clone(&fresh));
                move || {
                    while wants_one(&woken, every, &fresh) {
                        if !repeated(&connection, page_bytes) {
                            fresh.store(true, Ordering::Release);
                        }
                        at_work.store(false, Ordering::Release);
                    }
                }
            })
            .map_err(sql::Error::encode)?;
        Ok(Self {
            wake: Some(wake),
            at_work,
            fresh,
            thread: Some(thread),
            hooked: false,
            pacing: Pacing::new(page_bytes),
        })
    }

    /// The writer's thread calls this after each commit.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        if !self.hooked {
            connection.wal_hook(Some(|_, pages| {
                LOG_PAGES.set(pages);
                Ok(())
            }));
            self.hooked = true;
        }
        self.fresh.store(true, Ordering::Release);
        match self
            .pacing
            .step(LOG_PAGES.get(), self.at_work.load(Ordering::Acquire))
        {
            Step::Nothing => {}
            Step::Finish => {
                passive(connection);
            }
            Step::Begin => {
                if let Some(wake) = &self.wake {
                    self.at_work.store(true, Ordering::Release);
                    if wake.try_send(()).is_err() {
                        self.at_work.store(false, Ordering::Release);
                    }
                }
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

/// Waits until a checkpoint is due. Returns false at the end.
fn wants_one(woken: &Receiver<()>, every: Duration, fresh: &AtomicBool) -> bool {
    loop {
        let asked = match woken.recv_timeout(every) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        // This checkpoint may miss commits from here on.
        if fresh.swap(false, Ordering::AcqRel) || asked {
            return true;
        }
    }
}

/// Runs checkpoints until little is left in the log. Returns whether all succeeded.
fn repeated(connection: &Connection, page_bytes: u32) -> bool {
    let mut moved = 0;
    for _ in 0..PASSES_MAX {
        let Some(done) = passive(connection) else {
            return false;
        };
        // A log that has restarted counts from the beginning.
        if (done.moved - moved).abs() <= i64::from(pages(BYTES_LEFT, page_bytes)) {
            break;
        }
        moved = done.moved;
    }
    true
}

/// The state of the log after a checkpoint, in pages.
struct Checkpointed {
    moved: i64,
}

/// `None` if the checkpoint failed. A failure does no harm: the log remains, nothing is lost, and the thread retries. The
/// writer reports a full disk.
fn passive(connection: &Connection) -> Option<Checkpointed> {
    let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, i64>(2)?,
        ))
    });
    match &done {
        Ok((_, log, moved)) => tracing::trace!(log, moved, "checkpoint"),
        Err(error) => tracing::warn!(%error, "failed to checkpoint the write-ahead log; will retry"),
    }
    let (_, _, moved) = done.ok()?;
    Some(Checkpointed { moved })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Rows of the table in the database file alone, without the log.
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
    fn a_long_log_is_copied_once_and_finished_by_the_writer() {
        for page_bytes in [1_024, 4_096] {
            check_pacing(page_bytes);
        }
    }

    fn check_pacing(page_bytes: u32) {
        let (most, more) = (pages(LOG_BYTES, page_bytes), pages(LOG_BYTES_MORE, page_bytes));
        let mut pacing = Pacing::new(page_bytes);
        let mut steps = |pages: &[(i32, bool)]| {
            let each = pages
                .iter()
                .map(|(pages, is_at_work)| pacing.step(*pages, *is_at_work));
            each.filter(|step| *step != Step::Nothing).collect::<Vec<_>>()
        };
        assert_eq!(steps(&[(1, false), (most - 1, false)]), []);
        // The thread works while the writer commits.
        let busy: Vec<_> = (0..500).map(|page| (most + 1 + page, true)).collect();
        assert_eq!(steps(&[(most, false)]), [Step::Begin]);
        assert_eq!(steps(&busy), []);
        assert_eq!(steps(&[(most + 600, false)]), [Step::Finish]);
        // The log has restarted.
        assert_eq!(steps(&[(5, false), (9, false)]), []);
        // A reader keeps it from restarting: a bounded number of checkpoints.
        let grows: Vec<_> = (0..10 * more).map(|page| (most + page, false)).collect();
        let taken = steps(&grows);
        assert_eq!(taken.iter().filter(|step| **step == Step::Begin).count(), 10);
        assert_eq!(taken.iter().filter(|step| **step == Step::Finish).count(), 10);
    }

    #[test]
    fn a_few_commits_become_durable_after_a_while_without_a_further_commit() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path());
        let path = dir.path().join(super::super::DATABASE_FILE);
        // The checkpointer opens only an existing file.
        drop(
            Connection::open(&path)
                .unwrap()
                .pragma_update(None, "journal_mode", "WAL"),
        );
        let writer = open_file(&path, &config).unwrap();
        let mut checkpointer = Checkpointer::start(&path, &config, Duration::from_millis(20)).unwrap();
        let commit = |sql: &str| writer.execute_batch(sql).unwrap();
        commit("CREATE TABLE t (x INTEGER) STRICT");
        for expected in 1..=3 {
            commit("INSERT INTO t VALUES (1)");
            checkpointer.after_commit(&writer);
            let began = Instant::now();
            while safe_rows(&path) < expected {
                assert!(began.elapsed() < Duration::from_secs(20), "{expected}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // Without new commits there is nothing to do.
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
