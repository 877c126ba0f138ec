//! `lantern check`: how the verdict over a database is shown. The verdict itself is the store's.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Failure, commands, print, print_json, table};

/// What is typed after `lantern check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
}

/// What was found in a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The file.
    pub database: PathBuf,
    /// Each history of each source, ordered by plugin, source and epoch.
    pub sources: Vec<SourceCheck>,
    /// Everything that is not as it has to be, in sentences.
    pub problems: Vec<String>,
}

/// What the ledger says of one history of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceCheck {
    /// The plugin's name.
    pub plugin: String,
    /// The source's name.
    pub source: String,
    /// The epoch.
    pub epoch: u64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The last sequence that has taken effect.
    pub checkpoint: u64,
    /// Messages handled: projected, skipped and dead together.
    pub messages: u64,
    /// Those that became rows.
    pub projected: u64,
    /// Those that the plugin passed over.
    pub skipped: u64,
    /// Those that became dead letters.
    pub dead: u64,
    /// Sequences that were gone before they were read.
    pub missing: u64,
    /// Rows that the plugin answered with.
    pub rows: u64,
}

impl CheckReport {
    /// For people.
    pub fn render(&self) -> String {
        let mut text = format!("{}\n\n", self.database.display());
        if self.sources.is_empty() {
            text.push_str("no source has been read yet\n");
        } else {
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
            ];
            let mut rows = vec![head.map(str::to_owned).to_vec()];
            rows.extend(self.sources.iter().map(SourceCheck::cells));
            let right = [false, true, false, true, true, true, true, true, true, true];
            text.push_str(&table::align(&rows, &right, ""));
        }
        text.push('\n');
        match self.problems.as_slice() {
            [] => text.push_str("all is as it has to be\n"),
            problems => {
                let word = if problems.len() == 1 {
                    "problem"
                } else {
                    "problems"
                };
                // Writing to a String does not fail.
                let _ = writeln!(text, "{} {word}:", problems.len());
                for problem in problems {
                    let _ = writeln!(text, "  - {problem}");
                }
            }
        }
        text
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

/// Prints the verdict; the exit code is 1 when there are problems.
pub fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let report = commands::check(&args.data_dir)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_reads_well() {
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
        };
        let core = SourceCheck {
            plugin: "host-perf".into(),
            stream: None,
            checkpoint: 7,
            ..source.clone()
        };
        let mut report = CheckReport {
            database: "data/lantern.db".into(),
            sources: vec![core, source],
            problems: Vec::new(),
        };
        assert_eq!(
            report.render(),
            "\
data/lantern.db

plugin/source      epoch  stream      checkpoint  messages  projected  skipped  dead  missing   rows
host-perf/events       1  (core)               7     12278      12277        0     1        0  12277
obs-events/events      1  OBS_EVENTS       12278     12278      12277        0     1        0  12277

all is as it has to be
"
        );
        report
            .problems
            .push("obs-events/events: the ledger has a hole from 5 to 9".into());
        assert!(
            report
                .render()
                .ends_with("1 problem:\n  - obs-events/events: the ledger has a hole from 5 to 9\n")
        );
    }
}
