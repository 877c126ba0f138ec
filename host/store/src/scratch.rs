//! A temporary database. A version writes into it through the same statements, guards and savepoints as into the real
//! database, so that it rejects the same rows; the real database is not touched. It has its own file, which is bounded
//! in size and deleted with its owner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::sql::{Connection, Kind};

use super::apply::{ApplyError, Isolation, apply};
use super::catalog::{Adoption, CatalogError, Layout, StoreRefusal, adopt, list_refusals};
use super::commit::{Adopted, Commit, Counts, Entry, Mark, NewEpoch, OriginId};
use super::leases::Held;
use super::migrations::migrate;
use super::sources::begin_epoch;
use super::values::from_sql;
use super::{PageSize, Store};
use lantern_model::batch::Timestamp;
use lantern_model::results::canary::{RejectExample, Rejects};

/// The folder in the data directory.
const FOLDER: &str = "scratch";
/// Largest size in bytes: several hundred thousand ordinary rows, and small compared with a database worth a canary.
const BYTES_MAX: u64 = 256 << 20;
/// Size of the page cache, in KiB.
const CACHE_KIB: i64 = 8 << 10;
/// Reasons that are reported for each class of rejection.
const REASONS_SHOWN: u32 = 3;

/// Why a scratch database cannot be created, filled or read.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// Its file cannot be created.
    #[error("the scratch database {} cannot be created: {reason}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// The error of the system or of SQLite.
        reason: String,
    },
    /// The tables cannot be created. One sentence per reason.
    #[error("the tables cannot be created: {}", list_refusals(.0))]
    Tables(Vec<StoreRefusal>),
    /// It has reached its maximum size.
    #[error("the scratch database has grown to {} MiB", BYTES_MAX >> 20)]
    Full,
    /// The version does not read this source.
    #[error("there is no source {0}")]
    NoSource(String),
    /// SQLite failed for a reason other than the rows.
    #[error("the scratch database cannot be used")]
    Sqlite(#[source] crate::sql::Error),
}

impl From<crate::sql::Error> for ScratchError {
    fn from(error: crate::sql::Error) -> Self {
        match error.kind() {
            Kind::Full => Self::Full,
            _ => Self::Sqlite(error),
        }
    }
}

/// A temporary database with the tables of one plugin version. Its methods block.
pub struct Scratch {
    pub(super) connection: Connection,
    pub(super) plugin: Adopted,
    origins: BTreeMap<String, (OriginId, u64)>,
    counts: Counts,
    /// Last, so that the connection is closed before its files are deleted.
    pub(super) file: File,
}

/// The files of a scratch database; dropping this deletes them.
pub(super) struct File(pub(super) PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.0.clone().into_os_string();
            path.push(suffix);
            // Most of them never exist; the next start deletes what remains.
            drop(std::fs::remove_file(path));
        }
    }
}

impl Store {
    /// Creates a scratch database with the tables that a version declares. `sources` are numbered in the given order,
    /// so that rows of two scratch databases with the same sources can be compared by their origin.
    ///
    /// # Errors
    /// See [`ScratchError`].
    pub async fn scratch(&self, adoption: Adoption, sources: Vec<String>) -> Result<Scratch, ScratchError> {
        Scratch::make(&self.dir().join(FOLDER), adoption, sources).await
    }
}

