//! `lantern dead-letters`: messages that could not be projected are seen, exported, tried again and given up.

mod filter;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::client::{Client, HostArgs};
use super::output::print_json_line;
use super::{Failure, print, print_json};
use filter::{Filter, OpenFilter};

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List dead letters, the newest first.
    List(show::ListArgs),
    /// Show one dead letter whole.
    Show(show::ShowArgs),
    /// Try open dead letters again with the versions that run.
    Retry(ActArgs),
    /// Give up open dead letters. They stay to be read, and are not tried again.
    Discard(ActArgs),
    /// Write dead letters to standard output, one JSON object in each line, payloads and all.
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub struct ActArgs {
    #[command(flatten)]
    filter: OpenFilter,
    /// All open ones, where nothing else is said.
    #[arg(long)]
    all: bool,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Deserialize, Serialize)]
struct Healed {
    tried: u64,
    resolved: u64,
    rows: u64,
}

#[derive(Deserialize, Serialize)]
struct Discarded {
    discarded: u64,
}

pub fn run(command: &DeadLettersCommand) -> Result<ExitCode, Failure> {
    match command {
        DeadLettersCommand::List(args) => show::list(args)?,
        DeadLettersCommand::Show(args) => show::show(args)?,
        DeadLettersCommand::Retry(args) => retry(args)?,
        DeadLettersCommand::Discard(args) => discard(args)?,
        DeadLettersCommand::Export(args) => export(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn retry(args: &ActArgs) -> Result<(), Failure> {
    let body = args.filter.body(args.all)?;
    let healed: Healed = Client::open(&args.host)?.post_json("/api/v1/dead-letters/retry", &body)?;
    match args.json {
        true => print_json(&healed),
        false => print(&render(&healed)),
    }
}

fn render(healed: &Healed) -> String {
    let Healed {
        tried,
        resolved,
        rows,
    } = healed;
    if *tried == 0 {
        return "no dead letter is open that matches, or its plugin does not run\n".to_owned();
    }
    let mut text = format!("{resolved} of {tried} dead letters now decode, and changed {rows} rows\n");
    if resolved < tried {
        text.push_str("to see why the others do not: lantern dead-letters list --state open\n");
    }
    text
}

fn discard(args: &ActArgs) -> Result<(), Failure> {
    let body = args.filter.body(args.all)?;
    let answer: Discarded = Client::open(&args.host)?.post_json("/api/v1/dead-letters/discard", &body)?;
    match (args.json, answer.discarded) {
        (true, _) => print_json(&answer),
        (false, 0) => print("no dead letter is open that matches\n"),
        (false, count) => print(&format!(
            "{count} dead letters are given up; to read them: lantern dead-letters list --state discarded\n"
        )),
    }
}

fn export(args: &ExportArgs) -> Result<(), Failure> {
    let query = args.filter.query();
    let lines = Client::open(&args.host)?.lines(&format!("/api/v1/dead-letters/export?{query}"))?;
    for line in lines {
        // A reader that has enough ends the export as well.
        if !print_json_line(&line?)? {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told() {
        let healed = |tried, resolved| Healed {
            tried,
            resolved,
            rows: resolved,
        };
        assert!(render(&healed(0, 0)).starts_with("no dead letter"));
        assert_eq!(
            render(&healed(41, 41)),
            "41 of 41 dead letters now decode, and changed 41 rows\n"
        );
        assert!(render(&healed(41, 37)).contains("--state open"));
    }
}
