//! The read connections: a small pool, one blocking thread for each read in progress, and the interrupt that ends a read
//! at its deadline or when its caller is gone. It does not know what the statements mean.
//!
//! A read is one of two kinds: a statement whose rows are streamed to the caller (`query`), or a function that runs
//! several statements on one snapshot (`snapshot`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::location::Location;
use crate::sql::{self, Connection, Error, Kind};
use rusqlite::types::{FromSql, Value, ValueRef};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::interrupt::{Interrupt, Limit};
use super::{search_function, text};
use crate::connection::open_read_only;
use crate::values::Stored;

/// Statements that a connection keeps prepared.
const STATEMENTS_KEPT: usize = 16;
/// How long a read waits for a lock of another process.
const BUSY_TIME: Duration = Duration::from_millis(500);
/// A connection that was not used for this long is closed: an idle host keeps no page caches for a closed dashboard.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// SQLite checks the interrupt after this many virtual machine steps: tens of microseconds.
const STEPS: i32 = 1_000;
/// Rows are sent in chunks that end at either limit. Up to three chunks of a read are in memory.
const CHUNK_ROWS: usize = 64;
const CHUNK_BYTES: usize = 64 << 10;

/// Why a read failed.
pub(super) enum QueryError {
    /// No connection became free in time.
    Busy,
    /// The read was interrupted, or SQLite returned an error.
    Sql(sql::Error),
}

/// A statement with its parameters and limits.
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) arguments: Vec<Value>,
    /// The read ends after this many rows.
    pub(super) rows_max: usize,
    /// The read is interrupted after this long; the wait for a connection does not count.
    pub(super) time: Duration,
}

/// The pool. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    location: Location,
    /// One permit for each connection that may be in use.
    permits: Arc<Semaphore>,
    size: u32,
    /// How long the server lets a statement run.
    statement_time: Option<Duration>,
    /// How long a read waits for a connection.
    wait: Duration,
    idle: Mutex<Vec<Idle>>,
    /// Whether a task closes idle connections; there is at most one.
    reaping: AtomicBool,
    /// Set while the pool is released; it interrupts snapshots, which have no deadline.
    releasing: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Idle {
    connection: ReadConnection,
    since: Instant,
}

/// A connection with its interrupt.
#[derive(Debug)]
struct ReadConnection {
    connection: Connection,
    interrupt: Arc<Interrupt>,
}

impl Connections {
    pub(super) fn new(
        location: &Location,
        size: u32,
        wait: Duration,
        statement_time: Option<Duration>,
    ) -> Self {
        Self(Arc::new(Shared {
            location: location.clone(),
            permits: Arc::new(Semaphore::new(size as usize)),
            size,
            statement_time,
            wait,
            idle: Mutex::default(),
            reaping: AtomicBool::new(false),
            releasing: Arc::default(),
        }))
    }

    /// Begins a read. Dropping the result interrupts it and frees its connection.
    pub(super) async fn query(&self, query: Query) -> Result<Rows, QueryError> {
        let mut lease = self.lease().await?;
        let (sender, receiver) = mpsc::channel(1);
        let caller = Caller::default();
        let limit = Limit {
            deadline: Some(Instant::now() + query.time),
            is_gone: caller.is_gone(),
        };
        let job = tokio::task::spawn_blocking(move || {
            lease.run(limit, |connection| read(connection, query, &sender), is_sound)
        });
        Ok(Rows {
            receiver,
            chunk: Vec::new().into_iter(),
            job: Some(job),
            _caller: caller,
        })
    }

