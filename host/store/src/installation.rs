//! The desired state of each plugin: its active and previous version, its pause and its settings. Each change is one
//! transaction on the write connection.

mod files;
mod records;

use crate::sql::{Connection, Transaction, params};

use super::audit::{durable_if, write_mark};
use super::catalog::{Adoption, CatalogError, Layout, adopt, adopt_in};
use super::commit::{Adopted, VersionId};
use super::consumers::{AbandonedConsumer, abandon};
use super::read_error::ReadError;
use super::reader::Reader;
use super::statement::quote_text;
use super::values::to_sql;
use super::{AdoptError, AuditMark, CommitError, Store};
use super::{search, segments};
use lantern_model::batch::Timestamp;
use lantern_model::schema::ManifestDescription;

pub use files::FileRecord;
pub(super) use records::installations;

/// A version that becomes known without running yet.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// Its declaration, digest and contract, and the present time.
    pub adoption: Adoption,
    /// Size of its component.
    pub component_bytes: u64,
    /// Where it came from: a file of the plugin directory, or who sent it.
    pub came_from: String,
    /// Its description of itself.
    pub description: ManifestDescription,
}

/// One version of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its number in this database.
    pub id: VersionId,
    /// The plugin's name.
    pub plugin: String,
    /// Its declared version number.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// The contract's version.
    pub contract: String,
    /// When the host first saw it.
    pub loaded_at: Timestamp,
    /// When it was last activated; none if never.
    pub activated_at: Option<Timestamp>,
    /// Size of its component; none for versions older than the store of components.
    pub component_bytes: Option<u64>,
    /// Where it came from.
    pub came_from: Option<String>,
    /// Why it cannot be loaded, if so.
    pub failed: Option<String>,
    /// Its description of itself; none if an earlier host did not store it.
    pub description: Option<ManifestDescription>,
}

/// The desired state of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The plugin's name.
    pub plugin: String,
    /// The active version; it runs unless the plugin is paused.
    pub active: Option<VersionId>,
    /// The previously active version.
    pub previous: Option<VersionId>,
    /// What paused it and why; none if it is not paused.
    pub paused: Option<Pause>,
    /// The operator's settings, as JSON.
    pub settings: String,
    /// All its versions, in the order of arrival.
    pub versions: Vec<VersionRecord>,
}

/// The pause of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// What paused the plugin, which decides what resumes it.
    pub by: PausedBy,
    /// The reason, for people.
    pub reason: String,
}

/// What paused a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PausedBy {
    /// An operator. Only an operator resumes the plugin.
    Operator,
    /// The watcher of the plugin directory, which resumes the plugin when its file returns.
    PluginDirectory,
}

impl PausedBy {
    /// The stored form.
    fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::PluginDirectory => "plugin-directory",
        }
    }

    /// Reads the stored form. An unknown value counts as an operator's pause, which nothing resumes automatically.
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("plugin-directory") => Self::PluginDirectory,
            _ => Self::Operator,
        }
    }
}

impl Installation {
    /// The version with this number.
    pub fn version(&self, id: VersionId) -> Option<&VersionRecord> {
        self.versions.iter().find(|version| version.id == id)
    }

    /// The version with this digest.
    pub fn by_digest(&self, digest: &str) -> Option<&VersionRecord> {
        self.versions.iter().find(|version| version.digest == digest)
    }
}

/// How a version becomes active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// By activation: its tables must fit, whether or not it has run before.
    Activate,
    /// By rollback: nullable columns that were added since remain in the tables and are null in new rows.
    RollBack,
}

/// Changes to the installed plugins.
#[derive(Clone, Copy)]
pub struct Plugins<'a>(pub(super) &'a Store);

impl Store {
    /// Changes to the installed plugins.
    pub fn plugins(&self) -> Plugins<'_> {
        Plugins(self)
    }
}

