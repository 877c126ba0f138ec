//! The plugins of the host: what there is, how versions differ, what is set for each. What changes them is in `acts`.

mod acts;
mod settings;
mod sources;

use axum::Json;
use axum::extract;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::change::{AuditNote, OfPlugin};
use super::parameters::Parameters;
use super::problem::Problem;
use super::records::{LedgerRange, show_range};
use super::room::Room;
use super::state::State;
use lantern_api::Differences;
use lantern_lifecycle::{
    Component, DescriptionView, LoadFailure, PluginView, UseView, VersionState, VersionView,
};
use lantern_model::schema::difference::Effect;
use lantern_model::settings::PluginSettings;
use lantern_store::reader::SourceFilter;

pub use acts::{
    INSTALL_TIME, Removed, Taken, TakenOver, activate, install, pause, remove, resume, rollback, take_over,
};
pub use settings::{change as change_settings, show as settings};
pub use sources::accept;

/// The header in which a component's signature travels: the `.minisig` file in base64.
pub const SIGNATURE_HEADER: &str = "lantern-signature";

/// Ranges of the ledger that a plugin is shown with, the newest; all of them are in `/api/v1/ledger`.
const RANGES_MAX: u32 = 1_000;

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<PluginView>>, Problem> {
    Parameters::parse(&uri, &[])?;
    Ok(Json(state.lifecycle.list().await?))
}

/// A plugin with all that is known of it.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginDetail)]
pub struct Detail {
    /// Its name.
    name: String,
    /// The state of the version that counts.
    state: VersionState,
    /// The digest of the version that runs, or would if it were not paused.
    active: Option<String>,
    /// The digest of the one before it.
    previous: Option<String>,
    /// Why it is paused.
    paused: Option<String>,
    /// What the version that runs reads.
    sources: Vec<String>,
    /// The tables of the version that runs.
    tables: Vec<String>,
    /// What is set for it; what is absent is as for all plugins.
    settings: PluginSettings,
    /// What the version that runs has used; none where none runs.
    used: Option<UseView>,
    /// All versions, in the order of arrival.
    versions: Vec<Version>,
}

/// A version with what it handled.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginVersionDetail)]
struct Version {
    #[serde(flatten)]
    version: VersionView,
    /// What it handled, the newest first.
    ranges: Vec<LedgerRange>,
}

pub async fn show(
    extract::State(state): extract::State<State>,
    OfPlugin(plugin): OfPlugin,
    uri: Uri,
) -> Result<Json<Detail>, Problem> {
    Parameters::parse(&uri, &[])?;
    let view = state.lifecycle.show(plugin.as_str()).await?;
    let filter = SourceFilter {
        plugin: Some(plugin.to_string()),
        source: None,
    };
    let ledger = state.reader.ledger(&filter, RANGES_MAX, None).await?;
    let mut ranges = ledger.items;
    let versions = view.versions.into_iter().map(|version| {
        let its = ranges.extract_if(.., |range| range.digest == version.digest);
        Version {
            ranges: its.map(show_range).collect(),
            version,
        }
    });
    Ok(Json(Detail {
        versions: versions.collect(),
        settings: state.lifecycle.settings(plugin.as_str()),
        used: view.used,
        name: view.name,
        state: view.state,
        active: view.active,
        previous: view.previous,
        paused: view.paused,
        sources: view.sources.into_iter().collect(),
        tables: view.tables.into_iter().collect(),
    }))
}

/// The component of a version as it was installed, with its signature in a header where one is kept: for another host,
/// or to look into it.
pub async fn component(
    extract::State(state): extract::State<State>,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    _room: Room,
    uri: Uri,
) -> Result<impl IntoResponse, Problem> {
    let digest = state
        .lifecycle
        .resolve_version(plugin.as_str(), &version_in(&uri)?)
        .await?;
    note.digest(digest);
    let Component {
        bytes: component,
        signature,
    } = state.lifecycle.component(digest).await?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    let signature = signature.and_then(|signature| HeaderValue::from_str(&STANDARD.encode(signature)).ok());
    if let Some(signature) = signature {
        headers.insert(SIGNATURE_HEADER, signature);
    }
    Ok((headers, component))
}

/// What a version says of itself: sources, tables, writes; and what it would run under.
pub async fn description(
    extract::State(state): extract::State<State>,
    OfPlugin(plugin): OfPlugin,
    uri: Uri,
) -> Result<Json<DescriptionView>, Problem> {
    let digest = state
        .lifecycle
        .resolve_version(plugin.as_str(), &version_in(&uri)?)
        .await?;
    Ok(Json(state.lifecycle.description(plugin.as_str(), digest).await?))
}

/// The version that the only parameter names.
fn version_in(uri: &Uri) -> Result<String, Problem> {
    let parameters = Parameters::parse(uri, &["version"])?;
    parameters.get("version").map(str::to_owned).ok_or_else(|| {
        Problem::bad_request("version is missing: a digest, eight digits or more of one, or a version number")
    })
}

pub async fn differences(
    extract::State(state): extract::State<State>,
    OfPlugin(plugin): OfPlugin,
    uri: Uri,
) -> Result<Json<Differences>, Problem> {
    let parameters = Parameters::parse(&uri, &["from", "to"])?;
    let resolve_version = async |name: &str| match parameters.get(name) {
        Some(text) => Ok(state.lifecycle.resolve_version(plugin.as_str(), text).await?),
        None => Err(Problem::bad_request(format!(
            "{name} is missing: a digest, eight digits or more of one, or a version number"
        ))),
    };
    let (from, to) = (resolve_version("from").await?, resolve_version("to").await?);
    let differences = state.lifecycle.differences(plugin.as_str(), from, to).await?;
    Ok(Json(Differences {
        from: from.to_string(),
        to: to.to_string(),
        effect: Effect::of(&differences),
        differences,
    }))
}

/// What of the plugin directory, or of what should run, is refused and why.
pub async fn refusals(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<LoadFailure>>, Problem> {
    Parameters::parse(&uri, &[])?;
    Ok(Json(state.lifecycle.load_failures()))
}