    /// Runs a function in one read transaction, so that all its statements see the same state of the database. Dropping
    /// the future interrupts it, and so does the end of its time; without a limit, releasing or closing the pool.
    pub(super) async fn snapshot<T, E>(
        &self,
        time: Option<Duration>,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<T, E>, QueryError>
    where
        T: Send + 'static,
        E: From<sql::Error> + Send + 'static,
    {
        let mut lease = self.lease().await?;
        let (reply, answer) = oneshot::channel();
        let caller = Caller::default();
        let limit = Limit {
            deadline: time.map(|time| Instant::now() + time),
            is_gone: caller.is_gone(),
        };
        tokio::task::spawn_blocking(move || {
            // The transaction ends before the connection returns to the pool. An error of `work` says nothing about the
            // connection, so an interrupted or failed snapshot closes it.
            let in_transaction = |connection: &Connection| -> Result<T, E> {
                connection.begin_snapshot()?;
                let value = work(connection)?;
                connection.end_snapshot()?;
                Ok(value)
            };
            // A send fails when the caller has gone away.
            drop(reply.send(lease.run(limit, in_transaction, Result::is_ok)));
        });
        // Without an answer the function panicked, or the runtime is stopping.
        answer.await.map_err(|_| QueryError::Sql(sql::Error::Aborted))
    }

    async fn lease(&self) -> Result<Lease, QueryError> {
        let permit = Arc::clone(&self.0.permits).acquire_owned();
        match tokio::time::timeout(self.0.wait, permit).await {
            Ok(Ok(permit)) => Ok(Lease {
                shared: Arc::clone(&self.0),
                connection: None,
                _permit: permit,
            }),
            // Too many readers, or the host is stopping.
            Ok(Err(_)) | Err(_) => Err(QueryError::Busy),
        }
    }

    /// Closes all connections, after the reads in progress. Later reads fail.
    pub(super) async fn close(&self) {
        self.release().await;
        self.0.permits.close();
        self.0.idle().clear();
    }

    /// Closes all connections, after the queries in progress; interrupts snapshots. Later reads open new connections.
    pub(super) async fn release(&self) {
        self.0.releasing.store(true, Ordering::Relaxed);
        // An error means that the pool was closed before.
        let all = self.0.permits.acquire_many(self.0.size).await;
        self.0.idle().clear();
        self.0.releasing.store(false, Ordering::Relaxed);
        drop(all);
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection; those of a server that have ended are dropped.
    fn take_idle(&self) -> Option<ReadConnection> {
        let mut idle = self.idle();
        idle.retain(|idle| !idle.connection.connection.is_over());
        idle.pop().map(|idle| idle.connection)
    }

    /// Returns a connection to the pool, and starts the task that closes idle connections unless it runs.
    fn keep(self: &Arc<Self>, connection: ReadConnection) {
        self.idle().push(Idle {
            connection,
            since: Instant::now(),
        });
        if let Ok(runtime) = Handle::try_current()
            && !self.reaping.swap(true, Ordering::AcqRel)
        {
            runtime.spawn(reap(Arc::downgrade(self)));
        }
    }
}

/// Closes connections that are idle for too long, until there are none.
async fn reap(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE_TIME).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut idle = shared.idle();
        idle.retain(|idle| idle.since.elapsed() < IDLE_TIME);
        if idle.is_empty() {
            shared.reaping.store(false, Ordering::Release);
            return;
        }
    }
}

/// The right to use one connection.
struct Lease {
    shared: Arc<Shared>,
    /// None before the first use, and after an error that leaves the state of the connection unknown.
    connection: Option<ReadConnection>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Runs `work` under `limit` on an idle or a new connection. The connection returns to the pool only if `can_reuse`
    /// accepts the result; a connection whose read failed or panicked is closed.
    fn run<T, E: From<sql::Error>>(
        &mut self,
        limit: Limit,
        work: impl FnOnce(&Connection) -> Result<T, E>,
        can_reuse: impl FnOnce(&Result<T, E>) -> bool,
    ) -> Result<T, E> {
        let connection = match self.shared.take_idle() {
            Some(connection) => connection,
            None => ReadConnection::open(&self.shared)?,
        };
        connection.interrupt.set(Some(limit));
        let result = work(&connection.connection);
        connection.interrupt.set(None);
        if can_reuse(&result) {
            self.connection = Some(connection);
        }
        result
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.keep(connection);
        }
    }
}

impl ReadConnection {
    fn open(shared: &Shared) -> Result<Self, sql::Error> {
        let interrupt = Arc::new(Interrupt::new(Arc::clone(&shared.releasing)));
        let connection = match &shared.location {
            Location::Sqlite(path) => open_file(path, &interrupt)?.into(),
            Location::Postgres(server) => {
                let mut session = server.open_reader(shared.statement_time)?;
                let interrupt = Arc::clone(&interrupt);
                session.interrupt_when(Arc::new(move || interrupt.is_due()));
                Connection::Postgres(session)
            }
        };
        Ok(Self {
            connection,
            interrupt,
        })
    }
}