impl Plugins<'_> {
    /// Makes a version known; nothing of it runs. Writes `mark` if it was not known.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn install(self, arrival: NewVersion, mark: Option<AuditMark>) -> Result<(), CommitError> {
        self.0
            .call(move |connection| install(connection, &arrival, mark.as_ref()))
            .await
    }

    /// Makes a plugin version known and changes its tables to match its declaration.
    ///
    /// # Errors
    /// See [`AdoptError`]; nothing has changed then.
    pub async fn adopt(self, adoption: Adoption) -> Result<Adopted, AdoptError> {
        self.0
            .call_catalog(move |connection| adopt(connection, &adoption, Layout::Segments))
            .await
    }

    /// Makes a version the active one, and changes its tables to match its declaration, in one transaction
    /// with its entry in the audit.
    ///
    /// # Errors
    /// See [`AdoptError`]; nothing has changed then.
    pub async fn activate(
        self,
        adoption: Adoption,
        way: Activation,
        mark: Option<AuditMark>,
    ) -> Result<Adopted, AdoptError> {
        self.0
            .call_catalog(move |connection| activate(connection, &adoption, way, mark.as_ref()))
            .await
    }

    /// Records why a version cannot be loaded, or that it can (`None`).
    ///
    /// # Errors
    /// As for [`Plugins::install`].
    pub async fn set_failed(
        self,
        plugin: &str,
        digest: &str,
        reason: Option<&str>,
    ) -> Result<(), CommitError> {
        let [plugin, digest] = [plugin, digest].map(str::to_owned);
        let reason = reason.map(str::to_owned);
        self.0
            .call(move |connection| set_failed(connection, &plugin, &digest, reason.as_deref()))
            .await
    }

    /// Pauses a plugin, or resumes it (`None`), with its entry in the audit.
    ///
    /// # Errors
    /// As for [`Plugins::install`].
    pub async fn set_paused(
        self,
        plugin: &str,
        pause: Option<Pause>,
        mark: Option<AuditMark>,
    ) -> Result<(), CommitError> {
        let plugin = plugin.to_owned();
        let change = move |connection: &Transaction<'_>| {
            set_paused(connection, &plugin, pause.as_ref(), Timestamp::now())
        };
        self.0.change(mark, change, |()| Some(String::new())).await
    }

    /// Stores the operator's settings for a plugin, as JSON, with their entry in the audit.
    ///
    /// # Errors
    /// As for [`Plugins::install`].
    pub async fn set_settings(
        self,
        plugin: &str,
        settings: String,
        mark: Option<AuditMark>,
    ) -> Result<(), CommitError> {
        let plugin = plugin.to_owned();
        let change = move |connection: &Transaction<'_>| {
            set_settings(connection, &plugin, &settings, Timestamp::now())
        };
        self.0.change(mark, change, |()| Some(String::new())).await
    }

    /// Removes a plugin, with or without its tables, and records that its `consumers` have to be deleted, with its entry
    /// in the audit. Returns the names of the dropped tables.
    ///
    /// # Errors
    /// As for [`Plugins::install`].
    pub async fn remove(
        self,
        plugin: &str,
        drop_tables: bool,
        consumers: Vec<AbandonedConsumer>,
        mark: Option<AuditMark>,
    ) -> Result<Vec<String>, CommitError> {
        let plugin = plugin.to_owned();
        let change = move |connection: &Transaction<'_>| remove(connection, &plugin, drop_tables, &consumers);
        let describe = |dropped: &Vec<String>| {
            let names = dropped.join(", ");
            Some(if names.is_empty() {
                names
            } else {
                format!("dropped tables {names}")
            })
        };
        self.0.change(mark, change, describe).await
    }

    /// Records what the host did with a file of the plugin directory.
    ///
    /// # Errors
    /// As for [`Plugins::install`].
    pub async fn record_file(self, file: FileRecord) -> Result<(), CommitError> {
        self.0
            .call(move |connection| files::record_file(connection, &file, Timestamp::now()))
            .await
    }

    /// Removes the record of a file that is gone from the plugin directory.
    ///
    /// # Errors
    /// As for [`Plugins::install`].
    pub async fn forget_file(self, file: &str) -> Result<(), CommitError> {
        let file = file.to_owned();
        self.0
            .call(move |connection| files::forget_file(connection, &file))
            .await
    }
}

