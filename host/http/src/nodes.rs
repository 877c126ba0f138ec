//! The hosts of the database.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::parameters::Parameters;
use super::problem::Problem;
use super::state::State;
use lantern_api::Node;
use lantern_model::batch::Timestamp;
use lantern_store::LeaseView;

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Node>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let view = state.lifecycle.leases();
    Ok(Json(view.as_ref().map_or_else(Vec::new, nodes)))
}

/// The hosts by name.
fn nodes(view: &LeaseView) -> Vec<Node> {
    let mut nodes: Vec<Node> = view
        .nodes
        .values()
        .map(|node| {
            let held = view
                .leases
                .iter()
                .filter(|(_, lease)| lease.node.as_ref() == Some(&node.id))
                .map(|(subject, _)| subject.as_str());
            let (jobs, plugins): (Vec<&str>, Vec<&str>) = held.partition(|subject| subject.starts_with('#'));
            Node {
                name: node.name.clone(),
                url: node.url.clone(),
                version: node.version.clone(),
                started_at: Timestamp(node.started_at).to_rfc3339(),
                alive: node.is_alive,
                answers: node.id == view.me,
                plugins: plugins.into_iter().map(str::to_owned).collect(),
                jobs: jobs
                    .into_iter()
                    .map(|job| job.trim_start_matches('#').to_owned())
                    .collect(),
                ready: node.ready.iter().cloned().collect(),
            }
        })
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}
