//! The thread that owns the only write connection. Requests arrive through a bounded channel, and nothing cancels a
//! request that has begun: when its caller goes away, the commit still completes, and the next session finds its effect
//! at the checkpoint. The thread only writes; reads have their own connections (`reader`).
//!
//! The writer merges waiting batches into one transaction (group commit): one batch when idle, thousands of rows under
//! load. After any error in a transaction it closes and reopens the connection, because its state is then unknown; no
//! batch of that transaction was answered as stored.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::sql::{self, Connection};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::apply::{Applied, ApplyError, Isolation, apply};
use super::commit::{Commit, CommitError, Committed};
use super::database::Database;
use super::database_file::Identity;
use super::leases::Held;
use super::location::Location;
use super::queue::{Call, CommitReply, Next, Queue, WriteLane};
use super::{Health, Reader, StoreConfig, Synchronous};
use lantern_model::batch::Timestamp;

/// Rows after which a transaction ends although more batches wait. Enough to make the cost of a commit negligible, and less
/// than two full batches: a transaction that takes all batches that a source may have in flight leaves the writer idle until
/// the next batch is decoded.
const GROUP_ROWS_MAX: usize = 8_192;

/// Time after which a transaction of a rebuild takes no further batch while live batches arrive: the commit, for which a
/// live batch has to wait, takes longer the more pages have changed.
const SHARED_GROUP_TIME: Duration = Duration::from_millis(2);

/// How long after a live batch another one is expected.
const SHARED_FOR: Duration = Duration::from_millis(250);

/// How long the writer waits between attempts while another process holds the lock.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Writer {
    pub(super) location: Location,
    pub(super) config: StoreConfig,
    /// The leases without which no batch is written.
    pub(super) held: Held,
    pub(super) requests: Queue,
    pub(super) health: watch::Sender<Health>,
    /// The number of commits; it wakes the tails of tables.
    pub(super) commits: watch::Sender<u64>,
    /// The file that the writer has open.
    pub(super) open_file: watch::Sender<Option<Identity>>,
    /// How often the writer has opened another file than before.
    pub(super) replacements: watch::Sender<u64>,
    pub(super) runtime: Handle,
    /// Their connections are closed before the writer opens the file that replaced a deleted database: the new database
    /// would share the `-shm` file of the old one.
    pub(super) readers: Arc<Mutex<Vec<Reader>>>,
    pub(super) database: Option<Database>,
    pub(super) identity_lost: bool,
    pub(super) server: ServerState,
    /// When the last transaction of live batches ended.
    pub(super) live_at: Option<Instant>,
    /// When the next one begins at the earliest.
    pub(super) live_due: Option<Instant>,
}

/// What the writer knows of its PostgreSQL server while it has no session.
#[derive(Debug, Default)]
pub(super) struct ServerState {
    /// Whether the last session has ended unexpectedly.
    session_ended: bool,
    /// Whether the server had no space for the last changes. A new session does not show whether it has space again.
    disk_is_full: bool,
}

/// A batch in the open transaction, waiting for the commit.
struct Pending {
    commit: Commit,
    reply: CommitReply,
    applied: Applied,
    /// How it was applied, and has to be applied again when the transaction restarts.
    isolation: Isolation,
    /// How long the first attempt to apply it took.
    applied_in: Duration,
}

impl Writer {
    /// Serves requests until the last sender is gone.
    pub(super) fn run(mut self) {
        while let Some(next) = self.requests.next(self.live_due) {
            match next {
                Next::Batch(lane, commit, reply) => self.commit_group(lane, *commit, reply),
                Next::Call(call) => self.call(call),
            }
        }
        self.close();
    }

    /// Commits a batch and those that wait after it.
    fn commit_group(&mut self, lane: WriteLane, first: Commit, reply: CommitReply) {
        let began = Instant::now();
        if let Err(reason) = self.begin(first.durable) {
            // The send fails when the caller has gone away.
            drop(reply.send(Err(CommitError::Unavailable(reason))));
            return;
        }
        let mut group = Group {
            durable: first.durable,
            now: Timestamp::now(),
            rows: 0,
            pending: Vec::new(),
        };
        let is_shared = self.live_at.is_some_and(|at| at.elapsed() < SHARED_FOR);
        let mut batch = Some((first, reply));
        while let Some((commit, reply)) = batch.take() {
            if let Err(reason) = self.add(&mut group, commit, reply) {
                return fail(group.pending, &reason);
            }
            let yields = lane == WriteLane::Background && is_shared && began.elapsed() >= SHARED_GROUP_TIME;
            if group.rows < GROUP_ROWS_MAX && !yields {
                batch = self.requests.more(lane, group.durable);
            }
        }
        let finished = self.finish();
        if lane == WriteLane::Live {
            self.live_at = Some(Instant::now());
            self.live_due = Some(began + self.config.commit_delay);
        }
        match finished {
            Ok(()) => group.answer(began, is_shared),
            Err(reason) => fail(group.pending, &reason),
        }
    }

