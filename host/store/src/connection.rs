//! How connections are opened, and whether the file of the write connection is still the one that the path names.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::StoreConfig;
use super::database_file::compare;

/// The oldest SQLite whose WAL cannot lose a commit in a race with a checkpoint (the WAL-reset bug, fixed in 3.51.3):
/// the checkpointer has its own connection.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long one attempt waits for another process's lock before the writer reports it and retries.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The open database with the identity of its files.
pub(super) struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
    identity: Identity,
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
pub(super) fn open_read_only(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
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
    /// Opens the database for writing. It must exist: the migrations create it.
    pub(super) fn open(path: &Path, config: &StoreConfig) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(1_024);
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.pragma_update(None, "cache_size", -config.cache_kib())?;
        // The checkpointer runs checkpoints, so that a commit does not wait for one.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "journal_size_limit", StoreConfig::WAL_BYTES_KEPT)?;
        let identity = Identity::of(path).map_err(|error| io_error(&error))?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            identity,
        })
    }

    /// Fails when the path no longer names the open file. SQLite would continue to commit into a file that no process
    /// can open.
    pub(super) fn check_identity(&self) -> Result<(), String> {
        compare(&self.path, self.identity)
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }
}

fn io_error(error: &std::io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
        Some(error.to_string()),
    )
}

/// Whether an error is caused by the written data and would recur with it, and not by the database, the disk or another
/// process.
pub(super) fn is_refusal(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch};
    matches!(
        error.sqlite_error_code(),
        Some(ConstraintViolation | TypeMismatch | TooBig | ParameterOutOfRange)
    )
}

/// Whether another process holds the lock.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}
