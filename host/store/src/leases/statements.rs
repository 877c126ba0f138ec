//! The statements of the leases. All compare times by the clock of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::orders::Inputs;
use super::view::{Lease, LeaseView, Node, NodeConfig};
use crate::location::application_name;
use crate::sql::{Connection, Error, OptionalExtension, params};
use crate::values::{from_sql, to_sql};
use lantern_model::batch::Timestamp;

/// How long a host keeps its leases without a renewal.
pub const LEASE_TIME: Duration = Duration::from_secs(3);

/// Adds the host. A process that used the same data directory before has ended, because it no longer holds the lock of the
/// directory; its leases are free.
pub(super) fn register(connection: &mut Connection, node: &NodeConfig) -> Result<(), Error> {
    let transaction = connection.begin()?;
    transaction.execute(
        "UPDATE _lantern_lease SET node = NULL, changed_at = ?3 WHERE node IN
             (SELECT id FROM _lantern_node WHERE directory = ?1 AND id <> ?2)",
        params![node.directory, node.id, Timestamp::now().0],
    )?;
    transaction.execute(
        "DELETE FROM _lantern_node WHERE directory = ?1 AND id <> ?2",
        params![node.directory, node.id],
    )?;
    transaction.execute(
        &format!(
            "INSERT INTO _lantern_node (id, directory, name, url, version, started_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, clock_timestamp() + interval '{} ms')
             ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at",
            LEASE_TIME.as_millis()
        ),
        params![
            node.id,
            node.directory,
            node.name,
            node.url,
            env!("CARGO_PKG_VERSION"),
            Timestamp::now().0
        ],
    )?;
    transaction.commit()
}

/// Renews the leases of a host. False if they have expired.
pub(super) fn renew(connection: &Connection, node: &str, inputs: &Inputs) -> Result<bool, Error> {
    let ready = serde_json::to_string(&inputs.ready).map_err(Error::encode)?;
    let renewed = connection
        .prepare_cached(&format!(
            "UPDATE _lantern_node SET expires_at = clock_timestamp() + interval '{} ms', ready = ?2, report = ?3
             WHERE id = ?1 AND expires_at > clock_timestamp()",
            LEASE_TIME.as_millis()
        ))?
        .execute(params![node, ready, inputs.report])?;
    Ok(renewed == 1)
}

/// Reads all hosts and leases.
pub(super) fn read(connection: &Connection, me: &str) -> Result<LeaseView, Error> {
    Ok(LeaseView {
        me: me.to_owned(),
        nodes: read_nodes(connection)?,
        leases: read_leases(connection)?,
        active: read_active(connection)?,
        catalog: read_catalog(connection)?,
        tokens: read_tokens(connection)?,
        problem: None,
        trusted_until: None,
    })
}

fn read_nodes(connection: &Connection) -> Result<BTreeMap<String, Node>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, url, version, started_at, draining, ready, report,
             (extract(epoch FROM clock_timestamp() - expires_at) * 1000)::BIGINT
         FROM _lantern_node",
    )?;
    let nodes = statement.query_map([], |row| {
        let ready: String = row.get(6)?;
        let expired_for_ms: i64 = row.get(8)?;
        let node = Node {
            id: row.get(0)?,
            name: row.get(1)?,
            url: row.get(2)?,
            version: row.get(3)?,
            started_at: row.get(4)?,
            is_alive: expired_for_ms < 0,
            expired_for_ms,
            is_draining: row.get(5)?,
            ready: serde_json::from_str::<BTreeSet<String>>(&ready).map_err(Error::encode)?,
            report: row.get(7)?,
        };
        Ok((node.id.clone(), node))
    })?;
    nodes.collect()
}

fn read_leases(connection: &Connection) -> Result<BTreeMap<String, Lease>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT subject, node, term, changed_at FROM _lantern_lease")?;
    let leases = statement.query_map([], |row| {
        let lease = Lease {
            node: row.get(1)?,
            term: row.get(2).map(from_sql)?,
            changed_at: row.get(3)?,
        };
        Ok((row.get(0)?, lease))
    })?;
    leases.collect()
}

fn read_active(connection: &Connection) -> Result<BTreeSet<String>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT plugin FROM _lantern_installation WHERE active IS NOT NULL")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// A digest of what operators changed: active versions, pauses and settings.
fn read_catalog(connection: &Connection) -> Result<String, Error> {
    let digest: Option<String> = connection
        .prepare_cached(
            "SELECT md5(string_agg(concat_ws('|', plugin, active, paused, paused_by, settings), '/' ORDER BY plugin))
             FROM _lantern_installation",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(digest.unwrap_or_default())
}

/// A digest of the tokens.
fn read_tokens(connection: &Connection) -> Result<String, Error> {
    let digest: Option<String> = connection
        .prepare_cached(
            "SELECT md5(string_agg(concat_ws('|', id, encode(sha256, 'hex'), role, expires_at), '/' ORDER BY id))
             FROM _lantern_token",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(digest.unwrap_or_default())
}

/// Adds the lease of a subject, which no host holds yet.
pub(super) fn add(connection: &Connection, subject: &str) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO _lantern_lease (subject, changed_at) VALUES (?1, ?2) ON CONFLICT (subject) DO NOTHING",
        )?
        .execute(params![subject, Timestamp::now().0])
        .map(|_| ())
}

/// Ends the writing sessions of a host that is no longer alive, which may hold locks.
pub(super) fn terminate(connection: &Connection, node: &str) -> Result<(), Error> {
    connection
        .prepare_cached(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE application_name = ?1 AND usename = current_user",
        )?
        .query_row([application_name(node)], |_| Ok(()))
}

/// Claims a lease that no living host holds. Returns its term; none if another host was faster.
pub(super) fn claim(connection: &Connection, subject: &str, node: &str) -> Result<Option<u64>, Error> {
    connection
        .prepare_cached(
            "UPDATE _lantern_lease SET node = ?2, term = term + 1, changed_at = ?3 WHERE subject = ?1 AND NOT EXISTS
                 (SELECT 1 FROM _lantern_node n WHERE n.id = _lantern_lease.node AND n.expires_at > clock_timestamp())
             RETURNING term",
        )?
        .query_row(params![subject, node, Timestamp::now().0], |row| {
            row.get(0).map(from_sql)
        })
        .optional()
}

/// Releases a lease of this term.
pub(super) fn release(connection: &Connection, subject: &str, node: &str, term: u64) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE _lantern_lease SET node = NULL, changed_at = ?4 WHERE subject = ?1 AND node = ?2 AND term = ?3",
        )?
        .execute(params![subject, node, to_sql(term), Timestamp::now().0])
        .map(|_| ())
}

/// Removes a host and its leases.
pub(super) fn remove(connection: &mut Connection, node: &str) -> Result<(), Error> {
    let transaction = connection.begin()?;
    transaction.execute(
        "UPDATE _lantern_lease SET node = NULL, changed_at = ?2 WHERE node = ?1",
        params![node, Timestamp::now().0],
    )?;
    transaction.execute("DELETE FROM _lantern_node WHERE id = ?1", [node])?;
    transaction.commit()
}

/// Removes hosts that ended long ago without a farewell.
pub(super) fn remove_dead(connection: &Connection) -> Result<(), Error> {
    connection
        .prepare_cached(
            "DELETE FROM _lantern_node WHERE expires_at < clock_timestamp() - interval '1 day'
             AND id NOT IN (SELECT node FROM _lantern_lease WHERE node IS NOT NULL)",
        )?
        .execute([])
        .map(|_| ())
}
