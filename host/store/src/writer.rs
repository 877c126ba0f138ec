//! The thread that owns the only write connection. Requests come in through a bounded channel, and nobody can
//! cancel what it has begun: a caller that goes away leaves a commit that still completes, and finds its effect at
//! the checkpoint.
//!
//! Batches that wait are merged into one transaction (group commit): at once when idle, thousands of rows when busy.
//! After any error in a transaction the connection is closed and opened anew, because its state is not to be
//! trusted then; nobody has been told that anything was stored.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::apply::{Applied, ApplyError, Isolation, apply};
use super::checkpointer::{Checkpointer, UNSAFE_FOR};
use super::commit::{Commit, CommitError, Committed};
use super::connection::{Database, is_busy};
use super::queue::{Next, Queue, Turn};
use super::{Config, Health, Reader, Synchronous, migrate};
use lantern_model::batch::Timestamp;

/// Rows after which a transaction ends although more batches wait. Enough that the cost of a commit does not show, and
/// less than two full batches: a transaction that takes in all that a source may have on the way leaves the writer idle
/// until the next batch is decoded.
const GROUP_ROWS_MAX: usize = 8_192;

/// Requests that may wait. Each source has at most three batches on the way, and a batch is bounded in bytes, so
/// this bounds the memory of the queue; senders wait when it is full.
pub(super) const REQUESTS_MAX: usize = 64;

/// How long the writer waits between attempts while another process holds the lock.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

pub(super) type CommitReply = oneshot::Sender<Result<Committed, CommitError>>;

/// Something else that has to happen on the write connection. It gets the connection, or why there is none, and
/// returns the error after which the connection is not to be used again.
pub(super) type Call = Box<dyn FnOnce(Result<&mut Connection, String>) -> Option<rusqlite::Error> + Send>;

pub(super) enum Request {
    Commit(Box<Commit>, CommitReply),
    Call(Call),
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) config: Config,
    pub(super) requests: Queue,
    pub(super) health: watch::Sender<Health>,
    /// Counts commits, for those who follow a table.
    pub(super) commits: watch::Sender<u64>,
    pub(super) runtime: Handle,
    /// Has to let go before a database that was deleted or replaced is opened anew: the new one would share the old
    /// one's `-shm` file.
    pub(super) reader: Arc<Mutex<Option<Reader>>>,
    pub(super) database: Option<(Database, Checkpointer)>,
    pub(super) identity_lost: bool,
}

/// A batch that is in the open transaction and waits for its end.
struct Pending {
    commit: Commit,
    reply: CommitReply,
    applied: Applied,
    /// How it got there, and has to get there again when the transaction is begun anew.
    isolation: Isolation,
}

impl Writer {
    /// Serves requests until the last sender is gone.
    pub(super) fn run(mut self) {
        while let Some(next) = self.requests.next() {
            match next {
                Next::Batch(turn, commit, reply) => self.commit_group(turn, *commit, reply),
                Next::Call(call) => self.call(call),
            }
        }
        self.close();
    }

    /// Carries out a batch and those that wait behind it.
    fn commit_group(&mut self, turn: Turn, first: Commit, reply: CommitReply) {
        let began = Instant::now();
        if let Err(reason) = self.begin(first.durable) {
            // A caller that has gone away does not need the answer.
            drop(reply.send(Err(CommitError::Unavailable(reason))));
            return;
        }
        let mut group = Group {
            durable: first.durable,
            now: Timestamp::now(),
            rows: 0,
            pending: Vec::new(),
        };
        let mut batch = Some((first, reply));
        while let Some((commit, reply)) = batch.take() {
            if let Err(reason) = self.add(&mut group, commit, reply) {
                return fail(group.pending, &reason);
            }
            if group.rows < GROUP_ROWS_MAX {
                batch = self.requests.more(turn, group.durable);
            }
        }
        match self.finish() {
            Ok(()) => group.answer(began),
            Err(reason) => fail(group.pending, &reason),
        }
    }

