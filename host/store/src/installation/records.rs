//! Reads the installed plugins and their versions.

use crate::sql::{Connection, Row};

use super::{Installation, Pause, PausedBy, VersionRecord};
use crate::commit::VersionId;
use crate::values::from_sql;
use lantern_model::batch::Timestamp;

pub(crate) fn installations(connection: &Connection) -> Result<Vec<Installation>, crate::sql::Error> {
    let mut all: Vec<Installation> = connection
        .prepare(
            "SELECT plugin, active, previous, paused, paused_by, settings FROM _lantern_installation ORDER BY plugin",
        )?
        .query_map([], |row| {
            Ok(Installation {
                plugin: row.get(0)?,
                active: row.get::<_, Option<i64>>(1)?.map(VersionId),
                previous: row.get::<_, Option<i64>>(2)?.map(VersionId),
                paused: paused(row)?,
                settings: row.get(5)?,
                versions: Vec::new(),
            })
        })?
        .collect::<Result<_, _>>()?;
    for installation in &mut all {
        installation.versions = versions(connection, &installation.plugin)?;
    }
    Ok(all)
}

fn paused(row: &Row<'_>) -> Result<Option<Pause>, crate::sql::Error> {
    let reason: Option<String> = row.get(3)?;
    let by: Option<String> = row.get(4)?;
    Ok(reason.map(|reason| Pause {
        by: PausedBy::parse(by.as_deref()),
        reason,
    }))
}

/// All versions of a plugin, in the order of arrival; also of a removed plugin that left its tables.
fn versions(connection: &Connection, plugin: &str) -> Result<Vec<VersionRecord>, crate::sql::Error> {
    connection
        .prepare(
            "SELECT id, name, version, digest, contract, loaded_at, activated_at, component_bytes, came_from, failed,
                    description
             FROM _lantern_plugin WHERE name = ?1 ORDER BY id",
        )?
        .query_map([plugin], version_record)?
        .collect()
}

fn version_record(row: &Row<'_>) -> Result<VersionRecord, crate::sql::Error> {
    Ok(VersionRecord {
        id: VersionId(row.get(0)?),
        plugin: row.get(1)?,
        version: row.get(2)?,
        digest: row.get(3)?,
        contract: row.get(4)?,
        loaded_at: Timestamp(row.get(5)?),
        activated_at: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        component_bytes: row.get::<_, Option<i64>>(7)?.map(from_sql),
        came_from: row.get(8)?,
        failed: row.get(9)?,
        // A description that a newer host wrote and this one cannot parse counts as missing: it is only displayed.
        description: row
            .get::<_, Option<String>>(10)?
            .and_then(|text| serde_json::from_str(&text).ok()),
    })
}
