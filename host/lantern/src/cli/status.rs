//! `lantern status`: the state of a running host.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{Client, HostArgs};
use super::{Failure, print, print_json, table};
use lantern_model::batch::Timestamp;

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// The shown fields of a projection.
#[derive(Deserialize)]
struct Projection {
    plugin: String,
    source: String,
    state: String,
    lag: Option<u64>,
    checkpoint: u64,
    dead_letters: u64,
    missing: u64,
    // Earlier versions of the host do not return these fields.
    #[serde(default)]
    paused: Option<String>,
    last_error: Option<String>,
    #[serde(default)]
    last_error_at_ms: Option<i64>,
    #[serde(default)]
    warnings: Vec<Warning>,
}

#[derive(Deserialize)]
struct Warning {
    detail: String,
}

impl Projection {
    /// Why it is paused, or its last error and when that occurred.
    fn detail(&self, now_ms: i64) -> String {
        match (&self.paused, &self.last_error, self.last_error_at_ms) {
            (Some(reason), _, _) => reason.clone(),
            (None, Some(error), Some(at)) => {
                format!("{error} ({} s ago)", now_ms.saturating_sub(at).max(0) / 1_000)
            }
            (None, Some(error), None) => error.clone(),
            (None, None, _) => String::new(),
        }
    }
}

#[derive(Deserialize, Serialize)]
struct Readiness {
    ready: bool,
    checks: Vec<Check>,
}

#[derive(Deserialize, Serialize)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
}

/// Prints the state of the host; the exit code is 1 if it is not ready.
pub fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let client = Client::open(&args.host)?;
    let (_, readiness): (u16, Readiness) = client.get_json_of_any_status("/readyz")?;
    if args.json {
        let projections: Value = client.get_json("/api/v1/projections")?;
        print_json(&json!({
            "url": client.url(), "ready": readiness.ready, "checks": readiness.checks, "projections": projections,
        }))?;
    } else {
        let projections: Vec<Projection> = client.get_json("/api/v1/projections")?;
        let now_ms = Timestamp::now().0 / 1_000;
        print(&render(client.url(), &readiness, &projections, now_ms))?;
    }
    Ok(if readiness.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn render(url: &str, readiness: &Readiness, projections: &[Projection], now_ms: i64) -> String {
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
                projection.state.clone(),
                projection.lag.map_or_else(|| "-".into(), |lag| lag.to_string()),
                projection.checkpoint.to_string(),
                projection.dead_letters.to_string(),
                projection.missing.to_string(),
                projection.detail(now_ms),
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
    for (number, (Projection { plugin, source, .. }, warning)) in warned.enumerate() {
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
        let projection = Projection {
            plugin: "obs-events".into(),
            source: "obs".into(),
            state: "retrying".into(),
            lag: Some(12_000),
            checkpoint: 7,
            dead_letters: 1,
            missing: 20,
            paused: None,
            last_error: Some("disk full".into()),
            last_error_at_ms: Some(1_000),
            warnings: vec![Warning {
                detail: "the filter matches nothing".into(),
            }],
        };
        let paused = Projection {
            plugin: "obs-events".into(),
            source: "more".into(),
            state: "paused".into(),
            lag: Some(3),
            checkpoint: 7,
            dead_letters: 0,
            missing: 0,
            paused: Some("no reason given (by local)".into()),
            last_error: None,
            last_error_at_ms: None,
            warnings: Vec::new(),
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
