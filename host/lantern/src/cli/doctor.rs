//! `lantern doctor`: what authors and operators need, what is missing or damaged, and what to do about it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, commands, note, print, print_json, table};
use crate::app;
use lantern_authoring::doctor::{self, Finding, Places, State};

/// What is typed after `lantern doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The plugin's project, where there is one.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The data directory of a host.
    #[arg(long, value_name = "DIR", default_value = "lantern-data")]
    data_dir: PathBuf,
    /// A broker that a host is to use; without it, it is looked for a nats-server to run.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// The nats-server to run [default: the one on PATH].
    #[arg(long, value_name = "FILE", conflicts_with = "nats")]
    nats_server: Option<PathBuf>,
    /// Mend what can be mended without asking: add the compiler's target, renew the SDK beside a project.
    #[arg(long)]
    fix: bool,
    /// Answer with JSON.
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
    let mut findings = look(&places)?;
    if args.fix {
        let mut mended = false;
        for finding in &findings {
            match finding.mend() {
                Some(Ok(done)) => {
                    note(format_args!("{done}"));
                    mended = true;
                }
                Some(Err(words)) => note(format_args!("{words}")),
                None => {}
            }
        }
        if mended {
            findings = look(&places)?;
        }
    }
    let wrong = findings
        .iter()
        .filter(|finding| finding.state == State::Wrong)
        .count();
    match args.json {
        true => print_json(&findings)?,
        false => print(&render(&findings, wrong))?,
    }
    Ok(ExitCode::from(u8::from(wrong > 0)))
}

/// What authors need, and what operators do.
fn look(places: &Places) -> Result<Vec<Finding>, Failure> {
    commands::block_on(async {
        let mut findings = doctor::look(places).await;
        findings.extend(app::doctor::look(&places.data_dir, places.nats.as_deref()).await);
        findings
    })
}

fn render(findings: &[Finding], wrong: usize) -> String {
    let rows: Vec<Vec<String>> = findings
        .iter()
        .flat_map(|finding| {
            let state = match finding.state {
                State::Good => "ok",
                State::Warning => "hm",
                State::Wrong => "WRONG",
            };
            let first = vec![state.to_owned(), finding.subject.clone(), finding.words.clone()];
            let fix = finding
                .fix
                .as_ref()
                .map(|fix| vec![String::new(), String::new(), format!("-> {fix}")]);
            std::iter::once(first).chain(fix)
        })
        .collect();
    let mut text = table::align(&rows, &[], "");
    text.push_str(match wrong {
        0 => "\nOK: plugins can be written and run here\n",
        _ => "\nRepair what is marked WRONG first; `lantern doctor --fix` repairs some of it\n",
    });
    text
}
