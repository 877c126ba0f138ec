//! `lantern rebuild`: rebuilds a plugin's tables in the background, then swaps them in.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::{Client, OutputArgs};
use super::output::redraw;
use super::plugin::Reference;
use super::{Failure, print, print_json, table};
use lantern_api::{NewRebuild, Rebuild, RebuildState, TableChange};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RebuildArgs {
    #[command(subcommand)]
    command: Option<RebuildCommand>,
    /// Plugin, with an optional version: @DIGEST (at least eight digits) or @VERSION [default: the active version].
    #[arg(value_name = "NAME[@VERSION]", required = true)]
    plugin: Option<Reference>,
    /// Sequence, or time such as 2026-05-28T10:41:00Z, at which to begin. Earlier rows are kept.
    #[arg(long, value_name = "SEQUENCE|TIME")]
    from: Option<String>,
    /// Maximum messages per second of each source.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Keep rows whose messages are no longer in a stream, instead of failing.
    #[arg(long)]
    carry_over: bool,
    /// Drop tables that the version does not declare; by default they stay.
    #[arg(long)]
    drop_undeclared: bool,
    /// Swap in the new tables even if their totals differ from those in use without an explanation.
    #[arg(long)]
    accept_differences: bool,
    /// Time to keep the replaced tables for `lantern plugin rollback`, such as 1d, 12h or 30m; 0 removes them immediately.
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = parse_duration)]
    keep_old: Duration,
    /// Do not wait for the rebuild to end.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum RebuildCommand {
    /// List rebuilds, newest first.
    List(ListArgs),
    /// Show the progress of a rebuild until it ends.
    Watch(OneArgs),
    /// Cancel a rebuild. The tables in use do not change.
    Cancel(OneArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct OneArgs {
    /// Id of the rebuild.
    id: i64,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &RebuildArgs) -> Result<ExitCode, Failure> {
    match (&args.command, &args.plugin) {
        (Some(RebuildCommand::List(args)), _) => list(args),
        (Some(RebuildCommand::Watch(args)), _) => watch(&args.output.open()?, args.id, args.output.json),
        (Some(RebuildCommand::Cancel(args)), _) => cancel(args),
        (None, Some(plugin)) => start(args, plugin),
        (None, None) => Err(Failure::usage("no plugin given")),
    }
}

fn start(args: &RebuildArgs, plugin: &Reference) -> Result<ExitCode, Failure> {
    let (from_sequence, from_time) = match &args.from {
        Some(text) => match text.parse::<u64>() {
            Ok(sequence) => (Some(sequence), None),
            Err(_) => (None, Some(text.clone())),
        },
        None => (None, None),
    };
    let body = NewRebuild {
        version: plugin.version.clone(),
        from_sequence,
        from_time,
        rate: args.rate,
        carry_over: args.carry_over,
        drop_undeclared: args.drop_undeclared,
        accept_differences: args.accept_differences,
        keep_old_s: args.keep_old.as_secs(),
    };
    let client = args.output.open()?;
    let started: Rebuild = client.post_json(&format!("/api/v1/plugins/{}/rebuild", plugin.name), &body)?;
    if args.detach {
        return match args.output.json {
            true => print_json(&started),
            false => print(&format!(
                "started rebuild {0} of {1}\nto see its progress: lantern rebuild watch {0}\n",
                started.id, started.plugin
            )),
        }
        .map(|()| ExitCode::SUCCESS);
    }
    watch(&client, started.id, args.output.json)
}

fn list(args: &ListArgs) -> Result<ExitCode, Failure> {
    let all: Vec<Rebuild> = args.output.open()?.get_json("/api/v1/rebuilds")?;
    if args.output.json {
        print_json(&all)?;
    } else if all.is_empty() {
        print("no rebuilds\n")?;
    } else {
        let head = ["id", "plugin", "state", "started", "left", "reason"].map(str::to_owned);
        let rows = all.iter().map(|rebuild| {
            vec![
                rebuild.id.to_string(),
                rebuild.plugin.clone(),
                rebuild.state.as_str().to_owned(),
                table::to_the_second(&rebuild.started_at),
                rebuild
                    .progress
                    .map_or_else(String::new, |progress| progress.messages_left.to_string()),
                rebuild.reason.clone().unwrap_or_default(),
            ]
        });
        let rows: Vec<Vec<String>> = std::iter::once(head.to_vec()).chain(rows).collect();
        print(&table::align(&rows, &[true, false, false, false, true], ""))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cancel(args: &OneArgs) -> Result<ExitCode, Failure> {
    let ended: Rebuild = args
        .output
        .open()?
        .delete(&format!("/api/v1/rebuilds/{}", args.id))?;
    args.output.print(&ended, |ended| {
        format!(
            "rebuild {} is {}; the tables of {} did not change
",
            ended.id, ended.state, ended.plugin
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the progress of a rebuild until it ends. Interrupting the command does not interrupt the rebuild.
fn watch(client: &Client, id: i64, as_json: bool) -> Result<ExitCode, Failure> {
    let terminal = std::io::stderr().is_terminal();
    let mut last: Option<Rebuild> = None;
    for line in client.lines(&format!("/api/v1/rebuilds/{id}/events"))? {
        let line = line?;
        let Some(data) = line.strip_prefix("data:") else {
            continue;
        };
        let rebuild: Rebuild = serde_json::from_str(data.trim()).map_err(|error| {
            Failure::new(anyhow::Error::new(error).context("failed to parse the progress of the rebuild"))
        })?;
        if terminal && !as_json {
            redraw(&bar(&rebuild));
        }
        last = Some(rebuild);
    }
    if terminal && !as_json {
        redraw("");
    }
    let Some(last) = last else {
        return Err(Failure::new(anyhow::anyhow!(
            "the host closed the progress stream without a result"
        )));
    };
    if as_json {
        print_json(&last)?;
    }
    let reason = last.reason.clone().unwrap_or_default();
    match last.state {
        RebuildState::Done => {
            if !as_json {
                print(&result(&last))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        RebuildState::Running => Err(Failure::new(anyhow::anyhow!(
            "the host has stopped; the rebuild continues after its restart"
        ))),
        state => Err(Failure::new(anyhow::anyhow!("rebuild {id} is {state}: {reason}"))),
    }
}

/// Renders the result of a finished rebuild: a summary, and one line per table.
fn result(rebuild: &Rebuild) -> String {
    let mut text = format!("rebuild {} of {}: done", rebuild.id, rebuild.plugin);
    let Some(outcome) = &rebuild.outcome else {
        return text + "\n";
    };
    let time = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok();
    let ended = rebuild.ended_at.as_deref().and_then(time);
    let took = ended
        .zip(time(&rebuild.started_at))
        .map_or_else(String::new, |(ended, started)| {
            let milliseconds = (ended - started).num_milliseconds();
            format!(" in {:.1} s", milliseconds as f64 / 1_000.0)
        });
    text.push_str(&format!(
        ", {} rows{took}, {} carried over, {} lost\n",
        outcome.row_count, outcome.rows_carried_over, outcome.rows_lost
    ));
    for table in &outcome.tables {
        text.push_str(&match table.change {
            TableChange::Kept => format!(
                "  table {}: kept with {} rows; this version does not declare it (--drop-undeclared drops it)\n",
                table.table, table.rows_after
            ),
            TableChange::Dropped => format!("  table {}: dropped with {} rows\n", table.table, table.rows_before),
            TableChange::Rebuilt | TableChange::Added => format!(
                "  table {}: {} rows before, {} after\n",
                table.table, table.rows_before, table.rows_after
            ),
        });
    }
    if let Some(until) = &rebuild.previous_until {
        text.push_str(&format!(
            "  the replaced tables are kept until {}; to restore them: lantern plugin rollback {}\n",
            table::to_the_second(until),
            rebuild.plugin
        ));
    }
    for difference in &outcome.accepted {
        text.push_str(&format!("  accepted: {difference}\n"));
    }
    text
}

/// Parses a duration, or 0.
fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("invalid duration {text:?}; expected a value such as 1d, 12h, 30m or 0"))
}

/// Renders a progress bar with messages, rate and remaining time.
fn bar(rebuild: &Rebuild) -> String {
    const WIDTH: u64 = 30;
    let Some(progress) = rebuild.progress else {
        return format!("rebuild {}: {}", rebuild.id, rebuild.state);
    };
    let all = (progress.messages + progress.messages_left).max(1);
    let full = usize::try_from(progress.messages * WIDTH / all).unwrap_or_default();
    let eta = progress
        .eta_seconds
        .map_or_else(String::new, |seconds| format!(", {seconds:.0} s left"));
    let blocked = rebuild
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(" (blocked: {reason})"));
    format!(
        "[{}{}] {} of {all} messages, {:.0}/s{eta}{blocked}",
        "#".repeat(full),
        "-".repeat(WIDTH as usize - full),
        progress.messages,
        progress.rate
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_api::{RebuildOutcome, RebuildProgress, TableOutcome};

    #[test]
    fn the_progress_bar_shows_messages_rate_and_remaining_time() {
        let rebuild = Rebuild {
            id: 3,
            plugin: "p".into(),
            digest: "sha256:0".into(),
            state: RebuildState::Running,
            started_at: String::new(),
            ended_at: None,
            reason: Some("the broker is away".into()),
            progress: Some(RebuildProgress {
                messages: 500,
                messages_left: 1_500,
                rate: 250.0,
                eta_seconds: Some(6.0),
            }),
            outcome: None,
            previous_until: None,
        };
        assert_eq!(
            bar(&rebuild),
            "[#######-----------------------] 500 of 2000 messages, 250/s, 6 s left (blocked: the broker is away)"
        );
    }

    #[test]
    fn a_duration_has_a_unit() {
        let seconds = |text: &str| parse_duration(text).map(|duration| duration.as_secs());
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("1d", 86_400),
            ("12h", 43_200),
            ("30m", 1_800),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "1", "d", "-1d", "99999999999999999999d", "ä"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_result_lists_every_table() {
        let table = |table: &str, change: TableChange, rows_before, rows_after| TableOutcome {
            table: table.into(),
            change,
            rows_before,
            rows_after,
        };
        let rebuild = Rebuild {
            id: 1,
            plugin: "op".into(),
            digest: "sha256:0".into(),
            state: RebuildState::Done,
            started_at: "2026-11-28T10:00:00Z".into(),
            ended_at: Some("2026-11-28T10:00:00.4Z".into()),
            reason: None,
            progress: None,
            outcome: Some(RebuildOutcome {
                messages: 500,
                row_count: 1_000,
                rows_carried_over: 500,
                rows_lost: 0,
                tables: vec![
                    table("op", TableChange::Rebuilt, 1_000, 1_000),
                    table("op_more", TableChange::Kept, 7, 7),
                ],
                accepted: Vec::new(),
            }),
            previous_until: None,
        };
        assert_eq!(
            result(&rebuild),
            "rebuild 1 of op: done, 1000 rows in 0.4 s, 500 carried over, 0 lost\n  \
             table op: 1000 rows before, 1000 after\n  \
             table op_more: kept with 7 rows; this version does not declare it (--drop-undeclared drops it)\n"
        );
    }
}