impl Reader {
    /// All installed plugins, by name.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn installations(&self) -> Result<Vec<Installation>, ReadError> {
        self.snapshot(|connection| Ok(installations(connection)?)).await
    }

    /// All files of the plugin directory that the host has recorded.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn plugin_files(&self) -> Result<Vec<FileRecord>, ReadError> {
        self.snapshot(|connection| Ok(files::files(connection)?)).await
    }
}

/// If the version is known, only updates its size and description.
pub(super) fn install(
    connection: &mut Connection,
    arrival: &NewVersion,
    mark: Option<&AuditMark>,
) -> Result<(), crate::sql::Error> {
    durable_if(connection, mark)?;
    let transaction = connection.begin()?;
    let Adoption {
        manifest,
        digest,
        contract,
        at,
    } = &arrival.adoption;
    let known: bool = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_plugin WHERE name = ?1 AND digest = ?2)",
        [manifest.name.as_str(), digest],
        |row| row.get(0),
    )?;
    let description = serde_json::to_string(&arrival.description).map_err(crate::sql::Error::encode)?;
    transaction.execute(
        "INSERT INTO _lantern_plugin (name, version, digest, contract, loaded_at, component_bytes, came_from,
             description)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (name, digest) DO UPDATE SET component_bytes = excluded.component_bytes,
             came_from = coalesce(_lantern_plugin.came_from, excluded.came_from), description = excluded.description",
        params![
            manifest.name.as_str(),
            manifest.version.to_string(),
            digest,
            contract,
            at.0,
            to_sql(arrival.component_bytes),
            arrival.came_from,
            description,
        ],
    )?;
    ensure(&transaction, manifest.name.as_str(), *at)?;
    write_mark(&transaction, mark.filter(|_| !known))?;
    transaction.commit()
}

pub(super) fn activate(
    connection: &mut Connection,
    adoption: &Adoption,
    way: Activation,
    mark: Option<&AuditMark>,
) -> Result<Adopted, CatalogError> {
    durable_if(connection, mark)?;
    let transaction = connection.begin()?;
    let adopted = adopt_in(
        &transaction,
        adoption,
        way == Activation::RollBack,
        Layout::Segments,
    )?;
    let name = adoption.manifest.name.as_str();
    ensure(&transaction, name, adoption.at)?;
    transaction.execute(
        "UPDATE _lantern_installation SET active = ?2, changed_at = ?3,
             previous = CASE WHEN active IS DISTINCT FROM ?2 THEN active ELSE previous END
         WHERE plugin = ?1",
        params![name, adopted.version.0, adoption.at.0],
    )?;
    transaction.execute(
        "UPDATE _lantern_plugin SET activated_at = ?2, failed = NULL WHERE id = ?1",
        params![adopted.version.0, adoption.at.0],
    )?;
    write_mark(&transaction, mark)?;
    transaction.commit()?;
    Ok(adopted)
}

fn ensure(transaction: &Transaction<'_>, plugin: &str, at: Timestamp) -> Result<(), crate::sql::Error> {
    transaction
        .execute(
            "INSERT INTO _lantern_installation (plugin, changed_at) VALUES (?1, ?2)
             ON CONFLICT (plugin) DO NOTHING",
            params![plugin, at.0],
        )
        .map(|_| ())
}

pub(super) fn set_failed(
    connection: &Connection,
    plugin: &str,
    digest: &str,
    reason: Option<&str>,
) -> Result<(), crate::sql::Error> {
    connection
        .execute(
            "UPDATE _lantern_plugin SET failed = ?3 WHERE name = ?1 AND digest = ?2",
            params![plugin, digest, reason],
        )
        .map(|_| ())
}

