//! SQL queries of operators, if the setting `http.sql` allows them.

use axum::Json;
use axum::extract;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

use super::change::AuditNote;
use super::csv;
use super::items::not_json;
use super::parameters::Parameters;
use super::problem::Problem;
use super::room::Room;
use super::state::State;
use lantern_api as api;
use lantern_model::batch::clean_text;
use lantern_model::value::{Integers, JsonValue, Value};
use lantern_store::reader::{SqlAnswer, SqlError};

/// Maximum rows of a JSON response.
const ROWS_MAX: usize = 1_000;

/// Maximum rows of a CSV response.
const ROWS_MAX_CSV: usize = 100_000;

/// Maximum length of a statement in the audit, in bytes.
const STATEMENT_BYTES_MAX: usize = 512;

pub async fn sql(
    extract::State(state): extract::State<State>,
    note: AuditNote,
    _room: Room,
    uri: Uri,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(&uri, &["query", "format"])?;
    note.detail(clean_text(
        parameters.get("query").unwrap_or_default(),
        STATEMENT_BYTES_MAX,
    ));
    if !state.access.config().sql {
        let problem = Problem::not_found("this host does not accept SQL queries");
        return Err(problem.hint("set http.sql = true to allow them for operators"));
    }
    let is_csv = parameters.choice("format", &["json", "csv"])? == Some("csv");
    let query = parameters
        .get("query")
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| Problem::bad_request("query is required: a SELECT statement"))?;
    let rows_max = if is_csv { ROWS_MAX_CSV } else { ROWS_MAX };
    let answer = state.reader.sql(query, rows_max).await?;
    if is_csv {
        return Ok(file(&answer));
    }
    let value = |value: &Value| serde_json::to_value(JsonValue(value, Integers::NumbersIfExact));
    let row = |row: &Vec<Value>| row.iter().map(value).collect();
    let rows: Result<Vec<_>, _> = answer.rows.iter().map(row).collect();
    let answer = api::SqlAnswer {
        columns: answer.columns,
        rows: rows.map_err(not_json)?,
        truncated: answer.truncated,
        elapsed_ms: answer.took.as_millis().try_into().unwrap_or(u64::MAX),
    };
    Ok(Json(answer).into_response())
}

fn file(answer: &SqlAnswer) -> Response {
    let mut file = Vec::new();
    csv::line(&mut file, answer.columns.iter().cloned().map(csv::text));
    for row in &answer.rows {
        csv::line(&mut file, row.iter().map(csv::field));
    }
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"answer.csv\""),
    ];
    (headers, file).into_response()
}

impl From<SqlError> for Problem {
    fn from(error: SqlError) -> Self {
        match &error {
            SqlError::Refused(reason) => Self::new(
                StatusCode::BAD_REQUEST,
                "sql",
                "The query is invalid",
                format!("query: {reason}"),
            ),
            SqlError::TimeLimit { .. } => Self::new(
                // A retry would take as long.
                StatusCode::UNPROCESSABLE_ENTITY,
                "too-slow",
                "The query takes too long",
                error.to_string(),
            ),
            SqlError::Busy => Self::busy(error.to_string()),
            SqlError::Unavailable(reason) => {
                tracing::error!(error = reason, "failed to run an SQL query");
                Self::busy("the database is unavailable at the moment; see /readyz")
            }
        }
    }
}
