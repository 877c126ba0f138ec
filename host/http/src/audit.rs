//! Lists audit entries.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::parameters::Parameters;
use super::problem::Problem;
use super::records::{List, after};
use super::state::State;
use lantern_model::batch::Timestamp;
use lantern_model::schema::PluginName;
use lantern_store::AuditOutcome;
use lantern_store::reader::{AuditFilter, AuditRecord};

/// An entry of the audit.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Entry {
    /// Identifier.
    id: i64,
    /// Time of the end, or of the start if the change has not ended (RFC 3339).
    at: String,
    /// Start time of a change that has ended (RFC 3339).
    began_at: Option<String>,
    /// Name of the token; an internal actor such as `(automatic rollback)`, `(plugin directory)`, `(rebuild)` or `(host)`; or
    /// `(nobody)`.
    actor: String,
    /// Action, as `noun.verb`.
    action: String,
    /// Affected plugin.
    plugin: Option<String>,
    /// Digest of the affected version.
    digest: Option<String>,
    /// Outcome.
    #[schema(value_type = AuditOutcome)]
    outcome: String,
    /// What changed, or why not, for people. The request, for a change that has not ended.
    detail: String,
    /// SHA-256 of this entry and all earlier entries, in hexadecimal. `lantern check --audit-head` verifies that it is still
    /// part of the audit.
    hash: Option<String>,
}

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<List<Entry>>, Problem> {
    let parameters = Parameters::parse(&uri, &["plugin", "actor", "action", "limit", "cursor"])?;
    let filter = AuditFilter {
        plugin: parameters
            .parsed("plugin", PluginName::parse)?
            .map(|name| name.to_string()),
        actor: parameters.get("actor").map(str::to_owned),
        action: parameters.get("action").map(str::to_owned),
    };
    let page = state
        .reader
        .audit(&filter, parameters.limit()?, after(&parameters, "audit")?)
        .await?;
    Ok(List::of("audit", page, view))
}

fn view(entry: AuditRecord) -> Entry {
    Entry {
        id: entry.id,
        at: entry.at.to_rfc3339(),
        actor: entry.actor,
        action: entry.action,
        plugin: entry.plugin,
        digest: entry.digest,
        outcome: entry.outcome,
        detail: entry.detail,
        began_at: entry.began_at.map(Timestamp::to_rfc3339),
        hash: entry.hash.map(|hash| hash.to_string()),
    }
}
