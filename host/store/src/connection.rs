//! How connections are opened, and whether the file of the write connection is still the one that the path names.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::OpenFlags;
use tokio::runtime::Handle;

use super::checkpointer::{Checkpointer, UNSAFE_FOR};
use super::database_file::compare;
use super::location::{Location, Server};
use super::preparation::migrate;
use super::{StoreConfig, Synchronous, sql};

/// The oldest SQLite whose WAL cannot lose a commit in a race with a checkpoint (the WAL-reset bug, fixed in 3.51.3):
/// the checkpointer has its own connection.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long one attempt waits for another process's lock before the writer reports it and retries.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The open database.
pub(super) struct Database {
    /// Dropped before the connection, so that its checkpoints do not outlive the file; none for a server.
    file: Option<OpenFile>,
    pub(super) connection: sql::Connection,
}

/// The open database file.
struct OpenFile {
    path: PathBuf,
    identity: Identity,
    checkpointer: Checkpointer,
}

/// Identifies a file independently of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// Opens a connection that can only read.
pub(super) fn open_read_only(
    path: &Path,
    busy_timeout: Duration,
) -> Result<rusqlite::Connection, sql::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    Ok(connection)
}

/// Fails when the linked SQLite is older than the fix that the writer relies on.
pub(super) fn assert_version() -> Result<(), String> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(format!(
            "SQLite {} is too old: 3.51.3 or later is needed",
            rusqlite::version()
        ));
    }
    Ok(())
}

impl Database {
    /// Opens the database for writing, after the migrations of the host's tables. Blocks.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn open(location: &Location, config: &StoreConfig, runtime: &Handle) -> Result<Self, String> {
        match location {
            Location::Sqlite(path) => {
                let migrated = runtime.block_on(migrate(path));
                migrated.map_err(|error| error.to_string())?;
                Self::open_file(path, config).map_err(|error| error.to_string())
            }
            Location::Postgres(server) => Self::open_server(server, config, runtime)
                .map_err(|error| format!("PostgreSQL at {server}: {error}")),
        }
    }

    fn open_server(server: &Server, config: &StoreConfig, runtime: &Handle) -> Result<Self, sql::Error> {
        let session = server.open_writer(runtime, config.synchronous)?;
        let mut connection = sql::Connection::Postgres(session);
        sql::postgres::migrate(&mut connection)?;
        Ok(Self {
            file: None,
            connection,
        })
    }

    fn open_file(path: &Path, config: &StoreConfig) -> Result<Self, sql::Error> {
        let connection = open_file(path, config)?;
        let identity = Identity::of(path).map_err(|error| io_error(&error))?;
        let checkpointer = Checkpointer::start(path, config, UNSAFE_FOR)?;
        Ok(Self {
            file: Some(OpenFile {
                path: path.to_owned(),
                identity,
                checkpointer,
            }),
            connection: connection.into(),
        })
    }

    /// Fails when the path no longer names the open file. SQLite would continue to commit into a file that no process
    /// can open.
    pub(super) fn check_file(&self) -> Result<(), String> {
        self.file
            .as_ref()
            .map_or(Ok(()), |file| compare(&file.path, file.identity))
    }

    /// The identity of the open file; none for a server.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.file.as_ref().map(|file| file.identity)
    }

    /// Whether a new connection has to be opened before the next transaction.
    pub(super) fn is_over(&self) -> bool {
        self.connection.is_over()
    }

    /// Begins the transaction of a group of batches.
    pub(super) fn begin(&self, synchronous: Synchronous) -> Result<(), sql::Error> {
        match &self.connection {
            sql::Connection::Sqlite(connection) => {
                connection.execute_batch(synchronous.pragma())?;
                Ok(connection.execute_batch("BEGIN IMMEDIATE")?)
            }
            sql::Connection::Postgres(session) => session.execute_batch(match synchronous {
                Synchronous::Normal => "BEGIN; SET LOCAL synchronous_commit = off",
                Synchronous::Full => "BEGIN; SET LOCAL synchronous_commit = on",
            }),
        }
    }

    /// Copies the write-ahead log into the file if it is large. For a server nothing.
    pub(super) fn after_commit(&mut self) {
        if let (Some(file), Some(connection)) = (&mut self.file, self.connection.sqlite()) {
            file.checkpointer.after_commit(connection);
        }
    }
}

/// Opens a database file for writing. It must exist: the migrations create it.
pub(super) fn open_file(path: &Path, config: &StoreConfig) -> Result<rusqlite::Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(1_024);
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -config.cache_kib())?;
    // The checkpointer runs checkpoints, so that a commit does not wait for one.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", StoreConfig::WAL_BYTES_KEPT)?;
    Ok(connection)
}

fn io_error(error: &std::io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
        Some(error.to_string()),
    )
}

/// Whether an error is caused by the written data and would recur with it, and not by the database, the disk or another
/// process.
pub(super) fn is_refusal(error: &sql::Error) -> bool {
    matches!(error.kind(), sql::Kind::Refused | sql::Kind::OutOfRange)
}

/// Whether another process holds the lock.
pub(super) fn is_busy(error: &sql::Error) -> bool {
    error.kind() == sql::Kind::Busy
}
