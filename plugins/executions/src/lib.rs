//! Projects executions of jobs into the table `execution_results`: messages of the stream `EVENTS` report starts, messages of the
//! stream `RESULTS` report results, in any order and possibly repeated. The first start and the first result of an execution
//! determine its row: whichever arrives first creates the row, and the other one sets its own columns. The row therefore does
//! not depend on the order in which the host reads the two streams. Later starts and results change nothing.

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

/// Executions with their results. A row without `finished_at` is still running.
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
    /// The deployment, which several machines may share.
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
    /// The manifest of the job.
    #[column(facet)]
    job_id: Option<String>,
    /// The version of the manifest, from the start message.
    version: Option<String>,
    /// The time at which the broker stored the last message of the row.
    recorded_at: Timestamp,
}

/// A started execution. It sets its columns once, also in the row of a result that arrived first. A row has a version if and
/// only if its start is stored.
#[derive(Deserialize, Row)]
#[row(table = ExecutionResult, on_conflict = update(
    key = [result_id],
    while_null = version,
    replace = [request_id, exec_id, pc_id, started_at, job_id, version],
    max = [recorded_at],
))]
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

/// A finished execution. It sets its columns once, also in the row of a start that arrived first. Columns that the start has
/// as well keep the start's values.
#[derive(Deserialize, Row)]
#[row(table = ExecutionResult, on_conflict = update(
    key = [result_id],
    while_null = finished_at,
    replace = [exit_code, stdout, stderr, finished_at],
    max = [recorded_at],
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

/// Replaces NUL characters by U+FFFD. Some programs print them (`wmic` prints UTF-16), and text columns do not allow them.
fn without_nul(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}
