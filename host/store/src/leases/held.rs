//! The leases that the writer compares in each transaction.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sql::{Connection, Error, OptionalExtension, params};
use crate::values::to_sql;

/// The leases that the writer compares; none if the database has only one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<Option<HeldLeases>>>);

#[derive(Debug)]
struct HeldLeases {
    node: String,
    terms: BTreeMap<String, u64>,
}

impl Held {
    pub(super) fn set(&self, node: &str, terms: BTreeMap<String, u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(HeldLeases {
            node: node.to_owned(),
            terms,
        });
    }

    /// Whether this host holds the lease of a plugin. Locks the lease until the transaction ends, so that no other host can
    /// claim it before.
    pub(crate) fn verify(&self, connection: &Connection, plugin: &str) -> Result<bool, Error> {
        let (node, term) = match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => return Ok(true),
            Some(held) => match held.terms.get(plugin) {
                None => return Ok(false),
                Some(term) => (held.node.clone(), *term),
            },
        };
        let found = connection
            .prepare_cached(
                "SELECT 1 FROM _lantern_lease WHERE subject = ?1 AND node = ?2 AND term = ?3 FOR SHARE",
            )?
            .query_row(params![plugin, node, to_sql(term)], |_| Ok(()))
            .optional()?;
        Ok(found.is_some())
    }
}