    /// Puts one batch into the open transaction; one whose checkpoint is another is answered and left out. When the
    /// database refuses a row, the transaction is begun anew: with what was in it, and then this batch with care.
    /// `Err`: the transaction is lost, and this batch has been answered.
    fn add(&mut self, group: &mut Group, mut commit: Commit, reply: CommitReply) -> Result<(), String> {
        let mut isolation = Isolation::None;
        let mut applied = self.apply(&mut commit, group.now, isolation);
        if matches!(applied, Err(ApplyError::Refused)) {
            isolation = Isolation::PerMessage;
            applied = match self.again(group) {
                Ok(()) => self.apply(&mut commit, group.now, isolation),
                Err(reason) => {
                    drop(reply.send(Err(CommitError::Unavailable(reason.clone()))));
                    return Err(reason);
                }
            };
        }
        match applied {
            Ok(applied) => {
                group.rows += commit.entries.len();
                group.pending.push(Pending {
                    commit,
                    reply,
                    applied,
                    isolation,
                });
                Ok(())
            }
            Err(ApplyError::Stale(found)) => {
                let expected = commit.after;
                drop(reply.send(Err(CommitError::Stale { expected, found })));
                Ok(())
            }
            Err(ApplyError::Sqlite(error)) => {
                let reason = self.lost(&error);
                drop(reply.send(Err(CommitError::Unavailable(reason.clone()))));
                Err(reason)
            }
            // With care there is no such answer.
            Err(ApplyError::Refused) => {
                let reason = "the database refuses rows without saying which".to_owned();
                self.close();
                self.set_unavailable(reason.clone());
                drop(reply.send(Err(CommitError::Unavailable(reason.clone()))));
                Err(reason)
            }
        }
    }

