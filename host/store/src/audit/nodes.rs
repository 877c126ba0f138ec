//! Which host began an entry of the audit, if several hosts share the database: a host that starts ends the entries that its
//! predecessor began, and not those of hosts that live.

use std::collections::BTreeSet;

use super::AuditId;
use crate::NodeConfig;
use crate::sql::{Connection, Error, Transaction, params};

/// Records that this host began an entry.
pub(super) fn record(transaction: &Transaction<'_>, begun: AuditId, node: &NodeConfig) -> Result<(), Error> {
    transaction
        .prepare_cached("INSERT INTO _lantern_audit_node (id, node) VALUES (?1, ?2)")?
        .execute(params![begun.id, node.id])
        .map(|_| ())
}

/// The entries that other living hosts began.
pub(super) fn in_progress(connection: &Connection, node: &NodeConfig) -> Result<BTreeSet<i64>, Error> {
    let mut statement = connection.prepare(
        "SELECT a.id FROM _lantern_audit_node a JOIN _lantern_node n ON n.id = a.node
         WHERE n.directory <> ?1 AND n.expires_at > clock_timestamp()",
    )?;
    statement
        .query_map([&node.directory], |row| row.get(0))?
        .collect()
}
