//! The database: the only module that names sqlx and rusqlite, and the only one that knows SQL.
//!
//! It owns one SQLite file in WAL mode with one writer (`writer`), which projections reach through [`Store::commit`],
//! and a small pool of readers for the faces (`reader`). Rows, dead letters, gaps, ledger and checkpoint of a batch
//! change in one transaction (`apply`). It knows nothing of brokers and plugins.

mod access;
mod anchors;
mod apply;
mod audit;
mod catalog;
pub mod check;
mod checkpointer;
mod commit;
pub mod comparison;
mod connection;
mod consumers;
pub mod deep;
pub mod forget;
mod indexes;
mod installation;
mod letters;
mod lock;
mod provenance;
mod queue;
pub mod reader;
mod rebuild;
mod reserve;
mod rewrite;
pub mod scratch;
mod shown;
#[doc(hidden)]
pub mod statement;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use tokio::sync::{mpsc, oneshot, watch};

pub use access::{NewToken, Role};
pub use audit::{AuditEntry, AuditHash, AuditId, AuditMark, AuditOutcome};
pub use catalog::{AdoptError, Adoption};
pub use commit::{
    Accepted, Adopted, Anchor, Attached, Commit, CommitError, Committed, Counts, Entry, Gap, Mark, NewEpoch,
    OriginId, Question, RowEffects, VersionId,
};
pub use consumers::AbandonedConsumer;
pub use indexes::IndexStep;
pub use installation::{Arrival, FileRecord, Installation, VersionRecord, Way};
pub use lantern_model::schema::description::{self, ColumnDescription, IndexDescription, TableDescription};
pub use letters::{Healed, LetterFilter, OpenLetter, Retried};
pub use lock::LockError;
pub use provenance::{LedgerSpan, Lineage, ProvenanceError, RowKey, TracedRow, VersionWork};
pub use reader::Reader;
pub use rebuild::{
    HeadBounds, KeptHistory, KeptTables, LedgerRange, RebuildId, RebuildOutcome, RebuildRecord,
    RebuildSurvey, Scope, SourceHistory, TableOutcome, TableSurvey, Verification, VerifyRequest,
};
pub use rewrite::{Rewrite, Rewritten};
pub use scratch::{Scratch, ScratchError};
pub use shown::ShownRow;

use catalog::CatalogError;
use writer::{Call, Request, Writer};

use lantern_trust::private_files;

/// The database's name in the data directory.
pub const DATABASE_FILE: &str = "lantern.db";

/// How much of a power cut a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// A power cut may take the commits of the last half minute with their checkpoints; the broker still has their messages.
    /// Enough for streams with limits retention, and several times faster.
    Normal,
    /// Every commit is on the disk before it is answered.
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

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub dir: PathBuf,
    /// What a commit survives.
    pub synchronous: Synchronous,
    /// Memory for pages of the writer, in bytes; it is taken as it is needed.
    pub cache_bytes: u64,
    /// Size of the file that an operator can delete when the disk is full, in bytes; 0 for none.
    pub reserve_bytes: u64,
}

impl Config {
    /// As a host has it by default.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            synchronous: Synchronous::Normal,
            cache_bytes: 256 * 1024 * 1024,
            reserve_bytes: 16 * 1024 * 1024,
        }
    }

    fn cache_kib(&self) -> i64 {
        i64::try_from(self.cache_bytes / 1024).unwrap_or(i64::MAX)
    }

    /// What stays of a log that has been worth more for a while.
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
    /// It cannot, and why. The writer keeps trying.
    Unavailable(String),
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is missing and cannot be made, is in use, or cannot be written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The linked SQLite is not good enough.
    #[error("{0}")]
    Version(String),
    /// The database cannot be opened, or its migrations do not apply.
    #[error("cannot open the database {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What was said.
        #[source]
        source: sqlx::Error,
    },
    /// A newer Lantern has changed the database's own tables.
    #[error("the database {} cannot be used", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// By how much it is newer.
        #[source]
        source: check::CheckError,
    },
    /// The database is damaged.
    #[error("the database {} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found first.
        problem: String,
    },
}

