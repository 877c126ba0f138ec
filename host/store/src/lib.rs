//! The database: the only crate that uses sqlx, rusqlite, tokio-postgres and SQL.
//!
//! It owns one SQLite file in WAL mode, or a schema of a PostgreSQL database (ADR 20). All changes go through one thread (`writer`): batches through [`Store::commit`],
//! other changes through handles such as [`Store::plugins`]. All reads go through a [`Reader`], which has its own
//! connections. Rows, dead letters, gaps, ledger and checkpoint of a batch change in one transaction (`apply`). The crate
//! knows nothing of brokers and plugins.

mod access;
mod anchors;
mod apply;
mod audit;
mod catalog;
pub mod check;
mod checkpointer;
mod commit;
pub mod comparison;
mod components;
mod connection;
mod consumers;
mod database;
mod database_file;
mod dead_letters;
pub mod deep;
pub mod forget;
mod indexes;
mod installation;
mod leases;
mod location;
mod lock;
mod maintenance;
mod migrations;
mod page_size;
mod preparation;
mod probe;
mod provenance;
mod queue;
mod read_error;
pub mod reader;
mod rebuild;
mod requests;
mod reserve;
mod rewrite;
mod row_view;
pub mod scratch;
#[doc(hidden)]
pub mod search;
mod segments;
mod server_report;
mod sources;
mod sql;
#[doc(hidden)]
pub mod statement;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod values;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub use access::{NewToken, Role};
pub use audit::{AuditEntry, AuditHash, AuditId, AuditMark, AuditOutcome};
pub use catalog::{AdoptError, Adoption, StoreRefusal, list_refusals};
pub use commit::{
    Accepted, Adopted, Anchor, Attached, Commit, CommitError, Committed, Counts, Entry, Mark, NewEpoch,
    NewGap, OriginId, Question, RowEffects, VersionId,
};
pub use components::StoredComponent;
pub use consumers::{AbandonedConsumer, Consumers};
pub use database_file::{DatabaseFile, Replacements};
pub use dead_letters::{DeadLetters, OpenDeadLetter, OpenDeadLetterFilter, RetriedDeadLetter, RetryTotals};
pub use indexes::IndexStep;
pub use installation::{
    Activation, FileRecord, Installation, NewVersion, Pause, PausedBy, Plugins, VersionRecord,
};
pub use lantern_model::schema::description::{self, ColumnDescription, IndexDescription, TableDescription};
pub use leases::{
    JOBS_LEASE, LEASE_TIME, Lease, LeaseView, Leases, Node, NodeConfig, PLUGIN_DIRECTORY_LEASE,
};
pub use location::{Location, Server, ServerError};
pub use lock::LockError;
pub use maintenance::Maintenance;
pub use page_size::PageSize;
pub use provenance::{LedgerSpan, Lineage, ProvenanceError, RowKey, TracedRow, VersionWork};
pub use reader::Reader;
pub use rebuild::{
    Comparison, HeadBounds, KeptHistory, KeptTables, RebuildId, RebuildOutcome, RebuildRecord, RebuildSurvey,
    Rebuilds, ReplayRange, SourceHistory, SurveyedRange, TableOutcome, TableSurvey, Verification,
    VerifyRequest,
};
pub use rewrite::{Reprojections, Rewrite, Rewritten};
pub use row_view::RowView;
pub use scratch::{Scratch, ScratchError};
pub use search::{IndexerState, IndexingStep, Search};
pub use server_report::ServerReport;
pub use sources::Sources;
pub use sql::{Engine, Error as DatabaseError};

use preparation::{prepare_file, settle_audit};
use queue::{Queue, Request};
use writer::Writer;

/// The database's name in the data directory.
pub const DATABASE_FILE: &str = "lantern.db";

/// Digits of the identifier of a data directory that are shown.
const DIRECTORY_DIGITS: usize = 12;

/// Which commits survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// A power cut may lose the commits of the last half minute with their checkpoints; the broker still has their
    /// messages. Sufficient for streams with limits retention, and several times faster.
    Normal,
    /// Every commit is on disk before the writer answers it.
    Full,
}

impl Synchronous {
    fn pragma(self) -> &'static str {
        match self {
            Self::Normal => "PRAGMA synchronous = NORMAL",
            Self::Full => "PRAGMA synchronous = FULL",
        }
    }
}

