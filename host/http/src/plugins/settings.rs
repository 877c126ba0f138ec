//! Settings of one plugin.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde_json::Value;

use crate::change::{AuditNote, Input, OfPlugin};
use crate::gate::Operator;
use crate::parameters::Parameters;
use crate::problem::Problem;
use crate::state::State;
use lantern_api::SettingsChanges;
use lantern_model::settings::PluginSettings;

/// Maximum number of settings in one request; more than exist.
const CHANGES_MAX: usize = 100;

pub async fn show(
    extract::State(state): extract::State<State>,
    OfPlugin(plugin): OfPlugin,
    uri: Uri,
) -> Result<Json<PluginSettings>, Problem> {
    Parameters::parse(&uri, &[])?;
    Ok(Json(state.lifecycle.settings(plugin.as_str())))
}

pub async fn change(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    Input(SettingsChanges { changes }): Input<SettingsChanges>,
) -> Result<Json<PluginSettings>, Problem> {
    if changes.len() > CHANGES_MAX {
        return Err(Problem::bad_request(format!(
            "one request can change at most {CHANGES_MAX} settings"
        )));
    }
    let changes: Vec<(String, String)> = changes
        .into_iter()
        .map(|(path, value)| Ok((path.clone(), text_of(&path, value)?)))
        .collect::<Result<_, Problem>>()?;
    let assignments: Vec<String> = changes
        .iter()
        .map(|(path, value)| format!("{path}={value}"))
        .collect();
    note.detail(assignments.join(" "));
    let settings = state
        .lifecycle
        .set(plugin.as_str(), changes, note.requester(&by))
        .await?;
    Ok(Json(settings))
}

/// The value as an operator types it.
fn text_of(path: &str, value: Value) -> Result<String, Problem> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(_) | Value::Object(_) => Err(Problem::bad_request(format!(
            "{path}: a setting is a single value; use a path such as limits.memory"
        ))),
    }
}
