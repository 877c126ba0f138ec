//! Reads about plugins: lists, versions, differences, settings. `acts` contains the changes.

mod acts;
mod settings;
mod sources;

use axum::Json;
use axum::extract;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::change::{AuditNote, OfPlugin};
use super::parameters::Parameters;
use super::problem::Problem;
use super::room::Room;
use super::state::State;
use super::views;
use lantern_api::{
    Differences, LoadFailure, PluginDetail, PluginSummary, PluginVersionDetail, VersionDescription,
};
use lantern_lifecycle::Component;
use lantern_model::schema::difference::Effect;
use lantern_store::reader::SourceFilter;

pub use acts::{INSTALL_TIME, activate, install, pause, remove, resume, rollback, take_over};
pub use settings::{change as change_settings, show as settings};
pub use sources::accept;

/// Header with the signature of a component: the `.minisig` file in base64.
pub const SIGNATURE_HEADER: &str = "lantern-signature";

/// Newest ledger ranges in the detail of a plugin; `/api/v1/ledger` lists all.
const RANGES_MAX: u32 = 1_000;

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<PluginSummary>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let all = state.lifecycle.list().await?;
    Ok(Json(all))
}

pub async fn show(
    extract::State(state): extract::State<State>,
    OfPlugin(plugin): OfPlugin,
    uri: Uri,
) -> Result<Json<PluginDetail>, Problem> {
    Parameters::parse(&uri, &[])?;
    let view = state.lifecycle.show(plugin.as_str()).await?;
    let filter = SourceFilter {
        plugin: Some(plugin.to_string()),
        source: None,
    };
    let ledger = state.reader.ledger(&filter, RANGES_MAX, None).await?;
    let mut ranges = ledger.items;
    let versions = view.versions.into_iter().map(|version| {
        let ranges = ranges.extract_if(.., |range| range.digest == version.digest);
        PluginVersionDetail {
            ranges: ranges.collect(),
            version,
        }
    });
    Ok(Json(PluginDetail {
        versions: versions.collect(),
        settings: state.lifecycle.settings(plugin.as_str()),
        used: view.used,
        name: view.name,
        state: view.state,
        active: view.active,
        previous: view.previous,
        paused: view.paused,
        sources: view.sources,
        tables: view.tables,
    }))
}

/// The component of a version as installed; a header contains its signature, if one is stored.
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

/// Sources, tables, writes and limits of a version.
pub async fn description(
    extract::State(state): extract::State<State>,
    OfPlugin(plugin): OfPlugin,
    uri: Uri,
) -> Result<Json<VersionDescription>, Problem> {
    let digest = state
        .lifecycle
        .resolve_version(plugin.as_str(), &version_in(&uri)?)
        .await?;
    Ok(Json(state.lifecycle.description(plugin.as_str(), digest).await?))
}

/// The parameter `version`, the only one of the route.
fn version_in(uri: &Uri) -> Result<String, Problem> {
    let parameters = Parameters::parse(uri, &["version"])?;
    parameters.get("version").map(str::to_owned).ok_or_else(|| {
        Problem::bad_request(
            "version is required: a digest, a digest prefix of at least eight digits, or a version number",
        )
    })
}

pub async fn differences(
    extract::State(state): extract::State<State>,
    OfPlugin(plugin): OfPlugin,
    uri: Uri,
) -> Result<Json<Differences>, Problem> {
    let parameters = Parameters::parse(&uri, &["from", "to"])?;
    let resolve = async |name: &str| match parameters.get(name) {
        Some(text) => Ok(state.lifecycle.resolve_version(plugin.as_str(), text).await?),
        None => Err(Problem::bad_request(format!(
            "{name} is required: a digest, a digest prefix of at least eight digits, or a version number"
        ))),
    };
    let (from, to) = (resolve("from").await?, resolve("to").await?);
    let differences = state.lifecycle.differences(plugin.as_str(), from, to).await?;
    Ok(Json(Differences {
        from: from.to_string(),
        to: to.to_string(),
        effect: Effect::of(&differences),
        differences,
    }))
}

/// Components that the host could not load, with the reason.
pub async fn load_failures(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<LoadFailure>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let all = state.lifecycle.load_failures();
    Ok(Json(all.into_iter().map(views::load_failure).collect()))
}