    /// Rolls the transaction back, begins it anew, and puts into it what was in it.
    fn again(&mut self, group: &mut Group) -> Result<(), String> {
        let Some((database, _)) = self.database.as_ref() else {
            return Err("the database is not open".to_owned());
        };
        if let Err(error) = database.connection.execute_batch("ROLLBACK") {
            return Err(self.lost(&error));
        }
        self.begin(group.durable)?;
        for pending in &mut group.pending {
            match self.apply(&mut pending.commit, group.now, pending.isolation) {
                Ok(applied) if pending.isolation == Isolation::None => pending.applied = applied,
                // Its guilty messages are rejections by now, and were counted before.
                Ok(applied) => {
                    pending.applied.counts = applied.counts;
                    pending.applied.effects = applied.effects;
                    pending.applied.forgotten = applied.forgotten;
                }
                Err(ApplyError::Sqlite(error)) => return Err(self.lost(&error)),
                Err(ApplyError::Stale(_) | ApplyError::Refused) => {
                    let reason = "a batch does not go in a second time as it did before".to_owned();
                    self.close();
                    self.set_unavailable(reason.clone());
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    fn apply(
        &self,
        commit: &mut Commit,
        now: Timestamp,
        isolation: Isolation,
    ) -> Result<Applied, ApplyError> {
        match self.database.as_ref() {
            Some((database, _)) => apply(&database.connection, commit, now, isolation),
            None => Err(ApplyError::Sqlite(rusqlite::Error::InvalidQuery)),
        }
    }

    /// Opens the database if need be and begins a transaction. While another process holds the lock it tries
    /// again, for a while.
    fn begin(&mut self, durable: bool) -> Result<(), String> {
        let attempts = 20;
        let synchronous = if durable {
            Synchronous::Full
        } else {
            self.config.synchronous
        };
        for attempt in 1..=attempts {
            let Some((database, _)) = self.database()? else {
                return Err("the database is not open".to_owned());
            };
            let begun = database
                .connection
                .execute_batch(synchronous.pragma())
                .and_then(|()| database.connection.execute_batch("BEGIN IMMEDIATE"));
            match begun {
                Ok(()) => return Ok(()),
                Err(error) if is_busy(&error) && attempt < attempts => {
                    self.set_unavailable(format!("another process holds the database's lock: {error}"));
                    std::thread::sleep(BUSY_PAUSE);
                }
                Err(error) => return Err(self.lost(&error)),
            }
        }
        Err("another process holds the database's lock".to_owned())
    }

    /// Ends the transaction. It has taken effect only when this returns `Ok`: the commit succeeded, and into the
    /// file that the path names.
    fn finish(&mut self) -> Result<(), String> {
        let Some((database, checkpointer)) = self.database.as_mut() else {
            return Err("the database is not open".to_owned());
        };
        if let Err(error) = database.connection.execute_batch("COMMIT") {
            return Err(self.lost(&error));
        }
        if let Err(reason) = database.check_identity() {
            self.identity_lost = true;
            self.close();
            self.set_unavailable(reason.clone());
            return Err(reason);
        }
        checkpointer.after_commit(&database.connection);
        self.commits.send_modify(|count| *count += 1);
        self.set_healthy();
        Ok(())
    }

    fn call(&mut self, call: Call) {
        let failed = match self.database() {
            Ok(Some((database, _))) => call(Ok(&mut database.connection)),
            Ok(None) => call(Err("the database is not open".to_owned())),
            Err(reason) => call(Err(reason)),
        };
        match failed {
            Some(error) => drop(self.lost(&error)),
            // It may have changed rows.
            None => self.commits.send_modify(|count| *count += 1),
        }
    }

    /// The open database; opens it when it is not.
    fn database(&mut self) -> Result<Option<&mut (Database, Checkpointer)>, String> {
        if let Some((database, _)) = &self.database
            && let Err(reason) = database.check_identity()
        {
            self.identity_lost = true;
            self.close();
            self.set_unavailable(reason);
        }
        if self.database.is_none() {
            if self.identity_lost {
                self.release_reader();
            }
            let opened = self
                .runtime
                .block_on(migrate(&self.path))
                .map_err(|error| error.to_string())
                .and_then(|()| Database::open(&self.path, &self.config).map_err(|error| error.to_string()))
                .and_then(|database| {
                    Checkpointer::start(&self.path, &self.config, UNSAFE_FOR)
                        .map(|checkpointer| (database, checkpointer))
                });
            match opened {
                Ok(opened) => {
                    self.identity_lost = false;
                    self.database = Some(opened);
                }
                Err(reason) => {
                    self.set_unavailable(reason.clone());
                    return Err(reason);
                }
            }
        }
        Ok(self.database.as_mut())
    }

    /// After an error in a transaction: the connection goes, and with it whatever the transaction held.
    fn lost(&mut self, error: &rusqlite::Error) -> String {
        let reason = error.to_string();
        self.close();
        self.set_unavailable(reason.clone());
        reason
    }

    fn release_reader(&self) {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(reader) = reader {
            self.runtime.block_on(reader.release());
        }
    }

    fn close(&mut self) {
        // Dropping rolls back an open transaction; the checkpointer first, so that it does not outlive the file.
        if let Some((database, checkpointer)) = self.database.take() {
            drop(checkpointer);
            drop(database);
        }
    }

    fn set_healthy(&self) {
        self.health.send_if_modified(|health| {
            let changed = *health != Health::Healthy;
            if changed {
                tracing::info!("the database can be written again");
                *health = Health::Healthy;
            }
            changed
        });
    }

    fn set_unavailable(&self, reason: String) {
        self.health.send_if_modified(|health| {
            let unavailable = Health::Unavailable(reason);
            let changed = *health != unavailable;
            if changed {
                if let Health::Unavailable(reason) = &unavailable {
                    tracing::error!(reason, "the database cannot be written");
                }
                *health = unavailable;
            }
            changed
        });
    }
}

/// The batches of one transaction.
struct Group {
    durable: bool,
    now: Timestamp,
    rows: usize,
    pending: Vec<Pending>,
}

impl Group {
    /// Tells each that it has taken effect.
    fn answer(self, began: Instant) {
        let took = began.elapsed();
        for Pending {
            commit,
            reply,
            applied,
            ..
        } in self.pending
        {
            let committed = Committed {
                counts: applied.counts,
                effects: applied.effects,
                refused: applied.refused,
                forgotten: applied.forgotten,
                spent: commit.entries,
                took,
            };
            // A caller that has gone away does not need the answer.
            drop(reply.send(Ok(committed)));
        }
    }
}

fn fail(pending: Vec<Pending>, reason: &str) {
    for Pending { reply, .. } in pending {
        drop(reply.send(Err(CommitError::Unavailable(reason.to_owned()))));
    }
}
