//! The requester of a change, and the audit entry that ends in the transaction of the change.

use std::fmt;

use lantern_model::actor::Actor;
use lantern_plugin::Digest;
use lantern_store::{AuditEntry, AuditMark, AuditOutcome};

/// Who requests a change. The API has written the beginning of the audit entry; a part of the host writes a single entry.
#[derive(Clone, Debug)]
pub struct Requester {
    actor: Actor,
    entry: Option<AuditMark>,
}

/// Without the audit entry of an API call.
impl From<&Actor> for Requester {
    fn from(actor: &Actor) -> Self {
        Self {
            actor: actor.clone(),
            entry: None,
        }
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.actor.fmt(f)
    }
}

impl Requester {
    /// The caller of the API. `entry` ends the audit entry of the call.
    pub fn with_entry(actor: &Actor, entry: Option<AuditMark>) -> Self {
        Self {
            entry,
            ..Self::from(actor)
        }
    }

    /// The same requester, for a transaction that another one follows.
    pub(super) fn without_entry(&self) -> Self {
        Self::from(&self.actor)
    }

    /// The mark for the transaction of a change. An API call keeps its action and description, and takes what it does not
    /// know from the arguments. `None` if there is no entry to end.
    pub(super) fn mark<'a>(
        &self,
        action: &str,
        plugin: impl Into<Option<&'a str>>,
        digest: Option<Digest>,
        detail: String,
    ) -> Option<AuditMark> {
        let entry = AuditEntry {
            actor: self.actor.clone(),
            action: action.to_owned(),
            plugin: plugin.into().map(str::to_owned),
            digest: digest.map(|digest| digest.to_string()),
            outcome: AuditOutcome::Done,
            detail,
        };
        match &self.entry {
            Some(begun) => Some(begun.clone().or(entry)),
            None => self.actor.is_host().then(|| entry.into()),
        }
    }
}
