//! `lantern doctor`: checks what authors and operators need, and suggests fixes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, block_on, note, print, print_json, table};
use crate::app;
use lantern_authoring::doctor::{self, Finding, Places, Severity};

/// Arguments of `lantern doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Directory of a plugin project, if there is one.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Data directory of a host.
    #[arg(long, value_name = "DIR", default_value = "lantern-data")]
    data_dir: PathBuf,
    /// URL of the broker to check; without it, doctor checks the nats-server for an embedded broker.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Monitoring URL of one of the broker's servers, such as http://127.0.0.1:8222; repeat it for each. With it, doctor
    /// checks the server's version and how often it writes streams to disk.
    #[arg(long, value_name = "URL", requires = "nats")]
    monitoring: Vec<String>,
    /// URL of a PostgreSQL server to check [default: the environment variable LANTERN__STORE__URL].
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Path of the nats-server for an embedded broker [default: from PATH].
    #[arg(long, value_name = "FILE", conflicts_with = "nats")]
    nats_server: Option<PathBuf>,
    /// Apply safe fixes: install the compiler target, update the vendored SDK of the project.
    #[arg(long)]
    fix: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let places = Places {
        project: args.path.clone(),
        data_dir: args.data_dir.clone(),
        nats: args.nats.clone(),
        nats_server: args.nats_server.clone(),
    };
    let mut findings = check(&places, args)?;
    if args.fix && apply_fixes(&findings) {
        findings = check(&places, args)?;
    }
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    match args.json {
        true => print_json(&findings)?,
        false => print(&render(&findings, errors))?,
    }
    Ok(ExitCode::from(u8::from(errors > 0)))
}

/// Applies the fixes that need no confirmation. Returns whether it changed anything.
fn apply_fixes(findings: &[Finding]) -> bool {
    let mut changed = false;
    for finding in findings {
        match finding.apply_fix() {
            Some(Ok(done)) => {
                note(format_args!("{done}"));
                changed = true;
            }
            Some(Err(error)) => note(format_args!("{error}")),
            None => {}
        }
    }
    changed
}

/// Runs the checks for authors and for operators.
fn check(places: &Places, args: &DoctorArgs) -> Result<Vec<Finding>, Failure> {
    let store = args
        .store
        .clone()
        .or_else(|| std::env::var("LANTERN__STORE__URL").ok());
    block_on(async {
        let mut findings = doctor::check(places).await;
        findings.extend(app::doctor::check(&places.data_dir, places.nats.as_deref(), &args.monitoring).await);
        if let Some(url) = &store {
            findings.extend(app::doctor::server::check(url).await);
        }
        findings
    })
}

fn render(findings: &[Finding], errors: usize) -> String {
    let rows: Vec<Vec<String>> = findings
        .iter()
        .flat_map(|finding| {
            let severity = match finding.severity {
                Severity::Ok => "ok",
                Severity::Warning => "warning",
                Severity::Error => "ERROR",
            };
            let first = vec![
                severity.to_owned(),
                finding.subject.clone(),
                finding.message.clone(),
            ];
            let fix = finding
                .fix
                .as_ref()
                .map(|fix| vec![String::new(), String::new(), format!("-> {fix}")]);
            std::iter::once(first).chain(fix)
        })
        .collect();
    let mut text = table::align(&rows, &[], "");
    text.push_str(match errors {
        0 => "\nOK: no errors found\n",
        _ => "\nFix the errors first; `lantern doctor --fix` fixes some of them\n",
    });
    text
}
