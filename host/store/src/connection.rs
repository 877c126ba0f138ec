//! How connections to a database file are opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::OpenFlags;

use super::{StoreConfig, sql};

/// The oldest SQLite whose WAL cannot lose a commit in a race with a checkpoint (the WAL-reset bug, fixed in 3.51.3):
/// the checkpointer has its own connection.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long one attempt waits for another process's lock before the writer reports it and retries.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

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
