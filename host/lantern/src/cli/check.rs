//! `lantern check`: verifies a database and prints the report. The store performs the checks.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Failure, block_on, make_files_private, print, print_json, table};
use crate::app;
use crate::config::{Flag, HostConfig, Sources, resolve};
use lantern_store::check::{AuditReport, Problem, TableReport, plural};
use lantern_store::{AuditHash, Location};

/// Arguments of `lantern check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Also project the messages that the streams still hold again, and compare rows and ledger with the result.
    #[arg(long)]
    deep: bool,
    /// Number of messages to compare for each plugin (approximate); default: all.
    #[arg(long, value_name = "N", requires = "deep", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    /// Configuration file of the host, for its broker and limits (with --deep).
    #[arg(long, value_name = "FILE", env = "LANTERN_CONFIG")]
    config: Option<PathBuf>,
    /// URL of the NATS servers [default: from the configuration, or the broker of the running host].
    #[arg(long, value_name = "URL", requires = "deep")]
    nats: Option<OsString>,
    /// Hash of the audit that was noted earlier; a problem is reported if the audit no longer contains it.
    #[arg(long, value_name = "HASH")]
    audit_head: Option<AuditHash>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    fn sources(&self) -> Sources {
        let data_dir = Flag {
            setting: "data_dir",
            name: "--data-dir",
            value: self.data_dir.clone().into_os_string(),
        };
        let nats = self.nats.clone().map(|value| Flag {
            setting: "broker.url",
            name: "--nats",
            value,
        });
        Sources::of_process(
            self.config.clone(),
            std::iter::once(data_dir).chain(nats).collect(),
        )
    }
}

/// Result of a deep check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeepCheck {
    /// The broker whose messages were used, without its login.
    pub broker: String,
    /// Messages of all streams that the ledger counts.
    pub messages_handled: u64,
    /// Messages that were projected again.
    pub messages: u64,
    /// Rows that equal the rows of their messages.
    pub rows_identical: u64,
}

/// Report on a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Path of the database, or address of the server without the password.
    pub database: String,
    /// Every epoch of every source, ordered by plugin, source and epoch.
    pub sources: Vec<SourceCheck>,
    /// Every table of every plugin.
    pub tables: Vec<TableReport>,
    /// Every problem with its remedy.
    pub problems: Vec<Problem>,
    /// Checks that were not possible, as sentences.
    pub unverified: Vec<String>,
    /// Checks that only a deep check performs.
    #[serde(skip)]
    pub unverified_values: Vec<String>,
    /// The chain of the audit.
    pub audit: AuditReport,
    /// Result of the comparison with the messages; `None` without `--deep`.
    pub deep: Option<DeepCheck>,
}

/// Ledger of one epoch of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceCheck {
    /// The plugin's name.
    pub plugin: String,
    /// The source's name.
    pub source: String,
    /// The epoch.
    pub epoch: u64,
    /// The stream; `None` for core NATS.
    pub stream: Option<String>,
    /// The last committed sequence.
    pub checkpoint: u64,
    /// Messages handled: projected, skipped and dead together.
    pub messages: u64,
    /// Messages that became rows.
    pub projected: u64,
    /// Messages that the plugin skipped.
    pub skipped: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Sequences that the stream dropped before the host read them.
    pub missing: u64,
    /// Rows that the plugin returned: inserted, updated and present together.
    pub rows: u64,
    /// Inserted rows. For tables whose writes update rows, without rows that an earlier version of Lantern recorded.
    pub inserted: u64,
    /// Rows that changed a stored row.
    pub updated: u64,
    /// Rows that changed nothing, because a row with their key existed.
    pub present: u64,
}

