//! Changes of plugins: install, activate, roll back, pause, resume, take over consumers, remove.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::SIGNATURE_HEADER;
use crate::change::{AuditNote, OfPlugin, OptionalInput};
use crate::gate::Operator;
use crate::parameters::Parameters;
use crate::problem::Problem;
use crate::state::State;
use crate::views;
use lantern_api::{
    Activate, ChangedVersion, Pause, PluginSummary, Removed, TakeOverOutcome, TakenOver, VersionState,
};
use lantern_lifecycle::{Component, InstallError, Installed, Removal};
use lantern_model::batch::clean_text;
use lantern_model::schema::difference::Effect;
use lantern_store::RetryTotals;
use lantern_trust::signature::SIGNATURE_BYTES_MAX;

/// Maximum time that a client waits for an installation: another component may be compiled first, each within half a
/// minute.
pub const INSTALL_TIME: Duration = Duration::from_secs(120);

/// Maximum length of a pause reason in bytes.
const REASON_BYTES_MAX: usize = 200;

pub async fn install(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    note: AuditNote,
    headers: HeaderMap,
    uri: Uri,
    component: Bytes,
) -> Result<(StatusCode, Json<ChangedVersion>), Problem> {
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
    let by = note.requester(&by);
    let installed = if activate {
        let done = state.lifecycle.install_and_activate(component, by).await;
        done.map_err(|error| not_installed(error, &note))?
    } else {
        let done = state.lifecycle.install(component, by).await;
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
) -> Result<Json<ChangedVersion>, Problem> {
    let digest = match &activate.digest {
        Some(text) => Some(state.lifecycle.resolve_version(plugin.as_str(), text).await?),
        None => None,
    };
    if let Some(digest) = digest {
        note.digest(digest);
    }
    let by = note.requester(&by);
    let done = state.lifecycle.activate(plugin.as_str(), digest, by).await?;
    Ok(activation_response(&note, done))
}

pub async fn rollback(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
) -> Result<Json<ChangedVersion>, Problem> {
    let done = state
        .lifecycle
        .rollback(plugin.as_str(), note.requester(&by))
        .await?;
    Ok(activation_response(&note, done))
}

pub async fn pause(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    OptionalInput(pause): OptionalInput<Pause>,
) -> Result<Json<PluginSummary>, Problem> {
    let given = clean_text(pause.reason.as_deref().unwrap_or_default(), REASON_BYTES_MAX);
    let reason = match given.trim() {
        "" => format!("no reason given (by {by})"),
        given => format!("{given} (by {by})"),
    };
    note.detail(&reason);
    let by = note.requester(&by);
    state.lifecycle.pause(plugin.as_str(), &reason, by).await?;
    Ok(Json(state.lifecycle.show(plugin.as_str()).await?))
}

pub async fn resume(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
) -> Result<Json<PluginSummary>, Problem> {
    let by = note.requester(&by);
    state.lifecycle.resume(plugin.as_str(), by).await?;
    Ok(Json(state.lifecycle.show(plugin.as_str()).await?))
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
        .remove(plugin.as_str(), tables == "drop", note.requester(&by))
        .await?;
    Ok(Json(Removed {
        plugin: plugin.to_string(),
        dropped,
        consumers_left,
    }))
}

/// The response to an activation, and the detail of its audit entry.
fn activation_response(note: &AuditNote, done: Installed) -> Json<ChangedVersion> {
    let retried = done.retried;
    note.digest(done.digest);
    note.detail(format!("version {}{}", done.version, describe_retries(retried)));
    Json(version_view(done, Some(retried)))
}

fn describe_retries(totals: RetryTotals) -> String {
    match totals.tried {
        0 => String::new(),
        tried => format!("; {} of {tried} dead letters resolved", totals.resolved),
    }
}

fn version_view(installed: Installed, retried: Option<RetryTotals>) -> ChangedVersion {
    let Installed {
        plugin,
        version,
        digest,
        state,
        signature,
        from,
        mut differences,
        retry_continues,
        restored,
        ..
    } = installed;
    // Only a rollback activates a version that does not know all columns.
    let is_active = matches!(state, VersionState::Active | VersionState::Paused);
    for difference in differences.iter_mut().filter(|_| is_active) {
        if difference.effect == Effect::NeedsRebuild {
            difference.effect = Effect::None;
            difference.change.push_str(match restored {
                Some(_) => "; the rollback restored the tables from before the rebuild",
                None => "; it stays in the table, and new rows have null there",
            });
        }
    }
    ChangedVersion {
        plugin,
        version,
        digest: digest.to_string(),
        state,
        signature,
        from,
        effect: Effect::of(&differences),
        differences,
        retry: retried.map(views::retry_totals),
        retry_continues,
        restored,
    }
}
