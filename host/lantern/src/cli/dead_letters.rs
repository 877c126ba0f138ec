//! `lantern dead-letters`: lists, shows, exports, retries and discards messages that could not be projected.

mod filter;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::client::{Client, HostArgs, OutputArgs};
use super::output::print_json_line;
use super::{Failure, print, print_json};
use filter::{Filter, OpenFilter};
use lantern_api::{Discarded, RetryTotals};

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List dead letters, newest first.
    List(show::ListArgs),
    /// Show one dead letter completely.
    Show(show::ShowArgs),
    /// Retry open dead letters with the active versions.
    Retry(ActArgs),
    /// Discard open dead letters. They stay readable, but are not retried.
    Discard(ActArgs),
    /// Write dead letters with their payloads to standard output, one JSON object per line.
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub struct ActArgs {
    #[command(flatten)]
    filter: OpenFilter,
    /// All open dead letters; required if no filter is given.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    host: HostArgs,
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
    let result: RetryTotals = args
        .output
        .open()?
        .post_json("/api/v1/dead-letters/retry", &body)?;
    args.output.print(&result, render)
}

fn render(totals: &RetryTotals) -> String {
    let RetryTotals {
        retried,
        resolved,
        inserted,
        updated,
        present,
    } = totals;
    if *retried == 0 {
        return "no matching open dead letters of a running plugin\n".to_owned();
    }
    let mut text = format!(
        "resolved {resolved} of {retried} dead letters; rows: {inserted} inserted, {updated} updated, {present} present\n"
    );
    if resolved < retried {
        text.push_str("to see the reasons of the others: lantern dead-letters list --state open\n");
    }
    text
}

fn discard(args: &ActArgs) -> Result<(), Failure> {
    let body = args.filter.body(args.all)?;
    let answer: Discarded = args
        .output
        .open()?
        .post_json("/api/v1/dead-letters/discard", &body)?;
    match (args.output.json, answer.discarded) {
        (true, _) => print_json(&answer),
        (false, 0) => print("no matching open dead letters\n"),
        (false, count) => print(&format!(
            "discarded {count} dead letters\nto list them: lantern dead-letters list --state discarded\n"
        )),
    }
}

fn export(args: &ExportArgs) -> Result<(), Failure> {
    let query = args.filter.query();
    let lines = Client::open(&args.host)?.lines(&format!("/api/v1/dead-letters/export?{query}"))?;
    for line in lines {
        // The reader has closed the pipe.
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
    fn a_retry_reports_how_many_were_resolved() {
        let result = |retried, resolved| RetryTotals {
            retried,
            resolved,
            inserted: resolved,
            updated: 0,
            present: 1,
        };
        assert!(render(&result(0, 0)).starts_with("no matching"));
        assert_eq!(
            render(&result(41, 41)),
            "resolved 41 of 41 dead letters; rows: 41 inserted, 0 updated, 1 present\n"
        );
        assert!(render(&result(41, 37)).contains("--state open"));
    }
}
