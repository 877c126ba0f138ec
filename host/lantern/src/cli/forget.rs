//! `lantern forget`: erases a person's data. Shows what it would remove and asks before it does.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Client, HostArgs};
use super::{Failure, print, print_json};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The column with the value, such as email=ann@example.org, after a table or alone for all tables. COLUMN=- reads the
    /// value from standard input, so that it is not in the shell's history.
    #[arg(value_name = "[TABLE] COLUMN=VALUE", num_args = 1..=2, required_unless_present = "outstanding")]
    what: Vec<String>,
    /// Only in this table; may be repeated.
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Only in tables of this plugin.
    #[arg(long, value_name = "NAME", value_parser = PluginName::parse)]
    plugin: Option<PluginName>,
    /// Leave dead letters that mention the value as they are.
    #[arg(long)]
    keep_dead_letters: bool,
    /// Only delete messages that earlier erasures could not delete from their streams.
    #[arg(long, conflicts_with = "what")]
    outstanding: bool,
    /// Rewrite the database file at the end, so that no trace is left in its unused parts; nothing is stored meanwhile
    /// [default: up to 1 GiB].
    #[arg(long)]
    vacuum: bool,
    /// Do not rewrite the database file.
    #[arg(long, conflicts_with = "vacuum")]
    no_vacuum: bool,
    /// Show what would be removed, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Deserialize, Serialize)]
struct Forgotten {
    dry_run: bool,
    tables: Vec<Table>,
    messages: u64,
    dead_letters: u64,
    streams: Vec<Stream>,
    kept_tables: Vec<String>,
    vacuumed: bool,
    log_emptied: bool,
    notes: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct Table {
    table: String,
    matching: u64,
    removed: u64,
}

#[derive(Deserialize, Serialize)]
struct Stream {
    stream: String,
    deleted: u64,
    gone: u64,
    left: u64,
    reason: Option<String>,
    remedy: Option<String>,
}

pub fn run(args: &ForgetArgs) -> Result<(), Failure> {
    let client = Client::open(&args.host)?;
    let mut body = body(args)?;
    let mut call = |dry_run: bool| -> Result<Forgotten, Failure> {
        body["dry_run"] = json!(dry_run);
        client.post_json_for_long("/api/v1/forget", &body)
    };
    if args.dry_run || !args.yes {
        let planned = call(true)?;
        match args.json {
            true if args.dry_run => print_json(&planned)?,
            true => {}
            false => print(&render(&planned))?,
        }
        if args.dry_run || (!args.outstanding && planned.messages == 0) {
            return Ok(());
        }
        confirm(client.url())?;
    }
    let done = call(false)?;
    match args.json {
        true => print_json(&done),
        false => print(&render(&done)),
    }
}

fn body(args: &ForgetArgs) -> Result<serde_json::Value, Failure> {
    let vacuum = match (args.vacuum, args.no_vacuum) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    if args.outstanding {
        return Ok(json!({ "outstanding": true, "vacuum": vacuum }));
    }
    let (table, condition) = match args.what.as_slice() {
        [condition] => (None, condition),
        [table, condition] => (Some(table.clone()), condition),
        _ => return Err(Failure::usage("give COLUMN=VALUE, or a table and COLUMN=VALUE")),
    };
    let Some((column, value)) = condition.split_once('=') else {
        return Err(Failure::usage("the value is missing: give COLUMN=VALUE"));
    };
    let value = match value {
        "-" => read_value()?,
        value => value.to_owned(),
    };
    let tables: Vec<String> = table.into_iter().chain(args.tables.iter().cloned()).collect();
    Ok(json!({
        "column": column,
        "value": value,
        "tables": tables,
        "plugin": args.plugin.as_ref().map(ToString::to_string),
        "keep_dead_letters": args.keep_dead_letters,
        "vacuum": vacuum,
    }))
}

/// The value from standard input, without the line end behind it.
fn read_value() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(1 << 20)
        .read_to_string(&mut text)
        .context("cannot read the value from standard input")
        .map_err(Failure::new)?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn confirm(url: &str) -> Result<(), Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(
            Failure::usage("erasing asks first, and standard input is not a terminal")
                .hint("give --yes to erase without a question, or --dry-run to change nothing"),
        );
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "This cannot be undone. Erase this at {url}? [y/N] ");
    asked
        .and_then(|()| io::stderr().flush())
        .and_then(|()| stdin.lock().read_line(&mut answer))
        .context("cannot ask")
        .map_err(Failure::new)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was erased")),
    }
}

fn render(report: &Forgotten) -> String {
    let verb = if report.dry_run { "would erase" } else { "erased" };
    let mut text = format!("{verb} {} messages\n", report.messages);
    for table in &report.tables {
        text.push_str(&format!(
            "  table {}: {} rows hold the value, {} rows of these messages {}\n",
            table.table,
            table.matching,
            table.removed,
            if report.dry_run {
                "would be removed"
            } else {
                "are removed"
            }
        ));
    }
    if report.dead_letters > 0 {
        text.push_str(&format!(
            "  {} dead letters lose their content and stay as entries\n",
            report.dead_letters
        ));
    }
    for stream in &report.streams {
        text.push_str(&format!(
            "  stream {}: {} messages {}, {} already gone, {} left\n",
            stream.stream,
            stream.deleted,
            if report.dry_run {
                "would be deleted"
            } else {
                "deleted"
            },
            stream.gone,
            stream.left
        ));
        if let Some(reason) = &stream.reason {
            text.push_str(&format!("    not deleted: {reason}\n"));
        }
        if let Some(remedy) = &stream.remedy {
            text.push_str(&format!("    to do: {remedy}\n"));
        }
    }
    if !report.kept_tables.is_empty() {
        text.push_str(&format!(
            "  replaced tables of {}, kept for a rollback, are removed as well\n",
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

    #[test]
    fn the_report_names_what_is_left_and_what_to_do() {
        let report = Forgotten {
            dry_run: false,
            tables: vec![Table {
                table: "orders".into(),
                matching: 2,
                removed: 3,
            }],
            messages: 2,
            dead_letters: 1,
            streams: vec![Stream {
                stream: "S".into(),
                deleted: 1,
                gone: 0,
                left: 1,
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
             table orders: 2 rows hold the value, 3 rows of these messages are removed\n  \
             1 dead letters lose their content and stay as entries\n  \
             stream S: 1 messages deleted, 0 already gone, 1 left\n    \
             not deleted: the stream has deny_delete\n    \
             to do: purge\n  \
             replaced tables of p, kept for a rollback, are removed as well\n  \
             note: more\n"
        );
    }
}
