//! What changes the plugins of the host: a version comes, is made to run, goes; a plugin pauses, goes on, is removed.

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
    Actor, Component, ConsumerLeft, ConsumerTakenOver, Installed, LifecycleError, PluginView, Removal,
    TakeOverOutcome, VersionState,
};
use lantern_model::batch::clean_text;
use lantern_model::schema::difference::{Difference, Effect};
use lantern_store::Healed;
use lantern_trust::signature::{SIGNATURE_BYTES_MAX, SignatureView, Verdict};

/// How long a client waits for its component: another one may be compiled before it, and each has half a minute.
pub const INSTALL_TIME: Duration = Duration::from_secs(120);

/// Longest reason for a pause, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// A version that came, or that was made to run.
#[derive(Serialize, ToSchema)]
pub struct Taken {
    /// The plugin.
    plugin: String,
    /// The version that it says it is.
    version: String,
    /// `sha256:` and 64 hex digits.
    digest: String,
    /// Where it is in its life now.
    state: VersionState,
    /// What is known of its signature.
    signature: SignatureView,
    /// The digest of the version that ran before, which it is compared with; none where none ran.
    from: Option<String>,
    /// What the differences cost together.
    effect: Effect,
    /// In what it differs from the version before.
    differences: Vec<Difference>,
    /// What came of the open dead letters, when it was made to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    healed: Option<Healed>,
    /// The rebuild whose replaced tables are in use again, where a rollback went back to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    restored: Option<i64>,
}

pub async fn install(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    note: AuditNote,
    headers: HeaderMap,
    uri: Uri,
    component: Bytes,
) -> Result<(StatusCode, Json<Taken>), Problem> {
    let parameters = Parameters::parse(&uri, &["activate"])?;
    let activate = parameters.choice("activate", &["true", "false"])? == Some("true");
    if component.is_empty() {
        return Err(Problem::bad_request("the body is the component, and it is empty"));
    }
    let by = Actor(operator.name);
    let component = Component {
        signature: signature(&headers)?,
        bytes: component.into(),
    };
    let installed = state
        .lifecycle
        .install(component, &by)
        .await
        .inspect_err(|error| {
            // Nothing else is known of what was refused.
            if let Some(digest) = error.unsigned() {
                note.digest(digest);
            }
        })?;
    let Installed { plugin, digest, .. } = &installed;
    note.plugin(plugin);
    note.digest(digest);
    note.detail(format!("version {}", installed.version));
    let before = active(&state, plugin).await?;
    let (plugin, digest) = (plugin.clone(), *digest);
    let taken = if activate {
        let done = state.lifecycle.activate(&plugin, Some(digest), &by).await;
        let installed =
            done.map_err(|error| Problem::from(error).after("it is installed, and cannot be made to run"))?;
        let healed = installed.retried;
        note.detail(format!(
            "version {}, activated{}",
            installed.version,
            in_words(healed)
        ));
        taken(&state, installed, before, Some(healed)).await?
    } else {
        taken(&state, installed, before, None).await?
    };
    Ok((StatusCode::CREATED, Json(taken)))
}