/// Opens a database file for reading.
fn open_file(path: &Path, interrupt: &Arc<Interrupt>) -> Result<rusqlite::Connection, sql::Error> {
    let connection = open_read_only(path, BUSY_TIME)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "query_only", "ON")?;
    // A file that shrinks while it is mapped kills the process.
    connection.pragma_update(None, "mmap_size", 0)?;
    // A negative number means KiB.
    connection.pragma_update(None, "cache_size", -1024)?;
    // Sorts spill to a file, because rows with large values would fill the memory.
    connection.pragma_update(None, "temp_store", "FILE")?;
    text::register(&connection, Arc::clone(interrupt))?;
    search_function::register(&connection, Arc::clone(interrupt))?;
    let handler = Arc::clone(interrupt);
    connection.progress_handler(STEPS, Some(move || handler.is_due()))?;
    Ok(connection)
}

/// An interrupted query leaves its connection usable; any other error does not.
fn is_sound(result: &Result<(), sql::Error>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => matches!(error, Error::Sqlite(_)) && error.kind() == Kind::Interrupted,
    }
}

fn read(connection: &Connection, query: Query, sender: &mpsc::Sender<Vec<Row>>) -> Result<(), sql::Error> {
    let mut statement = connection.prepare_cached(&query.sql)?;
    let columns = statement.column_count();
    let mut found = statement.query(sql::from_iter(query.arguments))?;
    let (mut chunk, mut bytes, mut rows) = (Vec::new(), 0, 0);
    while let Some(row) = found.next()? {
        let row = Row::read(&row, columns)?;
        bytes += row.bytes();
        chunk.push(row);
        rows += 1;
        if rows >= query.rows_max {
            break;
        }
        if chunk.len() >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
            bytes = 0;
            if sender.blocking_send(std::mem::take(&mut chunk)).is_err() {
                // The caller has read enough.
                return Ok(());
            }
        }
    }
    if !chunk.is_empty() {
        // An error means that the caller is gone.
        drop(sender.blocking_send(chunk));
    }
    Ok(())
}

/// The waiting caller of a read. Dropping it interrupts the read and frees its connection.
#[derive(Debug, Default)]
pub(super) struct Caller(Arc<AtomicBool>);

impl Caller {
    /// Becomes true when the caller is dropped.
    pub(super) fn is_gone(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The rows of a read, as they arrive.
pub(super) struct Rows {
    receiver: mpsc::Receiver<Vec<Row>>,
    chunk: std::vec::IntoIter<Row>,
    job: Option<JoinHandle<Result<(), sql::Error>>>,
    _caller: Caller,
}

impl Rows {
    /// The next row; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Row>, QueryError> {
        loop {
            if let Some(row) = self.chunk.next() {
                return Ok(Some(row));
            }
            match self.receiver.recv().await {
                Some(chunk) => self.chunk = chunk.into_iter(),
                None => break,
            }
        }
        let Some(job) = self.job.take() else {
            return Ok(None);
        };
        match job.await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) => Err(QueryError::Sql(error)),
            // The thread panicked, or the runtime is stopping.
            Err(_) => Err(QueryError::Sql(sql::Error::Aborted)),
        }
    }
}

/// One row of an answer.
#[derive(Debug)]
pub(super) struct Row(Vec<Stored>);

impl Row {
    pub(super) fn read(row: &sql::Row<'_>, columns: usize) -> Result<Self, sql::Error> {
        (0..columns)
            .map(|index| row.get_ref(index).map(Stored::of))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn bytes(&self) -> usize {
        let size = |stored: &Stored| match stored {
            Stored::Text(bytes) | Stored::Blob(bytes) => bytes.len(),
            _ => 8,
        };
        self.0.iter().map(size).sum()
    }

    /// The value of a column, as it is stored.
    pub(super) fn value(&self, index: usize) -> Result<ValueRef<'_>, sql::Error> {
        let stored = self
            .0
            .get(index)
            .ok_or(sql::Error::Sqlite(rusqlite::Error::InvalidColumnIndex(index)))?;
        Ok(stored.as_ref())
    }

    /// Moves a value out of the row, which has null instead then.
    pub(super) fn take(&mut self, index: usize) -> Result<Stored, sql::Error> {
        let stored = self.0.get_mut(index);
        stored
            .map(std::mem::take)
            .ok_or(sql::Error::Sqlite(rusqlite::Error::InvalidColumnIndex(index)))
    }

    /// The value of a column, converted to the expected type.
    pub(super) fn get<T: FromSql>(&self, index: usize) -> Result<T, sql::Error> {
        let value = self.value(index)?;
        T::column_result(value).map_err(|error| sql::Error::decode(index, error))
    }
}
