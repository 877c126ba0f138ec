//! Changes of plugins: install, activate, roll back, pause, resume, take over consumers, remove.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::SIGNATURE_HEADER;
use crate::change::{AuditNote, OfPlugin, OptionalInput};
use crate::gate::Operator;
use crate::parameters::Parameters;
use crate::problem::Problem;
use crate::state::State;
use lantern_api::{Activate, Pause};
use lantern_lifecycle::{
    Component, ConsumerLeft, ConsumerTakenOver, InstallError, Installed, PluginView, Removal,
    TakeOverOutcome, VersionState,
};
use lantern_model::batch::clean_text;
use lantern_model::schema::difference::{Difference, Effect};
use lantern_store::RetryTotals;
use lantern_trust::signature::{SIGNATURE_BYTES_MAX, SignatureView};

/// Maximum time that a client waits for an installation: another component may be compiled first, each within half a
/// minute.
pub const INSTALL_TIME: Duration = Duration::from_secs(120);

/// Maximum length of a pause reason in bytes.
const REASON_BYTES_MAX: usize = 200;

/// A version that was installed or activated.
#[derive(Serialize, ToSchema)]
pub struct Taken {
    /// Plugin.
    plugin: String,
    /// Version number that the plugin declares.
    version: String,
    /// `sha256:` and 64 hex digits.
    digest: String,
    /// State of the version.
    state: VersionState,
    /// Signature of the component.
    signature: SignatureView,
    /// Digest of the previously active version, with which it is compared; null if none was active.
    from: Option<String>,
    /// Combined effect of the differences.
    effect: Effect,
    /// Differences from the previously active version.
    differences: Vec<Difference>,
    /// Result of retrying open dead letters on activation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    healed: Option<RetryTotals>,
    /// Rebuild whose replaced tables a rollback restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    restored: Option<i64>,
}

pub async fn install(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    note: AuditNote,
    headers: HeaderMap,
    uri: Uri,
    component: Bytes,
) -> Result<(StatusCode, Json<Taken>), Problem> {
    let parameters = Parameters::parse(&uri, &["activate"])?;
    let activate = parameters.choice("activate", &["true", "false"])? == Some("true");
    if component.is_empty() {
        return Err(Problem::bad_request(
            "the body is empty; it must be the component",
        ));
    }
    let component = Component {
        signature: signature(&headers)?,
        bytes: component.into(),
    };
    let installed = if activate {
        let done = state.lifecycle.install_and_activate(component, &by).await;
        done.map_err(|error| not_installed(error, &note))?
    } else {
        let done = state.lifecycle.install(component, &by).await;
        done.map_err(|error| not_installed(error.into(), &note))?
    };
    let retried = activate.then_some(installed.retried);
    note.plugin(&installed.plugin);
    note.digest(installed.digest);
    note.detail(match retried {
        Some(retried) => format!(
            "version {}, activated{}",
            installed.version,
            describe_retries(retried)
        ),
        None => format!("version {}", installed.version),
    });
    Ok((StatusCode::CREATED, Json(version_view(installed, retried))))
}

/// The response to a failed installation, and what its audit entry names.
fn not_installed(error: InstallError, note: &AuditNote) -> Problem {
    match error {
        InstallError::NotInstalled(error) => {
            // Nothing else is known about a rejected component.
            if let Some(digest) = error.unsigned() {
                note.digest(digest);
            }
            error.into()
        }
        InstallError::NotActivated {
            plugin,
            version,
            digest,
            source,
        } => {
            note.plugin(plugin);
            note.digest(digest);
            note.detail(format!("version {version}"));
            Problem::from(source).after("the version was installed but not activated")
        }
    }
}

