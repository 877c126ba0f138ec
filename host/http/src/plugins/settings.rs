//! What is set for one plugin.

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
use lantern_lifecycle::Actor;
use lantern_model::settings::PluginSettings;

/// Most settings in one call; there are fewer.
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
    Operator(operator): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    Input(SettingsChanges { changes }): Input<SettingsChanges>,
) -> Result<Json<PluginSettings>, Problem> {
    if changes.len() > CHANGES_MAX {
        return Err(Problem::bad_request(format!(
            "at most {CHANGES_MAX} settings are changed at once"
        )));
    }
    let changes: Vec<(String, String)> = changes
        .into_iter()
        .map(|(path, value)| Ok((path.clone(), text_of(&path, value)?)))
        .collect::<Result<_, Problem>>()?;
    let words: Vec<String> = changes
        .iter()
        .map(|(path, value)| format!("{path}={value}"))
        .collect();
    note.detail(words.join(" "));
    let settings = state
        .lifecycle
        .set(plugin.as_str(), changes, &Actor(operator.name))
        .await?;
    Ok(Json(settings))
}

/// As somebody would type it.
fn text_of(path: &str, value: Value) -> Result<String, Problem> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(_) | Value::Object(_) => Err(Problem::bad_request(format!(
            "{path}: a setting is one value; paths such as limits.memory name the ones within"
        ))),
    }
}
