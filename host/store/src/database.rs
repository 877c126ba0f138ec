//! The open database of the writer: its connection and, for a file, the checkpoints and whether the path still names it.

use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::checkpointer::{Checkpointer, UNSAFE_FOR};
use super::connection::open_file;
use super::database_file::{Identity, compare};
use super::location::{Location, Server};
use super::migrations::migrate;
use super::{StoreConfig, Synchronous, sql};

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

impl Database {
    /// Opens the database for writing, after the migrations of the host's tables. Blocks.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn open(location: &Location, config: &StoreConfig, runtime: &Handle) -> Result<Self, String> {
        match location {
            Location::Sqlite(path) => {
                let migrated = runtime.block_on(migrate(path, config.page_size));
                migrated.map_err(|error| error.to_string())?;
                Self::open_file(path, config).map_err(|error| error.to_string())
            }
            Location::Postgres(server) => Self::open_server(server, config, runtime)
                .map_err(|error| format!("PostgreSQL at {server}: {error}")),
        }
    }

    fn open_server(server: &Server, config: &StoreConfig, runtime: &Handle) -> Result<Self, sql::Error> {
        let session = server.open_writer(
            runtime,
            config.synchronous,
            config.node.as_ref().map(|node| node.id.as_str()),
        )?;
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

fn io_error(error: &std::io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
        Some(error.to_string()),
    )
}