impl CheckReport {
    /// Renders the report as text.
    pub fn render(&self) -> String {
        let mut text = format!("{}\n\n", self.database);
        text.push_str(&self.render_sources());
        if !self.tables.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{}", self.render_tables());
        }
        if let Some(head) = &self.audit.head {
            let rows = plural(self.audit.rows, "row");
            let _ = writeln!(text, "\naudit: {rows}, head {head}");
        }
        if let Some(row) = self.audit.noted_row {
            let _ = writeln!(text, "audit: the noted hash is that of row {row}");
        }
        text.push('\n');
        if let Some(deep) = &self.deep {
            let _ = writeln!(
                text,
                "Broker: {}\nProjected again: {} of {}, {} identical\n",
                deep.broker,
                deep.messages,
                plural(deep.messages_handled, "message"),
                plural(deep.rows_identical, "row")
            );
        }
        match self.problems.as_slice() {
            [] => text.push_str("OK: no problems found\n"),
            problems => {
                text.push_str("Problems:\n");
                for Problem { problem, remedy } in problems {
                    let _ = writeln!(text, "  - {problem}\n    remedy: {remedy}");
                }
            }
        }
        if !self.unverified.is_empty() {
            text.push_str("Not verified:\n");
            for note in &self.unverified {
                let _ = writeln!(text, "  - {note}");
            }
        }
        text
    }

    fn render_sources(&self) -> String {
        if self.sources.is_empty() {
            return "No source has been read yet.\n".to_owned();
        }
        let head = [
            "plugin/source",
            "epoch",
            "stream",
            "checkpoint",
            "messages",
            "projected",
            "skipped",
            "dead",
            "missing",
            "rows",
            "inserted",
            "updated",
            "present",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.sources.iter().map(SourceCheck::cells));
        let mut right = [true; 13];
        (right[0], right[2]) = (false, false);
        table::align(&rows, &right, "")
    }

    fn render_tables(&self) -> String {
        let head = ["plugin", "table", "row count", "expired"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.tables.iter().map(|table| {
            vec![
                table.plugin.clone(),
                table.table.clone(),
                table.row_count.to_string(),
                table.expired.to_string(),
            ]
        }));
        table::align(&rows, &[false, false, true, true], "")
    }
}

impl SourceCheck {
    fn cells(&self) -> Vec<String> {
        let numbers = [
            self.checkpoint,
            self.messages,
            self.projected,
            self.skipped,
            self.dead,
            self.missing,
            self.rows,
            self.inserted,
            self.updated,
            self.present,
        ];
        let mut cells = vec![
            format!("{}/{}", self.plugin, self.source),
            self.epoch.to_string(),
            self.stream.clone().unwrap_or_else(|| "(core)".into()),
        ];
        cells.extend(numbers.map(|number| number.to_string()));
        cells
    }
}