/// Creates the database's file with mode 0600, which SQLite also gives to the files beside it, and restricts one that an
/// earlier version left open to everybody.
fn restrict(path: &Path) -> Result<(), OpenError> {
    let restricted = private_files::open_or_create(path).and_then(|_| {
        for end in ["-wal", "-shm"] {
            let mut beside = path.as_os_str().to_owned();
            beside.push(end);
            let beside = PathBuf::from(beside);
            if beside.exists() {
                private_files::open_or_create(&beside)?;
            }
        }
        Ok(())
    });
    restricted.map_err(|source| OpenError::Lock(LockError::Unsafe { source }))
}

/// The open store. Dropping it without [`Store::close`] loses nothing that was answered.
pub struct Store {
    path: PathBuf,
    requests: mpsc::Sender<Request>,
    health: watch::Receiver<Health>,
    commits: watch::Receiver<u64>,
    thread: Mutex<Option<JoinHandle<()>>>,
    reader: Arc<Mutex<Option<Reader>>>,
    /// Whether the entries of the audit that were interrupted before this start have been ended.
    audit_settled: Arc<AtomicBool>,
    _lock: lock::DirLock,
}

impl Store {
    /// Locks the data directory, brings the host's tables up to date, and starts the writer.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing has been changed then, except that a missing directory may have been made.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        connection::assert_version().map_err(OpenError::Version)?;
        let lock = lock::DirLock::take(&config.dir)?;
        let path = config.dir.join(DATABASE_FILE);
        // A file that cannot be read is reported by what follows.
        if path.is_file()
            && let Err(source @ check::CheckError::Newer { .. }) = check::version(&path)
        {
            return Err(OpenError::Newer { path, source });
        }
        restrict(&path)?;
        migrate(&path).await.map_err(|source| OpenError::Database {
            path: path.clone(),
            source,
        })?;
        check::quick(&path).map_err(|problem| OpenError::Damaged {
            path: path.clone(),
            problem,
        })?;
        let audit_settled = settle_audit(&path);
        let (requests, received) = mpsc::channel(writer::REQUESTS_MAX);
        let (health, watched) = watch::channel(Health::Healthy);
        let (commits, counted) = watch::channel(0);
        reserve::keep(&config);
        scratch::sweep(&config.dir);
        let reader: Arc<Mutex<Option<Reader>>> = Arc::default();
        let writer = Writer {
            path: path.clone(),
            config,
            requests: queue::Queue::new(received),
            health,
            commits,
            runtime: tokio::runtime::Handle::current(),
            reader: Arc::clone(&reader),
            database: None,
            identity_lost: false,
        };
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Database {
                path: path.clone(),
                source: sqlx::Error::Io(error),
            })?;
        Ok(Self {
            path,
            requests,
            health: watched,
            commits: counted,
            thread: Mutex::new(Some(thread)),
            reader,
            audit_settled: Arc::new(AtomicBool::new(audit_settled)),
            _lock: lock,
        })
    }

    /// Has a reader let go of a database that was deleted or replaced, before the writer opens the new one.
    pub fn release_before_reopen(&self, reader: Reader) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The write-ahead log's file, which may be missing while nothing is in it.
    pub fn log_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push("-wal");
        path.into()
    }

    /// Whether the database can be written, as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Changes with each commit: how many there were since the store was opened.
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

    /// Hands a batch to the writer and returns what its answer will come through, so that the next batch can be
    /// prepared meanwhile.
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

    /// Makes a plugin version known and its tables what it declares.
    ///
    /// # Errors
    /// See [`AdoptError`]; nothing has changed then.
    pub async fn adopt(&self, adoption: Adoption) -> Result<Adopted, AdoptError> {
        self.call_catalog(move |connection| catalog::adopt(connection, &adoption))
            .await
    }

    /// A call that may be refused in words.
    async fn call_catalog<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, AdoptError> {
        let result = self
            .call(move |connection| match act(connection) {
                Ok(value) => Ok(Ok(value)),
                Err(CatalogError::Refused(reasons)) => Ok(Err(AdoptError::Refused(reasons))),
                Err(CatalogError::Sqlite(error)) => Err(error),
            })
            .await;
        match result {
            Ok(adopted) => adopted,
            Err(CommitError::Closed) => Err(AdoptError::Closed),
            Err(error) => Err(AdoptError::Unavailable(error.to_string())),
        }
    }

    /// Where a source stands; none when it was never begun.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn attach(&self, plugin: &str, source: &str) -> Result<Option<Attached>, CommitError> {
        let (plugin, source) = (plugin.to_owned(), source.to_owned());
        self.call(move |connection| catalog::attach(connection, &plugin, &source))
            .await
    }

    /// Begins a source's next epoch.
    ///
    /// # Errors
    /// As for [`Store::attach`].
    pub async fn begin_epoch(&self, epoch: NewEpoch) -> Result<Attached, CommitError> {
        self.call(move |connection| catalog::begin_epoch(connection, &epoch))
            .await
    }

    /// Records that the stream of an epoch now has this name and creation time. Its messages are those that were read.
    ///
    /// # Errors
    /// As for [`Store::attach`].
    pub async fn recognise(
        &self,
        origin: OriginId,
        stream: &str,
        created_ns: i64,
    ) -> Result<(), CommitError> {
        let stream = stream.to_owned();
        self.call(move |connection| catalog::recognise(connection, origin, &stream, created_ns))
            .await
    }

    /// Records that an operator has to decide whether the stream with this creation time is the epoch's stream; `None`
    /// withdraws the question.
    ///
    /// # Errors
    /// As for [`Store::attach`].
    pub async fn ask(&self, origin: OriginId, stream_created_ns: Option<i64>) -> Result<(), CommitError> {
        self.call(move |connection| catalog::ask(connection, origin, stream_created_ns))
            .await
    }

    /// Records an operator's decision about a source's stream. Returns the creation time of that stream; none when the
    /// source has no open question.
    ///
    /// # Errors
    /// As for [`Store::attach`].
    pub async fn accept(
        &self,
        plugin: &str,
        source: &str,
        accepted: Accepted,
    ) -> Result<Option<i64>, CommitError> {
        let (plugin, source) = (plugin.to_owned(), source.to_owned());
        self.call(move |connection| catalog::accept(connection, &plugin, &source, accepted))
            .await
    }

    /// Removes rows that are older than their table keeps them, a bounded number. Returns how many.
    ///
    /// # Errors
    /// As for [`Store::attach`].
    pub async fn expire(
        &self,
        table: lantern_model::schema::Table,
        now: lantern_model::batch::Timestamp,
    ) -> Result<u64, CommitError> {
        self.call(move |connection| catalog::expire(connection, &table, now))
            .await
    }

    /// A fact about this database that is made once and kept: its identity, the key of the compile cache.
    ///
    /// # Errors
    /// As for [`Store::attach`].
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

    /// Removes a fact.
    ///
    /// # Errors
    /// As for [`Store::attach`].
    pub async fn remove_fact(&self, key: &'static str) -> Result<(), CommitError> {
        self.call(move |connection| {
            connection
                .execute("DELETE FROM _lantern_host WHERE key = ?1", [key])
                .map(|_| ())
        })
        .await
    }

    async fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, CommitError> {
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |connection| {
            let (result, failed) = match connection {
                Err(reason) => (Err(CommitError::Unavailable(reason)), None),
                Ok(connection) => match act(connection) {
                    Ok(value) => (Ok(value), None),
                    Err(error) => (Err(CommitError::Unavailable(error.to_string())), Some(error)),
                },
            };
            // A caller that has gone away does not need the answer.
            drop(reply.send(result));
            failed
        });
        self.requests
            .send(Request::Call(call))
            .await
            .map_err(|_| CommitError::Closed)?;
        answer.await.map_err(|_| CommitError::Closed)?
    }

    /// Lets the writer finish what it has, closes the database and releases the data directory.
    pub async fn close(self) {
        let Self { requests, thread, .. } = self;
        drop(requests);
        let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let joined = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join)).await;
        if !matches!(joined, Ok(None | Some(Ok(())))) {
            tracing::error!("the writer ended with a panic");
        }
    }
}

/// Ends the entries of the audit whose changes were interrupted. Returns whether that was possible; otherwise it is done
/// before the next change.
fn settle_audit(path: &Path) -> bool {
    match audit::settle(path) {
        Ok(interrupted) => {
            if interrupted > 0 {
                tracing::warn!(
                    interrupted,
                    "the host stopped during changes; see outcome `interrupted` in the audit"
                );
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "failed to end interrupted entries of the audit; will retry before the next change");
            false
        }
    }
}

/// The host's own tables, version by version.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// Makes the database when it is missing and applies the migrations of the host's own tables.
async fn migrate(path: &Path) -> Result<(), sqlx::Error> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .connect()
        .await?;
    let migrated = MIGRATIONS.run(&mut connection).await;
    sqlx::Connection::close(connection).await?;
    migrated.map_err(sqlx::Error::from)
}
