//! The read connections: a small pool, one blocking thread for each read in progress, and the interrupt that ends a read
//! at its deadline or when its caller is gone. Knows nothing of what is read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rusqlite::types::{FromSql, FromSqlError, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::text;

/// Statements that a connection keeps prepared.
const STATEMENTS_KEPT: usize = 16;
/// How long a read waits for a lock of another process.
const BUSY_TIME: Duration = Duration::from_millis(500);
/// A connection that was not used for this long is closed: an idle host keeps no page caches for a closed dashboard.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// SQLite looks at the interrupt after so many steps of its machine: tens of microseconds.
const STEPS: i32 = 1_000;
/// Rows are handed over in chunks, which end at either limit. Up to three chunks of a read are in memory.
const CHUNK_ROWS: usize = 64;
const CHUNK_BYTES: usize = 64 << 10;

/// Why a read failed.
pub(super) enum QueryError {
    /// No connection became free in time.
    Busy,
    /// The read was interrupted, or SQLite refused it.
    Sql(rusqlite::Error),
}

/// A statement with its parameters and limits.
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) arguments: Vec<Value>,
    /// The read ends after so many rows.
    pub(super) rows_max: usize,
    /// The read is interrupted after this long; the wait for a connection does not count.
    pub(super) time: Duration,
}

/// The pool. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// One permit for each connection that may be in use.
    permits: Arc<Semaphore>,
    size: u32,
    /// How long a read waits for a connection.
    wait: Duration,
    idle: Mutex<Vec<Idle>>,
    /// Whether a task closes idle connections; there is at most one.
    reaping: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    connection: ReadConnection,
    since: Instant,
}

/// A connection with what interrupts it.
#[derive(Debug)]
struct ReadConnection {
    connection: Connection,
    interrupt: Arc<Interrupt>,
}

impl Connections {
    pub(super) fn new(path: &Path, size: u32, wait: Duration) -> Self {
        Self(Arc::new(Shared {
            path: path.to_owned(),
            permits: Arc::new(Semaphore::new(size as usize)),
            size,
            wait,
            idle: Mutex::default(),
            reaping: AtomicBool::new(false),
        }))
    }

    /// Begins a read. Dropping the result interrupts it and frees its connection.
    pub(super) async fn query(&self, query: Query) -> Result<Rows, QueryError> {
        let permit = Arc::clone(&self.0.permits).acquire_owned();
        let permit = match tokio::time::timeout(self.0.wait, permit).await {
            Ok(Ok(permit)) => permit,
            // Too many readers, or the host is stopping.
            Ok(Err(_)) | Err(_) => return Err(QueryError::Busy),
        };
        let mut lease = Lease {
            shared: Arc::clone(&self.0),
            connection: None,
            _permit: permit,
        };
        let (sender, receiver) = mpsc::channel(1);
        let deadline = Instant::now() + query.time;
        let job = tokio::task::spawn_blocking(move || lease.run(query, deadline, sender));
        Ok(Rows {
            receiver,
            chunk: Vec::new().into_iter(),
            job: Some(job),
        })
    }

    /// Closes all connections, after the reads in progress. Later reads fail.
    pub(super) async fn close(&self) {
        self.release().await;
        self.0.permits.close();
        self.0.idle().clear();
    }

    /// Closes all connections, after the reads in progress. Later reads open new ones.
    pub(super) async fn release(&self) {
        // An error means that the pool was closed before.
        let all = self.0.permits.acquire_many(self.0.size).await;
        self.0.idle().clear();
        drop(all);
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection for the next read, and sees to it that it is closed when there is none.
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
    /// None before the first use, and after an error that leaves the connection in doubt.
    connection: Option<ReadConnection>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    fn run(
        &mut self,
        query: Query,
        deadline: Instant,
        sender: mpsc::Sender<Vec<Row>>,
    ) -> Result<(), rusqlite::Error> {
        let idle = self.shared.idle().pop();
        let connection = match idle {
            Some(idle) => idle.connection,
            None => ReadConnection::open(&self.shared.path)?,
        };
        connection.interrupt.set(Some(Limit {
            deadline,
            caller: sender.clone(),
        }));
        let result = read(&connection.connection, query, &sender);
        connection.interrupt.set(None);
        let is_sound = match &result {
            Ok(()) => true,
            Err(error) => error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted),
        };
        // Kept only here, so that a connection whose read failed or panicked is closed.
        if is_sound {
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
    fn open(path: &Path) -> Result<Self, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIME)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        connection.pragma_update(None, "query_only", "ON")?;
        // A file that shrinks under a mapping kills the process.
        connection.pragma_update(None, "mmap_size", 0)?;
        // KiB, as SQLite wants it: negative.
        connection.pragma_update(None, "cache_size", -1024)?;
        // What is sorted goes to a file beyond the cache: rows with large values would fill the memory.
        connection.pragma_update(None, "temp_store", "FILE")?;
        let interrupt = Arc::new(Interrupt::default());
        text::register(&connection, Arc::clone(&interrupt))?;
        let handler = Arc::clone(&interrupt);
        connection.progress_handler(STEPS, Some(move || handler.is_due()))?;
        Ok(Self {
            connection,
            interrupt,
        })
    }
}