/// The settings of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The data directory.
    pub dir: PathBuf,
    /// The PostgreSQL server that has the tables; none for a file of SQLite in the data directory.
    pub server: Option<Server>,
    /// This host among those of a PostgreSQL database; none if it is the only one.
    pub node: Option<NodeConfig>,
    /// Which commits survive a power cut.
    pub synchronous: Synchronous,
    /// Maximum size of the writer's page cache, in bytes; SQLite allocates it on demand.
    pub cache_bytes: u64,
    /// Size of the reserve file that an operator can delete when the disk is full, in bytes; 0 for none.
    pub reserve_bytes: u64,
    /// Size of the pages of a new database file; an existing file keeps its own.
    pub page_size: PageSize,
    /// Least time between the starts of two transactions of live batches; batches that arrive earlier share the next one.
    /// After a longer pause a batch commits at once.
    pub commit_delay: Duration,
}

impl StoreConfig {
    /// The default settings of a host.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            server: None,
            node: None,
            synchronous: Synchronous::Normal,
            cache_bytes: 256 * 1024 * 1024,
            reserve_bytes: 16 * 1024 * 1024,
            page_size: PageSize::DEFAULT,
            commit_delay: Self::COMMIT_DELAY,
        }
    }

    /// The default of [`StoreConfig::commit_delay`]: a row is visible as soon as possible. ADR 1 has the measurements.
    pub const COMMIT_DELAY: Duration = Duration::ZERO;

    /// Where the tables are.
    pub fn location(&self) -> Location {
        match &self.server {
            Some(server) => Location::Postgres(server.clone()),
            None => Location::Sqlite(self.dir.join(DATABASE_FILE)),
        }
    }

    fn cache_kib(&self) -> i64 {
        i64::try_from(self.cache_bytes / 1024).unwrap_or(i64::MAX)
    }

    /// Size to which SQLite truncates a write-ahead log that was larger for a while.
    const WAL_BYTES_KEPT: i64 = 64 * 1024 * 1024;

    /// A checkpoint copies pages and reads none, so it needs no cache.
    fn for_checkpoints(&self) -> Self {
        Self {
            cache_bytes: 256 * 1024,
            ..self.clone()
        }
    }
}

/// Whether the database can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Healthy,
    /// It cannot, for this reason. The writer keeps trying.
    Unavailable(String),
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is missing and cannot be created, is in use, or cannot be written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The linked SQLite is too old.
    #[error("{0}")]
    Version(String),
    /// The database cannot be opened, or its migrations failed.
    #[error("cannot open the database {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A newer version of Lantern changed the host's tables.
    #[error("the database {} cannot be used", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The two schema versions.
        #[source]
        source: check::CheckError,
    },
    /// The thread of the writer cannot be started.
    #[error("cannot start the writer")]
    Thread(#[source] std::io::Error),
    /// The PostgreSQL server cannot be used.
    #[error("cannot use the database {server}: {reason}")]
    Server {
        /// Its address, without the password.
        server: String,
        /// The reason.
        reason: String,
    },
    /// The database is damaged.
    #[error("the database {} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first problem that SQLite found.
        problem: String,
    },
}

/// The open store. Dropping it without [`Store::close`] loses no answered commit.
pub struct Store {
    dir: PathBuf,
    location: Location,
    requests: mpsc::Sender<Request>,
    health: watch::Receiver<Health>,
    commits: watch::Receiver<u64>,
    open_file: watch::Receiver<Option<database_file::Identity>>,
    replacements: watch::Receiver<u64>,
    thread: Mutex<Option<JoinHandle<()>>>,
    reader: Reader,
    readers: Arc<Mutex<Vec<Reader>>>,
    /// Whether the entries of the audit that were interrupted before this start have been ended.
    audit_settled: Arc<AtomicBool>,
    /// This host among those of the database.
    node: Option<NodeConfig>,
    /// The leases of this host, which the writer compares.
    held: leases::Held,
    _lock: lock::DirLock,
}