/// The signature that was sent along.
fn signature(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Problem> {
    let Some(value) = headers.get(SIGNATURE_HEADER) else {
        return Ok(None);
    };
    match STANDARD.decode(value.as_bytes()) {
        Ok(signature) if signature.len() <= SIGNATURE_BYTES_MAX => Ok(Some(signature)),
        _ => Err(Problem::bad_request(format!(
            "the header Lantern-Signature has to be the component's .minisig file in base64, which has at most \
             {SIGNATURE_BYTES_MAX} bytes"
        ))),
    }
}

pub async fn activate(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    OptionalInput(asked): OptionalInput<Activate>,
) -> Result<Json<Taken>, Problem> {
    let digest = match &asked.digest {
        Some(text) => Some(state.lifecycle.resolve_version(plugin.as_str(), text).await?),
        None => None,
    };
    if let Some(digest) = digest {
        note.digest(digest);
    }
    let before = active(&state, plugin.as_str()).await?;
    let by = Actor(operator.name);
    let done = state.lifecycle.activate(plugin.as_str(), digest, &by).await?;
    now_runs(&state, &note, done, before).await
}

pub async fn rollback(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
) -> Result<Json<Taken>, Problem> {
    let before = active(&state, plugin.as_str()).await?;
    let by = Actor(operator.name);
    let done = state.lifecycle.rollback(plugin.as_str(), &by).await?;
    now_runs(&state, &note, done, before).await
}

pub async fn pause(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    OptionalInput(asked): OptionalInput<Pause>,
) -> Result<Json<PluginView>, Problem> {
    let given = clean_text(asked.reason.as_deref().unwrap_or_default(), REASON_BYTES_MAX);
    let by = Actor(operator.name);
    let reason = match given.trim() {
        "" => format!("no reason given (by {})", by.0),
        given => format!("{given} (by {})", by.0),
    };
    note.detail(&reason);
    state.lifecycle.pause(plugin.as_str(), &reason, &by).await?;
    Ok(Json(state.lifecycle.show(plugin.as_str()).await?))
}

pub async fn resume(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    OfPlugin(plugin): OfPlugin,
) -> Result<Json<PluginView>, Problem> {
    let by = Actor(operator.name);
    state.lifecycle.resume(plugin.as_str(), &by).await?;
    Ok(Json(state.lifecycle.show(plugin.as_str()).await?))
}

/// The consumers of a plugin whose owner is this host now.
#[derive(Serialize, ToSchema)]
pub struct TakenOver {
    /// The plugin.
    plugin: String,
    /// Its consumers on the broker.
    consumers: Vec<ConsumerTakenOver>,
}

pub async fn take_over(
    extract::State(state): extract::State<State>,
    Operator(_): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
) -> Result<Json<TakenOver>, Problem> {
    let consumers = state.lifecycle.take_over(plugin.as_str()).await?;
    let taken = consumers
        .iter()
        .filter(|one| one.outcome == TakeOverOutcome::TakenOver);
    let owned: Vec<String> = taken
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

/// A plugin that is gone.
#[derive(Serialize, ToSchema)]
pub struct Removed {
    /// Its name.
    plugin: String,
    /// The tables that are gone.
    dropped: Vec<String>,
    /// Its consumers that are still on the broker, because it could not be reached or refused. The host deletes them as
    /// soon as it can, also after a restart.
    consumers_left: Vec<ConsumerLeft>,
}

pub async fn remove(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    uri: Uri,
) -> Result<Json<Removed>, Problem> {
    let parameters = Parameters::parse(&uri, &["tables"])?;
    let tables = parameters.choice("tables", &["keep", "drop"])?;
    let tables = tables
        .ok_or_else(|| Problem::bad_request("say what becomes of its tables: tables=keep or tables=drop"))?;
    note.detail(format!("tables={tables}"));
    let by = Actor(operator.name);
    let Removal {
        dropped,
        consumers_left,
    } = state
        .lifecycle
        .remove(plugin.as_str(), tables == "drop", &by)
        .await?;
    if !dropped.is_empty() {
        note.detail(format!("with its tables {}", dropped.join(", ")));
    }
    Ok(Json(Removed {
        plugin: plugin.to_string(),
        dropped,
        consumers_left,
    }))
}

/// The digest of the version that runs.
async fn active(state: &State, plugin: &str) -> Result<Option<String>, LifecycleError> {
    Ok(state.lifecycle.show(plugin).await?.active)
}

/// The answer to what made a version run, and its words for the audit.
async fn now_runs(
    state: &State,
    note: &AuditNote,
    done: Installed,
    before: Option<String>,
) -> Result<Json<Taken>, Problem> {
    let healed = done.retried;
    note.digest(done.digest);
    note.detail(format!("version {}{}", done.version, in_words(healed)));
    Ok(Json(taken(state, done, before, Some(healed)).await?))
}

fn in_words(healed: Healed) -> String {
    match healed.tried {
        0 => String::new(),
        tried => format!("; {} of {tried} dead letters now decode", healed.resolved),
    }
}

async fn taken(
    state: &State,
    installed: Installed,
    before: Option<String>,
    healed: Option<Healed>,
) -> Result<Taken, Problem> {
    let Installed {
        plugin,
        version,
        digest,
        restored,
        ..
    } = installed;
    let mut differences = match before.as_deref().map(str::parse) {
        Some(Ok(before)) => match state.lifecycle.differences(&plugin, before, digest).await {
            Ok(differences) => differences,
            // A version of a host that kept no descriptions: there is nothing to compare with.
            Err(LifecycleError::NoVersion { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        },
        _ => Vec::new(),
    };
    let digest = digest.to_string();
    let view = state.lifecycle.show(&plugin).await?;
    let its_state = view.versions.iter().find(|version| version.digest == digest);
    // Only a rollback can have made it run in spite of columns that it does not know.
    let runs = view.active.as_ref() == Some(&digest);
    for difference in differences.iter_mut().filter(|_| runs) {
        if difference.effect == Effect::NeedsRebuild {
            difference.effect = Effect::None;
            difference.words.push_str(match restored {
                Some(_) => "; the tables from before the rebuild are in use again",
                None => "; it stays in the table, and new rows have no value there",
            });
        }
    }
    Ok(Taken {
        state: its_state.map_or(VersionState::Installed, |version| version.state),
        signature: its_state.map_or_else(|| Verdict::NotChecked.view(), |version| version.signature.clone()),
        effect: Effect::of(&differences),
        plugin,
        version,
        digest,
        from: before,
        differences,
        healed,
        restored,
    })
}