/// Prints the report; the exit code is 1 if there are problems, or if a deep check compared nothing.
pub fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let location = location(args)?;
    let mut report = verify(&location, args.audit_head)?;
    if args.deep {
        let config = resolve(&args.sources()).1?;
        // The embedded broker of a stopped host starts for the check.
        make_files_private();
        verify_values(&config, args.sample, &mut report)?;
    } else {
        let values = std::mem::take(&mut report.unverified_values);
        report.unverified.splice(0..0, values);
    }
    match args.json {
        true => print_json(&report)?,
        false => print(&report.render())?,
    }
    Ok(if report.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where the tables are, according to the configuration.
fn location(args: &CheckArgs) -> Result<Location, Failure> {
    let config = resolve(&args.sources()).1?;
    Ok(match config.store.server {
        Some(server) => Location::Postgres(server),
        None => Location::Sqlite(args.data_dir.join(lantern_store::DATABASE_FILE)),
    })
}

/// Verifies a database, and that its audit contains the hash `audit_head`.
fn verify(location: &Location, audit_head: Option<AuditHash>) -> Result<CheckReport, Failure> {
    let report = match location {
        Location::Sqlite(path) => lantern_store::check::check_with(path, audit_head),
        Location::Postgres(server) => {
            let server = server.clone();
            let check = move || lantern_store::check::check_server(&server, audit_head);
            block_on(async { tokio::task::spawn_blocking(check).await })?.map_err(Failure::new)?
        }
    };
    let report = report.map_err(Failure::new)?;
    let database = location.to_string();
    let unverified_values = report.unverified_values();
    let sources = report
        .sources
        .into_iter()
        .map(|source| SourceCheck {
            plugin: source.plugin,
            source: source.source,
            epoch: source.epoch,
            stream: source.stream,
            checkpoint: source.checkpoint,
            messages: source.counts.messages,
            projected: source.counts.projected,
            skipped: source.counts.skipped,
            dead: source.counts.dead,
            missing: source.counts.missing,
            rows: source.counts.rows,
            inserted: source.counts.inserted,
            updated: source.counts.updated,
            present: source.counts.present(),
        })
        .collect();
    Ok(CheckReport {
        database,
        unverified_values,
        audit: report.audit,
        deep: None,
        sources,
        tables: report.tables,
        problems: report.problems,
        unverified: report.unverified,
    })
}

/// Compares the rows of the database with the rows of their messages, and adds the result to `report`.
fn verify_values(config: &HostConfig, sample: Option<u64>, report: &mut CheckReport) -> Result<(), Failure> {
    let found = block_on(app::check_deep(config, sample))?.map_err(Failure::new)?;
    let app::DeepCheck {
        broker,
        report: found,
    } = found;
    report.problems.extend(found.problems);
    report.unverified.splice(0..0, found.unverified);
    report.deep = Some(DeepCheck {
        broker,
        messages_handled: found.handled,
        messages: found.messages,
        rows_identical: found.rows,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> CheckReport {
        let source = SourceCheck {
            plugin: "obs-events".into(),
            source: "events".into(),
            epoch: 1,
            stream: Some("OBS_EVENTS".into()),
            checkpoint: 12_278,
            messages: 12_278,
            projected: 12_277,
            skipped: 0,
            dead: 1,
            missing: 0,
            rows: 12_277,
            inserted: 12_000,
            updated: 200,
            present: 77,
        };
        let core = SourceCheck {
            plugin: "host-perf".into(),
            stream: None,
            checkpoint: 7,
            ..source.clone()
        };
        CheckReport {
            database: "data/lantern.db".to_owned(),
            sources: vec![core, source],
            tables: vec![TableReport {
                plugin: "obs-events".into(),
                table: "obs_events".into(),
                row_count: 12_000,
                expired: 3,
                merges: false,
            }],
            problems: Vec::new(),
            unverified: vec!["the values in the tables".into()],
            unverified_values: Vec::new(),
            audit: AuditReport {
                rows: 3,
                head: Some("5e".repeat(32)),
                noted_row: Some(2),
            },
            deep: None,
        }
    }

    #[test]
    fn the_report_lists_sources_tables_and_problems() {
        let mut report = report();
        let text = report.render();
        let lines: Vec<&str> = text.lines().collect();
        let head: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(
            head,
            [
                "plugin/source",
                "epoch",
                "stream",
                "checkpoint",
                "messages",
                "projected",
                "skipped",
                "dead",
                "missing",
                "rows",
                "inserted",
                "updated",
                "present"
            ]
        );
        assert!(lines[3].starts_with("host-perf/events"), "{text}");
        assert!(lines[3].contains(" (core) "), "{text}");
        assert!(
            text.ends_with(
                "\nplugin      table       row count  expired\nobs-events  obs_events      12000        3\n\n\
                 audit: 3 rows, head 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e\n\
                 audit: the noted hash is that of row 2\n\n\
                 OK: no problems found\nNot verified:\n  - the values in the tables\n"
            ),
            "{text}"
        );
        report.unverified.clear();
        report.problems = vec![Problem {
            problem: "obs-events/events, epoch 1: the ledger has a hole between 5 and 9".into(),
            remedy: "lantern rebuild obs-events".into(),
        }];
        assert!(
            report.render().ends_with(
                "Problems:\n  - obs-events/events, epoch 1: the ledger has a hole between 5 and 9\n    \
                 remedy: lantern rebuild obs-events\n"
            ),
            "{}",
            report.render()
        );
    }
}
