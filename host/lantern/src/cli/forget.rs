//! `lantern forget`: erases a person's data, after it has shown what it would remove and asked for confirmation.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use anyhow::Context as _;
use clap::Args;

use super::client::OutputArgs;
use super::{Failure, print, print_json};
use lantern_api::{Forget, ForgetReport};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// Column and value, such as email=ann@example.org, with an optional table [default: all tables]. COLUMN=- reads the value
    /// from standard input, which keeps it out of the shell's history.
    #[arg(value_name = "[TABLE] COLUMN=VALUE", num_args = 1..=2, required_unless_present = "outstanding")]
    condition: Vec<String>,
    /// Only rows of this table; repeatable.
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Only rows in tables of this plugin.
    #[arg(long, value_name = "NAME", value_parser = PluginName::parse)]
    plugin: Option<PluginName>,
    /// Do not change dead letters that mention the value.
    #[arg(long)]
    keep_dead_letters: bool,
    /// Only delete messages that earlier erasures could not delete from their streams.
    #[arg(long, conflicts_with = "condition")]
    outstanding: bool,
    /// Rewrite the database file at the end, to remove traces from its unused parts; writes wait meanwhile [default: up to 1
    /// GiB].
    #[arg(long)]
    vacuum: bool,
    /// Do not rewrite the database file.
    #[arg(long, conflicts_with = "vacuum")]
    no_vacuum: bool,
    /// Show what would be removed, without changing anything.
    #[arg(long)]
    dry_run: bool,
    /// Erase without confirmation.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &ForgetArgs) -> Result<(), Failure> {
    let client = args.output.open()?;
    let mut body = body(args)?;
    let mut call = |dry_run: bool| -> Result<ForgetReport, Failure> {
        body.dry_run = dry_run;
        client.post_json_for_long("/api/v1/forget", &body)
    };
    if args.dry_run || !args.yes {
        let planned = call(true)?;
        match args.output.json {
            true if args.dry_run => print_json(&planned)?,
            true => {}
            false => print(&render(&planned))?,
        }
        let deletes = planned.streams.iter().any(|stream| stream.messages_deleted > 0);
        if args.dry_run || (planned.messages == 0 && !deletes) {
            return Ok(());
        }
        confirm(client.url())?;
    }
    let done = call(false)?;
    args.output.print(&done, render)
}

fn body(args: &ForgetArgs) -> Result<Forget, Failure> {
    let vacuum = match (args.vacuum, args.no_vacuum) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    if args.outstanding {
        return Ok(Forget {
            outstanding: true,
            vacuum,
            ..Forget::default()
        });
    }
    let (table, condition) = match args.condition.as_slice() {
        [condition] => (None, condition),
        [table, condition] => (Some(table.clone()), condition),
        _ => {
            return Err(Failure::usage(
                "expected COLUMN=VALUE, or a table and COLUMN=VALUE",
            ));
        }
    };
    let Some((column, value)) = condition.split_once('=') else {
        return Err(Failure::usage("missing value: expected COLUMN=VALUE"));
    };
    let value = match value {
        "-" => read_value()?,
        value => value.to_owned(),
    };
    let tables: Vec<String> = table.into_iter().chain(args.tables.iter().cloned()).collect();
    Ok(Forget {
        column: Some(column.to_owned()),
        value: Some(value.into()),
        tables,
        plugin: args.plugin.as_ref().map(ToString::to_string),
        keep_dead_letters: args.keep_dead_letters,
        vacuum,
        ..Forget::default()
    })
}

/// Reads the value from standard input, without a trailing line end.
fn read_value() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(1 << 20)
        .read_to_string(&mut text)
        .context("failed to read the value from standard input")
        .map_err(Failure::new)?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn confirm(url: &str) -> Result<(), Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(
            Failure::usage("erasure requires confirmation, and standard input is not a terminal")
                .hint("use --yes to erase without confirmation, or --dry-run to change nothing"),
        );
    }
    let mut answer = String::new();
    let written = write!(
        io::stderr(),
        "This cannot be undone. Erase the data at {url}? [y/N] "
    );
    written
        .and_then(|()| io::stderr().flush())
        .and_then(|()| stdin.lock().read_line(&mut answer))
        .context("failed to ask for confirmation")
        .map_err(Failure::new)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was erased")),
    }
}

fn render(report: &ForgetReport) -> String {
    let verb = if report.dry_run { "would erase" } else { "erased" };
    let mut text = format!("{verb} {} messages\n", report.messages);
    for table in &report.tables {
        text.push_str(&format!(
            "  table {}: {} rows contain the value, {} rows of these messages {}\n",
            table.table,
            table.rows_matching,
            table.rows_removed,
            if report.dry_run {
                "would be removed"
            } else {
                "are removed"
            }
        ));
    }
    if report.dead_letters > 0 {
        text.push_str(&format!(
            "  {} dead letters lose their content, but stay listed\n",
            report.dead_letters
        ));
    }
    for stream in &report.streams {
        text.push_str(&format!(
            "  stream {}: {} messages {}, {} already gone, {} left\n",
            stream.stream,
            stream.messages_deleted,
            if report.dry_run {
                "would be deleted"
            } else {
                "deleted"
            },
            stream.messages_gone,
            stream.messages_left
        ));
        if let Some(reason) = &stream.reason {
            text.push_str(&format!("    not deleted: {reason}\n"));
        }
        if let Some(remedy) = &stream.remedy {
            text.push_str(&format!("    remedy: {remedy}\n"));
        }
    }
    if !report.kept_tables.is_empty() {
        text.push_str(&format!(
            "  the replaced tables of {}, kept for a rollback, are removed as well\n",
            report.kept_tables.join(", ")
        ));
    }
    for note in &report.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_api::{ForgottenStream, ForgottenTable};

    #[test]
    fn the_report_lists_remaining_messages_with_the_remedy() {
        let report = ForgetReport {
            dry_run: false,
            tables: vec![ForgottenTable {
                table: "orders".into(),
                rows_matching: 2,
                rows_removed: 3,
            }],
            messages: 2,
            dead_letters: 1,
            streams: vec![ForgottenStream {
                stream: "S".into(),
                messages_deleted: 1,
                messages_gone: 0,
                messages_left: 1,
                reason: Some("the stream has deny_delete".into()),
                remedy: Some("purge".into()),
            }],
            kept_tables: vec!["p".into()],
            vacuumed: true,
            log_emptied: true,
            notes: vec!["more".into()],
        };
        assert_eq!(
            render(&report),
            "erased 2 messages\n  \
             table orders: 2 rows contain the value, 3 rows of these messages are removed\n  \
             1 dead letters lose their content, but stay listed\n  \
             stream S: 1 messages deleted, 0 already gone, 1 left\n    \
             not deleted: the stream has deny_delete\n    \
             remedy: purge\n  \
             the replaced tables of p, kept for a rollback, are removed as well\n  \
             note: more\n"
        );
    }
}