fn read(
    connection: &Connection,
    query: Query,
    sender: &mpsc::Sender<Vec<Row>>,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(&query.sql)?;
    let columns = statement.column_count();
    let mut found = statement.query(rusqlite::params_from_iter(query.arguments))?;
    let (mut chunk, mut bytes, mut rows) = (Vec::new(), 0, 0);
    while let Some(row) = found.next()? {
        let row = Row::read(row, columns)?;
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

/// Ends the read that a connection is doing. SQLite asks it between steps, and functions ask it while they work.
#[derive(Debug, Default)]
pub(super) struct Interrupt(Mutex<Option<Limit>>);

#[derive(Debug)]
struct Limit {
    deadline: Instant,
    /// Closed when the caller has dropped its [`Rows`].
    caller: mpsc::Sender<Vec<Row>>,
}

impl Interrupt {
    fn set(&self, limit: Option<Limit>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    /// Whether the read has to end now.
    pub(super) fn is_due(&self) -> bool {
        let limit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        limit
            .as_ref()
            .is_some_and(|limit| limit.caller.is_closed() || Instant::now() >= limit.deadline)
    }
}

/// The rows of a read, as they come.
pub(super) struct Rows {
    receiver: mpsc::Receiver<Vec<Row>>,
    chunk: std::vec::IntoIter<Row>,
    job: Option<JoinHandle<Result<(), rusqlite::Error>>>,
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
            Err(_) => Err(QueryError::Sql(rusqlite::Error::UnwindingPanic)),
        }
    }
}

/// One row of an answer.
#[derive(Debug)]
pub(super) struct Row(Vec<Stored>);

/// A value as SQLite has it. Text may be any bytes.
#[derive(Debug)]
enum Stored {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Row {
    fn read(row: &rusqlite::Row<'_>, columns: usize) -> Result<Self, rusqlite::Error> {
        let value = |index: usize| {
            Ok(match row.get_ref(index)? {
                ValueRef::Null => Stored::Null,
                ValueRef::Integer(number) => Stored::Integer(number),
                ValueRef::Real(number) => Stored::Real(number),
                ValueRef::Text(text) => Stored::Text(text.to_vec()),
                ValueRef::Blob(bytes) => Stored::Blob(bytes.to_vec()),
            })
        };
        (0..columns).map(value).collect::<Result<_, _>>().map(Self)
    }

    fn bytes(&self) -> usize {
        let size = |stored: &Stored| match stored {
            Stored::Text(bytes) | Stored::Blob(bytes) => bytes.len(),
            _ => 8,
        };
        self.0.iter().map(size).sum()
    }

    /// The value of a column, as it is stored.
    pub(super) fn value(&self, index: usize) -> Result<ValueRef<'_>, rusqlite::Error> {
        let stored = self
            .0
            .get(index)
            .ok_or(rusqlite::Error::InvalidColumnIndex(index))?;
        Ok(match stored {
            Stored::Null => ValueRef::Null,
            Stored::Integer(number) => ValueRef::Integer(*number),
            Stored::Real(number) => ValueRef::Real(*number),
            Stored::Text(text) => ValueRef::Text(text),
            Stored::Blob(bytes) => ValueRef::Blob(bytes),
        })
    }

    /// The bytes of a text or blob, which are empty here afterwards.
    pub(super) fn take_bytes(&mut self, index: usize) -> Vec<u8> {
        match self.0.get_mut(index) {
            Some(Stored::Text(bytes) | Stored::Blob(bytes)) => std::mem::take(bytes),
            _ => Vec::new(),
        }
    }

    /// The value of a column, as a type that it has to have.
    pub(super) fn get<T: FromSql>(&self, index: usize) -> Result<T, rusqlite::Error> {
        let value = self.value(index)?;
        T::column_result(value).map_err(|error| match error {
            FromSqlError::InvalidType => {
                rusqlite::Error::InvalidColumnType(index, format!("column {index}"), value.data_type())
            }
            error => rusqlite::Error::FromSqlConversionFailure(index, value.data_type(), Box::new(error)),
        })
    }
}
