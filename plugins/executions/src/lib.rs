//! Projects executions of jobs into one table, `execution_results`: a message of the stream `EVENTS` says that an
//! execution started, one of the stream `RESULTS` how it ended. They come in any order and any number of times. A
//! start makes a row that is in flight; a result completes it, or makes it complete if it comes first. A row that
//! is complete stays as it is.

use lantern_sdk::prelude::*;
use serde::Deserialize;

lantern_sdk::export!(Executions);

/// The plugin.
pub struct Executions;

impl Plugin for Executions {
    const SOURCES: Sources<Self> = &[
        Source::stream("events", "EVENTS", &["events.started.>"], started),
        Source::stream("results", "RESULTS", &["results.>"], finished),
    ];
    const WRITES: Writes = &[Started::WRITE, Finished::WRITE];
}

/// What ran where, and how it ended. A row without `finished_at` is still running.
#[derive(Table)]
#[table(
    name = "execution_results",
    primary_key = [result_id],
    index = [pc_id, started_at],
    index = [job_id, pc_id, finished_at],
    index = [exec_id]
)]
struct ExecutionResult {
    result_id: String,
    request_id: String,
    /// The deployment that it belongs to; many machines share one.
    exec_id: Option<String>,
    #[column(entity)]
    pc_id: String,
    #[column(facet)]
    exit_code: Option<i64>,
    stdout: Option<String>,
    stderr: Option<String>,
    #[column(time)]
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
    /// The manifest that was run.
    #[column(facet)]
    job_id: Option<String>,
    /// The manifest's version; only starts know it.
    version: Option<String>,
    /// When the broker stored the message that the row shows.
    recorded_at: Timestamp,
}

/// An execution that started. When its result is there already, it has nothing to say.
#[derive(Deserialize, Row)]
#[row(table = ExecutionResult, on_conflict = ignore)]
struct Started {
    result_id: String,
    request_id: String,
    exec_id: String,
    pc_id: String,
    started_at: Timestamp,
    #[serde(rename = "manifest_id")]
    job_id: String,
    version: String,
    #[serde(skip)]
    recorded_at: Timestamp,
}

/// An execution that ended. It completes the row of its start, once.
#[derive(Deserialize, Row)]
#[row(table = ExecutionResult, on_conflict = update(
    key = [result_id],
    while_null = finished_at,
    replace = [exit_code, stdout, stderr, finished_at, recorded_at],
    fill = [exec_id, job_id],
))]
struct Finished {
    result_id: String,
    request_id: String,
    exec_id: Option<String>,
    pc_id: String,
    exit_code: i64,
    stdout: String,
    stderr: String,
    started_at: Timestamp,
    finished_at: Timestamp,
    #[serde(rename = "manifest_id")]
    job_id: Option<String>,
    #[serde(skip)]
    recorded_at: Timestamp,
}

fn started(message: &Message<'_>, rows: &mut Rows<Executions>) -> Result {
    rows.put(Started {
        recorded_at: message.published,
        ..message.json()?
    });
    Ok(())
}

fn finished(message: &Message<'_>, rows: &mut Rows<Executions>) -> Result {
    let result: Finished = message.json()?;
    rows.put(Finished {
        recorded_at: message.published,
        stdout: without_nul(result.stdout),
        stderr: without_nul(result.stderr),
        ..result
    });
    Ok(())
}

/// Programs print NUL characters (`wmic` prints UTF-16), and a text column takes none. A result must not be lost
/// for that, so each becomes U+FFFD.
fn without_nul(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}
