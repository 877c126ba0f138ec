//! `lantern plugin test`: runs the component on the fixtures and prints differences from the expected outcomes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::Value as Tree;

use super::{build_and_load, count, drain_log, subscribe_to_log, time};
use crate::cli::{Failure, print, print_json, table};
use lantern_authoring::fixture::{self, Fixture};
use lantern_authoring::project::Project;
use lantern_authoring::{difference, outcome, trial};
use lantern_plugin::{Plugin, Speed};
use lantern_telemetry::GuestLine;

/// Arguments of `lantern plugin test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Project directory, or component file.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Accept the current outcomes: write them as the expected outcomes.
    #[arg(long)]
    bless: bool,
    /// Only fixtures whose name contains TEXT.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Directory of the fixtures [default: fixtures in the project, or next to the component].
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Result of one fixture.
#[derive(Debug, Serialize)]
struct Case {
    name: String,
    verdict: Verdict,
    messages: usize,
    rows: usize,
    milliseconds: f64,
    memory_peak_bytes: u64,
    /// The differences, or why there is no expected outcome.
    lines: Vec<String>,
    /// Log lines of the plugin.
    log: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Failed,
    Blessed,
}

pub fn run(args: &TestArgs) -> Result<ExitCode, Failure> {
    let log = subscribe_to_log("warn")?;
    let project = Project::open(&args.path)?;
    let start = Instant::now();
    let (_, loaded) = build_and_load(&project, Speed::Full)?;
    let built = start.elapsed();
    let plugin = &loaded.plugin;
    let folder = args
        .fixtures
        .clone()
        .unwrap_or_else(|| project.dir().join(fixture::FOLDER));
    let mut fixtures = fixture::read(&folder, plugin.manifest())?;
    if fixtures.is_empty() {
        return Err(no_fixtures(&folder));
    }
    if let Some(filter) = &args.filter {
        fixtures.retain(|fixture| fixture.name.contains(filter.as_str()));
        if fixtures.is_empty() {
            return Err(Failure::usage(format!("no fixture name contains {filter:?}")));
        }
    }
    let mut cases = Vec::new();
    for fixture in &fixtures {
        cases.push(run_case(plugin, fixture, args.bless, &log)?);
    }
    let failed = cases
        .iter()
        .filter(|case| case.verdict == Verdict::Failed)
        .count();
    if args.json {
        print_json(&cases)?;
    } else {
        let manifest = plugin.manifest();
        print(&format!(
            "{} {} ({}), built and loaded in {}\n",
            manifest.name,
            manifest.version,
            table::bytes(plugin.facts().component_bytes as u64),
            time(built)
        ))?;
        print(&render(&cases, failed))?;
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn no_fixtures(folder: &Path) -> Failure {
    Failure::new(anyhow::anyhow!("no fixtures in {}", folder.display())).hint(
        "save a message there as NAME.json, or run `lantern plugin record`; \
         `lantern plugin test --bless` writes the expected outcomes",
    )
}

fn run_case(
    plugin: &Arc<Plugin>,
    fixture: &Fixture,
    bless: bool,
    log: &Receiver<GuestLine>,
) -> Result<Case, Failure> {
    drop(drain_log(log));
    let run = trial::run(plugin, fixture.source, &fixture.messages)?;
    let mut outcomes: Vec<Tree> = run
        .outcomes
        .iter()
        .map(|outcome| outcome::render(plugin.manifest(), outcome))
        .collect();
    let actual = match fixture.many {
        true => Tree::Array(outcomes),
        false => outcomes.pop().unwrap_or_default(),
    };
    let (verdict, lines) = compare(&fixture.expected_file(), &actual, bless)?;
    Ok(Case {
        name: fixture.name.clone(),
        verdict,
        messages: fixture.messages.len(),
        rows: outcome::count_rows(&run.outcomes),
        milliseconds: run.busy.as_secs_f64() * 1e3,
        memory_peak_bytes: run.memory_peak_bytes as u64,
        lines,
        log: drain_log(log),
    })
}

fn compare(file: &Path, actual: &Tree, bless: bool) -> Result<(Verdict, Vec<String>), Failure> {
    let expected: Option<Tree> = match std::fs::read(file) {
        Ok(bytes) => {
            let read =
                serde_json::from_slice(&bytes).with_context(|| format!("failed to read {}", file.display()));
            match read {
                Err(_) if bless => None,
                read => Some(read?),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(anyhow::Error::new(error)
                .context(format!("failed to read {}", file.display()))
                .into());
        }
    };
    if expected.as_ref() == Some(actual) {
        return Ok((Verdict::Ok, Vec::new()));
    }
    if bless {
        std::fs::write(file, format!("{actual:#}\n"))
            .with_context(|| format!("failed to write {}", file.display()))?;
        return Ok((Verdict::Blessed, Vec::new()));
    }
    let lines = match expected {
        Some(expected) => difference::lines(&expected, actual),
        None => {
            let mut lines = vec![format!("{} is missing; the current outcome:", file.display())];
            let outcomes = actual
                .as_array()
                .map_or(std::slice::from_ref(actual), Vec::as_slice);
            lines.extend(outcomes.iter().map(difference::describe));
            lines
        }
    };
    Ok((Verdict::Failed, lines))
}

fn render(cases: &[Case], failed: usize) -> String {
    let head = ["", "", "messages", "rows", "time", "memory"]
        .map(str::to_owned)
        .to_vec();
    let rows = cases.iter().map(|case| {
        let verdict = match case.verdict {
            Verdict::Ok => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Blessed => "blessed",
        };
        vec![
            verdict.to_owned(),
            case.name.clone(),
            case.messages.to_string(),
            case.rows.to_string(),
            format!("{:.1} ms", case.milliseconds),
            table::bytes(case.memory_peak_bytes),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let aligned = table::align(&rows, &[false, false, true, true, true, true], "");
    let mut text = String::from("\n");
    // The first line is the header.
    for (index, line) in aligned.lines().enumerate() {
        text.push_str(line);
        text.push('\n');
        if let Some(case) = index.checked_sub(1).and_then(|index| cases.get(index)) {
            for line in case.lines.iter().chain(&case.log) {
                text.push_str(&format!("        {line}\n"));
            }
        }
    }
    let blessed = cases
        .iter()
        .filter(|case| case.verdict == Verdict::Blessed)
        .count();
    text.push('\n');
    text.push_str(&match (failed, blessed) {
        (0, 0) => format!("{} ok\n", count(cases.len(), "case")),
        (0, blessed) => format!(
            "{} ok, {blessed} of them accepted; review the changed files\n",
            count(cases.len(), "case")
        ),
        (failed, _) => format!(
            "{failed} of {} failed; `lantern plugin test --bless` accepts the current outcomes\n",
            count(cases.len(), "case")
        ),
    });
    text
}
