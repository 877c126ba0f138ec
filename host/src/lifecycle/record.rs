//! What the host does to plugins by itself (the plugin directory, the automatic rollback), in the audit beside what
//! operators do. Those are written where they come in, by http.

use super::Inner;
use crate::plugin::Digest;
use crate::store::{AuditEntry, AuditOutcome};

/// Something that the host has done by itself.
pub(super) struct OwnAct<'a> {
    /// As operators' acts are called, such as `plugin.activate`.
    pub(super) action: &'a str,
    pub(super) plugin: &'a str,
    pub(super) digest: Option<Digest>,
    /// Why, and how.
    pub(super) detail: String,
}

impl Inner {
    /// Writes an act of the host to the audit. An act that cannot be written is done all the same, and logged.
    pub(super) async fn record(&self, act: OwnAct<'_>) {
        let entry = AuditEntry {
            actor: AuditEntry::HOST.to_owned(),
            action: act.action.to_owned(),
            plugin: Some(act.plugin.to_owned()),
            digest: act.digest.map(|digest| digest.to_string()),
            outcome: AuditOutcome::Done,
            detail: act.detail,
        };
        if let Err(error) = self.parts.store.append_audit(entry).await {
            tracing::warn!(action = act.action, plugin = act.plugin, %error, "the audit could not be written");
        }
    }
}
