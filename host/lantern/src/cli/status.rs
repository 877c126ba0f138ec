//! `lantern status`: the state of a running host.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::client::OutputArgs;
use super::{Failure, print, print_json, table};
use lantern_api::{Check, Node, Readiness};
use lantern_model::batch::Timestamp;
use lantern_model::status::Status;

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the state of the host; the exit code is 1 if it is not ready.
pub fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let client = args.output.open()?;
    let (_, readiness): (u16, Readiness) = client.get_json_of_any_status("/readyz")?;
    let projections: Vec<Status> = client.get_json("/api/v1/projections")?;
    let nodes: Vec<Node> = client.get_json("/api/v1/nodes")?;
    if args.output.json {
        print_json(&json!({
            "url": client.url(), "ready": readiness.ready, "checks": readiness.checks, "projections": projections,
            "nodes": nodes,
        }))?;
    } else {
        let now_ms = Timestamp::now().0 / 1_000;
        print(&render(client.url(), &readiness, &projections, now_ms))?;
        print(&render_nodes(&nodes))?;
    }
    Ok(if readiness.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Why it is paused, or its last error and when that occurred.
fn detail(projection: &Status, now_ms: i64) -> String {
    match (
        &projection.paused,
        &projection.last_error,
        projection.last_error_at_ms,
    ) {
        (Some(reason), _, _) => reason.clone(),
        (None, Some(error), Some(at)) => {
            format!("{error} ({} s ago)", now_ms.saturating_sub(at).max(0) / 1_000)
        }
        (None, Some(error), None) => error.clone(),
        (None, None, _) => String::new(),
    }
}

/// The hosts of the database, if there are several; a dead host stays listed for a day.
fn render_nodes(nodes: &[Node]) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    let head = ["host", "state", "url", "version", "plugins", "jobs"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(nodes.iter().map(|node| {
        vec![
            node.name.clone(),
            if node.alive { "alive" } else { "dead" }.to_owned(),
            node.url.clone(),
            node.version.clone(),
            node.plugins.join(", "),
            node.jobs.join(", "),
        ]
    }));
    format!("\n{}", table::align(&rows, &[], ""))
}

fn render(url: &str, readiness: &Readiness, projections: &[Status], now_ms: i64) -> String {
    let state = if readiness.ready { "ready" } else { "not ready" };
    let mut text = format!("{url} is {state}\n\n");
    if projections.is_empty() {
        text.push_str("no projections\n");
    } else {
        let head = [
            "plugin/source",
            "state",
            "lag",
            "checkpoint",
            "dead letters",
            "missing",
            "detail",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(projections.iter().map(|projection| {
            vec![
                format!("{}/{}", projection.plugin, projection.source),
                projection.state.as_str().to_owned(),
                projection.lag.map_or_else(|| "-".into(), |lag| lag.to_string()),
                projection.checkpoint.to_string(),
                projection.dead_letters.to_string(),
                projection.missing.to_string(),
                detail(projection, now_ms),
            ]
        }));
        text.push_str(&table::align(&rows, &[false, false, true, true, true, true], ""));
    }
    let warned = projections.iter().flat_map(|projection| {
        projection
            .warnings
            .iter()
            .map(move |warning| (projection, warning))
    });
    for (number, (Status { plugin, source, .. }, warning)) in warned.enumerate() {
        let head = if number == 0 { "\nwarnings:\n" } else { "" };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{head}  - {plugin}/{source}: {}", warning.detail);
    }
    let failing: Vec<&Check> = readiness.checks.iter().filter(|check| !check.ok).collect();
    if !failing.is_empty() {
        text.push_str("\nfailed checks:\n");
        for Check { name, detail, .. } in failing {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  - {name}: {detail}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_model::status::{ProjectionState, ProjectionWarning, ProjectionWarningKind};

    #[test]
    fn hosts_are_listed_with_what_they_run() {
        assert_eq!(render_nodes(&[]), "");
        let node = Node {
            name: "a".into(),
            url: "http://10.0.0.7:8080".into(),
            version: "0.1.0".into(),
            started_at: "2026-01-01T00:00:00Z".into(),
            alive: true,
            answers: true,
            plugins: vec!["executions".into(), "obs-events".into()],
            jobs: vec!["jobs".into()],
            ready: Vec::new(),
        };
        assert_eq!(
            render_nodes(&[node]),
            "
host  state  url                   version  plugins                 jobs
a     alive  http://10.0.0.7:8080  0.1.0    executions, obs-events  jobs
"
        );
    }

    #[test]
    fn warnings_and_failed_checks_are_listed() {
        let check = |name: &str, ok| Check {
            name: name.into(),
            ok,
            detail: "as the test says".into(),
        };
        let mut readiness = Readiness {
            ready: true,
            checks: vec![check("broker", true), check("database", true)],
        };
        assert_eq!(
            render("http://a", &readiness, &[], 0),
            "http://a is ready\n\nno projections\n"
        );
        readiness.ready = false;
        readiness.checks.push(check("projection:obs-events/obs", false));
        let projection = Status {
            state: ProjectionState::Retrying,
            lag: Some(12_000),
            checkpoint: 7,
            dead_letters: 1,
            missing: 20,
            last_error: Some("disk full".into()),
            last_error_at_ms: Some(1_000),
            warnings: vec![ProjectionWarning {
                kind: ProjectionWarningKind::FilterMatchesNothing,
                detail: "the filter matches nothing".into(),
                not_ready: false,
            }],
            ..Status::starting("obs-events", "1.0.0", "sha256:aa", "obs", None)
        };
        let paused = Status {
            state: ProjectionState::Paused,
            lag: Some(3),
            checkpoint: 7,
            paused: Some("no reason given (by local)".into()),
            ..Status::starting("obs-events", "1.0.0", "sha256:aa", "more", None)
        };
        assert_eq!(
            render("http://a", &readiness, &[projection, paused], 13_500),
            "\
http://a is not ready

plugin/source    state       lag  checkpoint  dead letters  missing  detail
obs-events/obs   retrying  12000           7             1       20  disk full (12 s ago)
obs-events/more  paused        3           7             0        0  no reason given (by local)

warnings:
  - obs-events/obs: the filter matches nothing

failed checks:
  - projection:obs-events/obs: as the test says
"
        );
    }
}