impl Store {
    /// Locks the data directory, migrates the host's tables, and starts the writer.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing has changed then, except that a missing directory may have been created.
    pub async fn open(mut config: StoreConfig) -> Result<Self, OpenError> {
        connection::assert_version().map_err(OpenError::Version)?;
        let lock = lock::DirLock::take(&config.dir)?;
        if let Some(node) = &mut config.node {
            node.identify(&config.dir)?;
        }
        let (dir, location, node) = (config.dir.clone(), config.location(), config.node.clone());
        if let Location::Sqlite(path) = &location {
            prepare_file(path, config.page_size).await?;
        }
        let (requests, received) = mpsc::channel(queue::REQUESTS_MAX);
        let (health, watched) = watch::channel(Health::Healthy);
        let (commits, counted) = watch::channel(0);
        let (open_file, watched_file) = watch::channel(None);
        let (replacements, counted_replacements) = watch::channel(0);
        reserve::keep(&config);
        scratch::sweep(&config.dir);
        let (reader, held) = (Reader::for_host(&location), leases::Held::default());
        let readers = Arc::new(Mutex::new(vec![reader.clone()]));
        let writer = Writer {
            held: held.clone(),
            location: location.clone(),
            config,
            requests: Queue::new(received),
            health,
            commits,
            open_file,
            replacements,
            runtime: tokio::runtime::Handle::current(),
            readers: Arc::clone(&readers),
            database: None,
            identity_lost: false,
            server: writer::ServerState::default(),
            live_at: None,
            live_due: None,
        };
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        let mut store = Self {
            dir,
            location,
            requests,
            health: watched,
            commits: counted,
            open_file: watched_file,
            replacements: counted_replacements,
            thread: Mutex::new(Some(thread)),
            reader,
            readers,
            audit_settled: Arc::default(),
            node,
            held,
            _lock: lock,
        };
        store.connect_server().await?;
        store.audit_settled = Arc::new(AtomicBool::new(settle_audit(&store).await));
        Ok(store)
    }

    /// A server that cannot be used at the start is an error of the configuration.
    async fn connect_server(&self) -> Result<(), OpenError> {
        let Location::Postgres(server) = &self.location else {
            return Ok(());
        };
        self.flush().await.map_err(|error| OpenError::Server {
            server: server.to_string(),
            reason: error.to_string(),
        })?;
        probe::start(self.requests.downgrade());
        Ok(())
    }

    /// The host's own reader. The API has another one, with shorter limits.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Makes the writer release a reader's connections to a database file that was deleted or replaced, before it opens the
    /// new file.
    pub fn release_before_reopen(&self, reader: Reader) {
        self.readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(reader);
    }

    /// The database file; none for a server.
    pub fn path(&self) -> Option<&Path> {
        self.location.file()
    }

    /// Where the tables are.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Identifies the data directory among those of the hosts of one database; none if there is only this host.
    pub fn directory_id(&self) -> Option<&str> {
        let node = self.node.as_ref()?;
        node.directory.get(..DIRECTORY_DIGITS)
    }

    /// The file of the write-ahead log, which may be missing while the log is empty; none for a server.
    pub fn log_path(&self) -> Option<PathBuf> {
        let mut path = self.location.file()?.as_os_str().to_owned();
        path.push("-wal");
        Some(path.into())
    }

    /// Whether the database can be written.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// The number of commits since the store was opened. Reads, and calls that changed no row, do not count.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// Stores a batch. When this future is dropped, the batch may still take effect.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing of the batch has taken effect then.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        self.begin_commit(commit)
            .await?
            .await
            .map_err(|_| CommitError::Closed)?
    }

    /// Sends a batch to the writer and returns the receiver of its answer, so that the caller can prepare the next batch
    /// meanwhile.
    ///
    /// # Errors
    /// [`CommitError::Closed`].
    pub async fn begin_commit(
        &self,
        commit: Commit,
    ) -> Result<oneshot::Receiver<Result<Committed, CommitError>>, CommitError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(Request::Commit(Box::new(commit), reply))
            .await
            .map_err(|_| CommitError::Closed)?;
        Ok(answer)
    }

    /// A value that is created once per database and kept, such as its identity or the key of the compile cache.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn fact(
        &self,
        key: &'static str,
        make: impl FnOnce() -> String + Send + 'static,
    ) -> Result<String, CommitError> {
        self.call(move |connection| {
            connection.execute(
                "INSERT INTO _lantern_host (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING",
                [key, &make()],
            )?;
            connection.query_row("SELECT value FROM _lantern_host WHERE key = ?1", [key], |row| {
                row.get(0)
            })
        })
        .await
    }

    /// Removes such a value.
    ///
    /// # Errors
    /// As for [`Store::fact`].
    pub async fn remove_fact(&self, key: &'static str) -> Result<(), CommitError> {
        self.call(move |connection| {
            connection
                .execute("DELETE FROM _lantern_host WHERE key = ?1", [key])
                .map(|_| ())
        })
        .await
    }

    /// Waits until the writer has carried out its requests, closes the database and unlocks the data directory.
    pub async fn close(self) {
        let Self {
            requests,
            thread,
            reader,
            ..
        } = self;
        reader.close().await;
        drop(requests);
        let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let joined = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join)).await;
        if !matches!(joined, Ok(None | Some(Ok(())))) {
            tracing::error!("the writer panicked");
        }
    }
}