    /// Applies one batch to the open transaction; answers and skips a batch that continues another checkpoint. When the
    /// database rejects a row, the transaction restarts with its earlier batches, and this batch follows message by
    /// message. `Err`: the transaction is lost, and this batch has been answered.
    fn add(&mut self, group: &mut Group, mut commit: Commit, reply: CommitReply) -> Result<(), String> {
        let began = Instant::now();
        let mut isolation = Isolation::None;
        let mut applied = self.apply(&mut commit, group.now, isolation);
        if matches!(applied, Err(ApplyError::Refused)) {
            isolation = Isolation::PerMessage;
            applied = match self.restart(group) {
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
                    applied_in: began.elapsed(),
                });
                Ok(())
            }
            Err(ApplyError::Stale(found)) => {
                let expected = commit.after;
                drop(reply.send(Err(CommitError::Stale { expected, found })));
                Ok(())
            }
            Err(ApplyError::NotHeld) => {
                drop(reply.send(Err(CommitError::NotHeld)));
                Ok(())
            }
            Err(ApplyError::Sqlite(error)) if error.is_of_statement() => {
                drop(reply.send(Err(CommitError::Failed(error.to_string()))));
                // The other batches of the transaction are not the cause.
                self.restart(group)
            }
            Err(ApplyError::Sqlite(error)) => {
                let reason = self.lost(&error);
                drop(reply.send(Err(CommitError::Unavailable(reason.clone()))));
                Err(reason)
            }
            // `Isolation::PerMessage` never returns this.
            Err(ApplyError::Refused) => {
                let reason = "the database rejects rows without naming them".to_owned();
                self.close();
                self.set_unavailable(reason.clone());
                drop(reply.send(Err(CommitError::Unavailable(reason.clone()))));
                Err(reason)
            }
        }
    }

    /// Rolls the transaction back, begins another one, and applies the same batches.
    fn restart(&mut self, group: &mut Group) -> Result<(), String> {
        let Some(database) = self.database.as_ref() else {
            return Err("the database is not open".to_owned());
        };
        if let Err(error) = database.connection.execute_batch("ROLLBACK") {
            return Err(self.lost(&error));
        }
        self.begin(group.durable)?;
        for pending in &mut group.pending {
            match self.apply(&mut pending.commit, group.now, pending.isolation) {
                Ok(applied) if pending.isolation == Isolation::None => pending.applied = applied,
                // Its rejected messages are already rejections in the batch, and `applied` lists them.
                Ok(applied) => {
                    pending.applied.counts = applied.counts;
                    pending.applied.effects = applied.effects;
                    pending.applied.forgotten = applied.forgotten;
                }
                Err(ApplyError::Sqlite(error)) => return Err(self.lost(&error)),
                Err(ApplyError::Stale(_) | ApplyError::NotHeld | ApplyError::Refused) => {
                    let reason = "a batch that was applied before cannot be applied again".to_owned();
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
            Some(database) => apply(&database.connection, &self.held, commit, now, isolation),
            None => Err(ApplyError::Sqlite(sql::Error::Aborted)),
        }
    }

    /// Opens the database if necessary and begins a transaction. Retries for a while when another process holds the lock.
    fn begin(&mut self, durable: bool) -> Result<(), String> {
        let attempts = 20;
        let synchronous = if durable {
            Synchronous::Full
        } else {
            self.config.synchronous
        };
        for attempt in 1..=attempts {
            let Some(database) = self.database()? else {
                return Err("the database is not open".to_owned());
            };
            match database.begin(synchronous) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == sql::Kind::Busy && attempt < attempts => {
                    self.set_unavailable(format!("another process holds the database's lock: {error}"));
                    std::thread::sleep(BUSY_PAUSE);
                }
                Err(error) => return Err(self.lost(&error)),
            }
        }
        Err("another process holds the database's lock".to_owned())
    }

    /// Commits the transaction. It has taken effect only when this returns `Ok`: the commit succeeded, and the file is the
    /// one at the path.
    fn finish(&mut self) -> Result<(), String> {
        let Some(database) = self.database.as_mut() else {
            return Err("the database is not open".to_owned());
        };
        if let Err(error) = database.connection.execute_batch("COMMIT") {
            return Err(self.lost(&error));
        }
        if let Err(reason) = database.check_file() {
            self.identity_lost = true;
            self.close();
            self.set_unavailable(reason.clone());
            return Err(reason);
        }
        database.after_commit();
        self.server.disk_is_full = false;
        self.commits.send_modify(|count| *count += 1);
        self.set_healthy();
        Ok(())
    }

    fn call(&mut self, call: Call) {
        let (failed, has_changed) = match self.database() {
            Ok(Some(database)) => {
                let before = database.connection.changes();
                let failed = call(Ok(&mut database.connection));
                (failed, database.connection.changes() != before)
            }
            Ok(None) => (call(Err("the database is not open".to_owned())), false),
            Err(reason) => (call(Err(reason)), false),
        };
        match failed {
            Some(error) if error.is_of_statement() => {
                tracing::warn!(%error, "the database rejects a statement");
                // Its transaction may be open.
                self.close();
            }
            Some(error) => drop(self.lost(&error)),
            None if has_changed => self.changed(),
            None => self.probe(),
        }
    }

    /// Continues after a commit of a call: the log must not grow without end while no batch arrives.
    fn changed(&mut self) {
        if let Some(database) = self.database.as_mut() {
            database.after_commit();
        }
        self.commits.send_modify(|count| *count += 1);
        self.set_healthy();
    }

    /// Finds out whether an unavailable database can be written again, after a call that wrote nothing. On a host that
    /// receives no messages nothing else would find out.
    fn probe(&mut self) {
        const SQL: &str = "INSERT INTO _lantern_host (key, value) VALUES ('probed_at', ?1)
            ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        if *self.health.borrow() == Health::Healthy {
            return;
        }
        let Some(database) = self.database.as_ref() else {
            return;
        };
        match database.connection.execute(SQL, [Timestamp::now().0.to_string()]) {
            Ok(_) => self.changed(),
            Err(error) => drop(self.lost(&error)),
        }
    }

    /// The open database. Opens it if necessary.
    fn database(&mut self) -> Result<Option<&mut Database>, String> {
        if let Some(database) = &self.database {
            if let Err(reason) = database.check_file() {
                self.identity_lost = true;
                self.close();
                self.set_unavailable(reason);
            } else if database.is_over() {
                self.server.session_ended |= database.connection.has_ended();
                self.close();
            }
        }
        if self.database.is_none() {
            if self.identity_lost {
                self.release_readers();
            }
            match Database::open(&self.location, &self.config, &self.runtime) {
                Ok(opened) => self.opened(opened),
                Err(reason) => {
                    self.set_unavailable(reason.clone());
                    return Err(reason);
                }
            }
        }
        Ok(self.database.as_mut())
    }

    /// Keeps an opened database. Reports a replaced file, and that it can be written again: a host that has nothing to
    /// write would not find out. A server that was killed may have lost its last commits, so sources compare their positions
    /// then as well.
    fn opened(&mut self, database: Database) {
        self.open_file.send_replace(database.identity());
        let is_replaced = std::mem::take(&mut self.identity_lost);
        if is_replaced || std::mem::take(&mut self.server.session_ended) {
            self.replacements.send_modify(|count| *count += 1);
        }
        let is_writable = match &database.connection {
            Connection::Sqlite(connection) => {
                is_replaced && connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
            }
            Connection::Postgres(_) => !self.server.disk_is_full,
        };
        if is_writable {
            self.set_healthy();
        }
        self.database = Some(database);
    }

    /// Closes the connection after an error, which rolls back an open transaction.
    fn lost(&mut self, error: &sql::Error) -> String {
        let reason = match &self.location {
            Location::Sqlite(_) => error.to_string(),
            Location::Postgres(server) => format!("PostgreSQL at {server}: {error}"),
        };
        self.server.session_ended |= error.has_ended_session();
        self.server.disk_is_full |= error.kind() == sql::Kind::Full;
        self.close();
        self.set_unavailable(reason.clone());
        reason
    }

    fn release_readers(&self) {
        let readers = self
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for reader in readers {
            self.runtime.block_on(reader.release());
        }
    }

    fn close(&mut self) {
        // Dropping the connection rolls back an open transaction.
        if self.database.take().is_some() {
            self.open_file.send_replace(None);
        }
    }

    fn set_healthy(&self) {
        self.health.send_if_modified(|health| {
            let changed = *health != Health::Healthy;
            if changed {
                tracing::info!("the database is writable again");
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
    /// Answers each batch.
    fn answer(self, began: Instant, is_shared: bool) {
        let took = began.elapsed();
        for Pending {
            commit,
            reply,
            applied,
            applied_in,
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
                applied_in,
                is_shared,
            };
            // The send fails when the caller has gone away.
            drop(reply.send(Ok(committed)));
        }
    }
}

fn fail(pending: Vec<Pending>, reason: &str) {
    for Pending { reply, .. } in pending {
        drop(reply.send(Err(CommitError::Unavailable(reason.to_owned()))));
    }
}
