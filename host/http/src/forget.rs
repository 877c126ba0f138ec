//! Erases a person's data. The value is only in the body; neither the audit nor errors contain it.

use axum::Json;
use axum::extract;

use super::change::{AuditNote, Input};
use super::gate::Operator;
use super::problem::Problem;
use super::state::State;
use lantern_api::{Forget, ForgetReport};
use lantern_lifecycle::ForgetRequest;
use lantern_model::schema::PluginName;
use lantern_store::forget::ForgetQuery;

/// Maximum time that a client waits for an erasure, which continues after it.
pub const FORGET_TIME: std::time::Duration = std::time::Duration::from_secs(3_600);

/// Maximum length of the value in bytes.
const VALUE_BYTES_MAX: usize = 16 * 1024;

pub async fn forget(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    note: AuditNote,
    Input(forget): Input<Forget>,
) -> Result<Json<ForgetReport>, Problem> {
    let request = ForgetRequest {
        dry_run: forget.dry_run,
        vacuum: forget.vacuum,
        query: query(forget)?,
    };
    let mut subject = match &request.query {
        Some(query) => format!("column {}", query.column),
        None => "outstanding messages".to_owned(),
    };
    if request.dry_run {
        subject = format!("dry run, {subject}");
    }
    note.detail(&subject);
    let report = state.lifecycle.forget(request, &by).await?;
    note.detail(format!("{subject}: {}", counts(&report)));
    Ok(Json(report))
}

fn query(forget: Forget) -> Result<Option<ForgetQuery>, Problem> {
    let (column, value) = match (forget.column, forget.value, forget.outstanding) {
        (Some(column), Some(value), false) => (column, value),
        (None, None, true) => return Ok(None),
        _ => {
            return Err(Problem::bad_request(
                "column and value, or outstanding, are required",
            ));
        }
    };
    let value = match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::Bool(yes) => yes.to_string(),
        _ => return Err(Problem::bad_request("value must be a string")),
    };
    if value.len() > VALUE_BYTES_MAX || value.contains('\0') {
        return Err(Problem::bad_request(format!(
            "value may have at most {VALUE_BYTES_MAX} bytes and no NUL"
        )));
    }
    if let Some(plugin) = &forget.plugin {
        PluginName::parse(plugin).map_err(Problem::bad_request)?;
    }
    Ok(Some(ForgetQuery {
        column,
        value,
        tables: forget.tables,
        plugin: forget.plugin,
        dead_letters: !forget.keep_dead_letters,
    }))
}

/// Detail of the audit entry: counts, never the value.
fn counts(report: &ForgetReport) -> String {
    let mut parts = vec![format!("{} messages", report.messages)];
    let tables = report.tables.iter().filter(|table| table.rows_removed > 0);
    parts.extend(tables.map(|table| format!("{} rows of {}", table.rows_removed, table.table)));
    if report.dead_letters > 0 {
        parts.push(format!("{} dead letters", report.dead_letters));
    }
    for stream in &report.streams {
        let left = match stream.messages_left {
            0 => String::new(),
            left => format!(", {left} left"),
        };
        parts.push(format!(
            "stream {}: {} deleted{left}",
            stream.stream, stream.messages_deleted
        ));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_api::{ForgottenStream, ForgottenTable};

    fn parse(body: &str) -> Result<Option<ForgetQuery>, String> {
        query(serde_json::from_str(body).unwrap()).map_err(|problem| problem.detail().to_owned())
    }

    #[test]
    fn errors_do_not_contain_the_value() {
        for (value, expected) in [("\"a\"", "a"), ("7", "7"), ("7.5", "7.5"), ("true", "true")] {
            let query = parse(&format!(r#"{{"column":"c","value":{value}}}"#));
            assert_eq!(query.unwrap().unwrap().value, expected);
        }
        assert!(parse(r#"{"outstanding":true}"#).unwrap().is_none());
        for body in [
            r#"{}"#,
            r#"{"column":"c"}"#,
            r#"{"value":"secret"}"#,
            r#"{"column":"c","value":["secret"]}"#,
            r#"{"column":"c","value":"secret","outstanding":true}"#,
            r#"{"column":"c","value":"secret","plugin":"No Name"}"#,
            r#"{"column":"c","value":"secret\u0000"}"#,
        ] {
            let error = parse(body).unwrap_err();
            assert!(!error.contains("secret"), "{body}: {error}");
        }
        let query = parse(r#"{"column":"c","value":"secret"}"#).unwrap().unwrap();
        assert!(!format!("{query:?}").contains("secret"));
    }

    #[test]
    fn the_audit_entry_has_counts() {
        let report = ForgetReport {
            messages: 3,
            tables: vec![ForgottenTable {
                table: "t".into(),
                rows_matching: 3,
                rows_removed: 4,
            }],
            dead_letters: 1,
            streams: vec![ForgottenStream {
                stream: "S".into(),
                messages_deleted: 2,
                messages_left: 1,
                ..ForgottenStream::default()
            }],
            ..ForgetReport::default()
        };
        assert_eq!(
            counts(&report),
            "3 messages; 4 rows of t; 1 dead letters; stream S: 2 deleted, 1 left"
        );
    }
}