impl Scratch {
    /// Creates a scratch database in a folder, and the folder if it is missing. `sources` as for [`Store::scratch`].
    ///
    /// # Errors
    /// See [`ScratchError`].
    pub async fn make(folder: &Path, adoption: Adoption, sources: Vec<String>) -> Result<Self, ScratchError> {
        let path = folder.join(format!("{}.db", uuid::Uuid::new_v4().simple()));
        let failed = |reason: String| ScratchError::Make {
            path: path.clone(),
            reason,
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        let file = File(path.clone());
        let runtime = tokio::runtime::Handle::current();
        let work = tokio::task::spawn_blocking(move || {
            let migrated = runtime.block_on(migrate(&file.0, PageSize::DEFAULT));
            migrated.map_err(|error| ScratchError::Make {
                path: file.0.clone(),
                reason: error.to_string(),
            })?;
            Scratch::fill(file, &adoption, &sources)
        });
        match work.await {
            Ok(scratch) => scratch,
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// Deletes what a killed host left behind.
pub(super) fn sweep(dir: &Path) {
    let folder = dir.join(FOLDER);
    if let Err(error) = std::fs::remove_dir_all(&folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "failed to delete old scratch databases");
    }
}

impl Scratch {
    /// Continues with another version, as the real database does at a swap.
    ///
    /// # Errors
    /// See [`ScratchError`].
    pub fn switch(&mut self, adoption: &Adoption) -> Result<(), ScratchError> {
        self.plugin =
            adopt(&mut self.connection, adoption, Layout::Indexes).map_err(|error| match error {
                CatalogError::Refused(reasons) => ScratchError::Tables(reasons),
                CatalogError::Sqlite(error) => error.into(),
            })?;
        Ok(())
    }

    fn open_file(path: &Path) -> Result<Connection, crate::sql::Error> {
        let connection = rusqlite::Connection::open(path)?;
        // A power cut may lose all of it, which does no harm. Savepoints need a journal.
        connection.pragma_update(None, "journal_mode", "memory")?;
        connection.pragma_update(None, "synchronous", "off")?;
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(256);
        let page_bytes: u64 = connection
            .query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0))?
            .into();
        connection.pragma_update(None, "max_page_count", (BYTES_MAX / page_bytes.max(1)) as i64)?;
        Ok(connection.into())
    }

    fn fill(file: File, adoption: &Adoption, sources: &[String]) -> Result<Self, ScratchError> {
        let mut connection = Self::open_file(&file.0)?;
        let plugin = adopt(&mut connection, adoption, Layout::Indexes).map_err(|error| match error {
            CatalogError::Refused(reasons) => ScratchError::Tables(reasons),
            CatalogError::Sqlite(error) => error.into(),
        })?;
        let mut origins = BTreeMap::new();
        for source in sources {
            let begun = begin_epoch(
                &mut connection,
                &Held::default(),
                &NewEpoch {
                    plugin: adoption.manifest.name.to_string(),
                    source: source.clone(),
                    stream: None,
                    stream_created_ns: None,
                    after: 0,
                    anchors: Vec::new(),
                    reason: "scratch database".to_owned(),
                    at: adoption.at,
                },
            )?;
            // A scratch database has no leases.
            let begun = begun.ok_or(crate::sql::Error::NoRows)?;
            origins.insert(source.clone(), (begun.origin, 0));
        }
        Ok(Self {
            connection,
            plugin,
            origins,
            counts: Counts::default(),
            file,
        })
    }

    /// Writes messages of a source with their outcomes, as the real database does.
    ///
    /// # Errors
    /// See [`ScratchError`]; nothing of the batch is stored then.
    pub fn apply(&mut self, source: &str, entries: Vec<Entry>) -> Result<Counts, ScratchError> {
        let no_source = || ScratchError::NoSource(source.to_owned());
        let (origin, after) = self.origins.get_mut(source).ok_or_else(no_source)?;
        let Some(last) = entries.last() else {
            return Ok(Counts::default());
        };
        let mut commit = Commit {
            origin: *origin,
            stamp: *origin,
            plugin: self.plugin.clone(),
            after: *after,
            through: Mark {
                sequence: last.delivery.sequence,
                ..Mark::BEGINNING
            },
            entries,
            gaps: Vec::new(),
            durable: false,
        };
        let transaction = self.connection.begin()?;
        let applied = match apply(
            &transaction,
            &Held::default(),
            &mut commit,
            Timestamp::now(),
            Isolation::PerMessage,
        ) {
            Ok(applied) => applied,
            // `Isolation::PerMessage` never rejects a batch, and a scratch database has no leases.
            Err(ApplyError::Stale(_) | ApplyError::NotHeld | ApplyError::Refused) => return Err(no_source()),
            Err(ApplyError::Sqlite(error)) => return Err(error.into()),
        };
        transaction.commit()?;
        *after = commit.through.sequence;
        self.counts += applied.counts;
        Ok(applied.counts)
    }

    /// The counts of all messages so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The rejections by the plugin, the host or the database, the most frequent class first.
    ///
    /// # Errors
    /// See [`ScratchError`].
    pub fn rejects(&self) -> Result<Vec<Rejects>, ScratchError> {
        let mut classes = self.connection.prepare(
            "SELECT class, count(*) FROM _lantern_dead_letter GROUP BY class ORDER BY count(*) DESC, class",
        )?;
        let mut reasons = self.connection.prepare(
            "SELECT o.source, d.sequence, d.reason FROM _lantern_dead_letter d
             JOIN _lantern_origin o ON o.id = d.origin WHERE d.class = ?1 ORDER BY d.id LIMIT ?2",
        )?;
        let found = classes.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1).map(from_sql)?))
        })?;
        found
            .map(|class| {
                let (class, rejected) = class?;
                let shown = crate::sql::params![class, REASONS_SHOWN];
                let examples = reasons.query_map(shown, |row| {
                    Ok(RejectExample {
                        source: row.get(0)?,
                        sequence: row.get(1).map(from_sql)?,
                        reason: row.get(2)?,
                    })
                })?;
                let examples = examples.collect::<Result<_, _>>()?;
                Ok(Rejects {
                    class,
                    rejected,
                    examples,
                })
            })
            .collect()
    }

    /// The name of the source with this origin.
    pub(super) fn source_of(&self, origin: OriginId) -> String {
        let found = self.origins.iter().find(|(_, (id, _))| *id == origin);
        found.map(|(name, _)| name.clone()).unwrap_or_default()
    }
}
