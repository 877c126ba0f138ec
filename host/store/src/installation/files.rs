//! The files of the plugin directory that were installed.

use crate::sql::{Connection, params};

use lantern_model::batch::Timestamp;

/// What the host last did with a file of the plugin directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Its name, without the directory.
    pub file: String,
    /// The digest of the bytes that the host read.
    pub digest: String,
    /// The plugin in the file.
    pub plugin: String,
}

pub(crate) fn files(connection: &Connection) -> Result<Vec<FileRecord>, crate::sql::Error> {
    connection
        .prepare("SELECT file, digest, plugin FROM _lantern_plugin_file ORDER BY file")?
        .query_map([], |row| {
            Ok(FileRecord {
                file: row.get(0)?,
                digest: row.get(1)?,
                plugin: row.get(2)?,
            })
        })?
        .collect()
}

pub(crate) fn record_file(
    connection: &Connection,
    file: &FileRecord,
    at: Timestamp,
) -> Result<(), crate::sql::Error> {
    connection
        .execute(
            "INSERT INTO _lantern_plugin_file (file, digest, plugin, seen_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (file) DO UPDATE SET digest = excluded.digest, plugin = excluded.plugin,
                 seen_at = excluded.seen_at",
            params![file.file, file.digest, file.plugin, at.0],
        )
        .map(|_| ())
}

pub(crate) fn forget_file(connection: &Connection, file: &str) -> Result<(), crate::sql::Error> {
    connection
        .execute("DELETE FROM _lantern_plugin_file WHERE file = ?1", [file])
        .map(|_| ())
}