pub(super) fn set_paused(
    connection: &Connection,
    plugin: &str,
    pause: Option<&Pause>,
    at: Timestamp,
) -> Result<(), crate::sql::Error> {
    let (reason, by) = pause
        .map(|pause| (pause.reason.as_str(), pause.by.as_str()))
        .unzip();
    connection
        .execute(
            "UPDATE _lantern_installation SET paused = ?2, paused_by = ?3, changed_at = ?4 WHERE plugin = ?1",
            params![plugin, reason, by, at.0],
        )
        .map(|_| ())
}

pub(super) fn set_settings(
    connection: &Connection,
    plugin: &str,
    settings: &str,
    at: Timestamp,
) -> Result<(), crate::sql::Error> {
    connection
        .execute(
            "INSERT INTO _lantern_installation (plugin, settings, changed_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (plugin) DO UPDATE SET settings = excluded.settings, changed_at = excluded.changed_at",
            params![plugin, settings, at.0],
        )
        .map(|_| ())
}

/// Removes a plugin. Its tables, ledger and checkpoints remain, so that a later installation continues where it
/// stopped, unless `drop_tables` removes them too. The records of its files remain, or the files would install it again
/// at the next start.
///
/// Returns the names of the dropped tables.
pub(super) fn remove(
    transaction: &Transaction<'_>,
    plugin: &str,
    drop_tables: bool,
    consumers: &[AbandonedConsumer],
) -> Result<Vec<String>, crate::sql::Error> {
    transaction.execute("DELETE FROM _lantern_installation WHERE plugin = ?1", [plugin])?;
    abandon(transaction, consumers, Timestamp::now())?;
    let mut dropped = Vec::new();
    if drop_tables {
        dropped = transaction
            .prepare("SELECT name FROM _lantern_table WHERE plugin = ?1 ORDER BY name")?
            .query_map([plugin], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        for table in &dropped {
            search::disable(transaction, table)?;
            drop_table(transaction, table)?;
            // Tables that a rebuild replaced keep the names of their indexes.
            for replaced in tables_of_rebuilds(transaction, table)? {
                search::retire(transaction, &replaced)?;
                drop_table(transaction, &replaced)?;
            }
        }
        forget_origins(transaction, plugin)?;
        transaction.execute("DELETE FROM _lantern_table WHERE plugin = ?1", [plugin])?;
        transaction.execute("DELETE FROM _lantern_rebuild WHERE plugin = ?1", [plugin])?;
        transaction.execute("DELETE FROM _lantern_plugin WHERE name = ?1", [plugin])?;
    }
    Ok(dropped)
}

fn drop_table(transaction: &Transaction<'_>, table: &str) -> Result<(), crate::sql::Error> {
    transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", quote_text(table)))?;
    segments::drop_segments(transaction, table)
}

/// The tables that rebuilds of this table have filled or replaced.
fn tables_of_rebuilds(transaction: &Transaction<'_>, table: &str) -> Result<Vec<String>, crate::sql::Error> {
    transaction
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND instr(name, ?1 || '#') = 1")?
        .query_map([table], |row| row.get(0))?
        .collect()
}

/// Removes everything that refers to an origin: checkpoints, ledger, gaps, dead letters, and the origins.
pub(super) fn forget_origins(transaction: &Transaction<'_>, plugin: &str) -> Result<(), crate::sql::Error> {
    for table in ["ledger", "gap", "dead_letter", "checkpoint"] {
        transaction.execute(
            &format!(
                "DELETE FROM _lantern_{table} WHERE origin IN (SELECT id FROM _lantern_origin WHERE plugin = ?1)"
            ),
            [plugin],
        )?;
    }
    transaction
        .execute("DELETE FROM _lantern_origin WHERE plugin = ?1", [plugin])
        .map(|_| ())
}