/// The signature in the request header.
fn signature(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Problem> {
    let Some(value) = headers.get(SIGNATURE_HEADER) else {
        return Ok(None);
    };
    match STANDARD.decode(value.as_bytes()) {
        Ok(signature) if signature.len() <= SIGNATURE_BYTES_MAX => Ok(Some(signature)),
        _ => Err(Problem::bad_request(format!(
            "the header Lantern-Signature must be the .minisig file of the component in base64, at most \
             {SIGNATURE_BYTES_MAX} bytes"
        ))),
    }
}

pub async fn activate(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    OptionalInput(activate): OptionalInput<Activate>,
) -> Result<Json<Taken>, Problem> {
    let digest = match &activate.digest {
        Some(text) => Some(state.lifecycle.resolve_version(plugin.as_str(), text).await?),
        None => None,
    };
    if let Some(digest) = digest {
        note.digest(digest);
    }
    let done = state.lifecycle.activate(plugin.as_str(), digest, &by).await?;
    Ok(activation_response(&note, done))
}

pub async fn rollback(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
) -> Result<Json<Taken>, Problem> {
    let done = state.lifecycle.rollback(plugin.as_str(), &by).await?;
    Ok(activation_response(&note, done))
}

pub async fn pause(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    OptionalInput(pause): OptionalInput<Pause>,
) -> Result<Json<PluginView>, Problem> {
    let given = clean_text(pause.reason.as_deref().unwrap_or_default(), REASON_BYTES_MAX);
    let reason = match given.trim() {
        "" => format!("no reason given (by {by})"),
        given => format!("{given} (by {by})"),
    };
    note.detail(&reason);
    state.lifecycle.pause(plugin.as_str(), &reason, &by).await?;
    Ok(Json(state.lifecycle.show(plugin.as_str()).await?))
}

pub async fn resume(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
) -> Result<Json<PluginView>, Problem> {
    state.lifecycle.resume(plugin.as_str(), &by).await?;
    Ok(Json(state.lifecycle.show(plugin.as_str()).await?))
}

/// Result of taking over the consumers of a plugin.
#[derive(Serialize, ToSchema)]
pub struct TakenOver {
    /// Plugin.
    plugin: String,
    /// Consumers of the plugin.
    consumers: Vec<ConsumerTakenOver>,
}

pub async fn take_over(
    extract::State(state): extract::State<State>,
    Operator(_): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
) -> Result<Json<TakenOver>, Problem> {
    let consumers = state.lifecycle.take_over(plugin.as_str()).await?;
    let taken_over = consumers
        .iter()
        .filter(|one| one.outcome == TakeOverOutcome::TakenOver);
    let owned: Vec<String> = taken_over
        .map(|one| {
            let before = one.before.as_deref().unwrap_or("no host");
            format!("consumer {} of stream {} from {before}", one.consumer, one.stream)
        })
        .collect();
    note.detail(owned.join(", "));
    Ok(Json(TakenOver {
        plugin: plugin.to_string(),
        consumers,
    }))
}

/// A removed plugin.
#[derive(Serialize, ToSchema)]
pub struct Removed {
    /// Plugin.
    plugin: String,
    /// Dropped tables.
    dropped: Vec<String>,
    /// Consumers that still exist because the broker was unreachable or rejected the deletion. The host retries until
    /// they are deleted, also after a restart.
    consumers_left: Vec<ConsumerLeft>,
}

pub async fn remove(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    uri: Uri,
) -> Result<Json<Removed>, Problem> {
    let parameters = Parameters::parse(&uri, &["tables"])?;
    let tables = parameters.choice("tables", &["keep", "drop"])?;
    let tables =
        tables.ok_or_else(|| Problem::bad_request("tables is required: tables=keep or tables=drop"))?;
    note.detail(format!("tables={tables}"));
    let Removal {
        dropped,
        consumers_left,
    } = state
        .lifecycle
        .remove(plugin.as_str(), tables == "drop", &by)
        .await?;
    if !dropped.is_empty() {
        note.detail(format!("dropped tables {}", dropped.join(", ")));
    }
    Ok(Json(Removed {
        plugin: plugin.to_string(),
        dropped,
        consumers_left,
    }))
}

/// The response to an activation, and the detail of its audit entry.
fn activation_response(note: &AuditNote, done: Installed) -> Json<Taken> {
    let healed = done.retried;
    note.digest(done.digest);
    note.detail(format!("version {}{}", done.version, describe_retries(healed)));
    Json(version_view(done, Some(healed)))
}

fn describe_retries(healed: RetryTotals) -> String {
    match healed.tried {
        0 => String::new(),
        tried => format!("; {} of {tried} dead letters resolved", healed.resolved),
    }
}

fn version_view(installed: Installed, healed: Option<RetryTotals>) -> Taken {
    let Installed {
        plugin,
        version,
        digest,
        state,
        signature,
        from,
        mut differences,
        restored,
        ..
    } = installed;
    // Only a rollback activates a version that does not know all columns.
    let is_active = matches!(state, VersionState::Active | VersionState::Paused);
    for difference in differences.iter_mut().filter(|_| is_active) {
        if difference.effect == Effect::NeedsRebuild {
            difference.effect = Effect::None;
            difference.words.push_str(match restored {
                Some(_) => "; the rollback restored the tables from before the rebuild",
                None => "; it stays in the table, and new rows have null there",
            });
        }
    }
    Taken {
        plugin,
        version,
        digest: digest.to_string(),
        state,
        signature,
        from,
        effect: Effect::of(&differences),
        differences,
        healed,
        restored,
    }
}
