//! Projects OpenTelemetry log records in OTLP/JSON into a table. One message contains many records, nested in scopes and
//! resources.

use lantern_sdk::prelude::*;

lantern_sdk::export!(OtelLogs);

/// The plugin.
pub struct OtelLogs;

impl Plugin for OtelLogs {
    const SOURCES: Sources<Self> = &[Source::stream("logs", "OTEL_LOGS", &["otel.logs.>"], logs)];
    const WRITES: Writes = &[Log::WRITE];
}

/// Log records of programs.
#[derive(Table, Row)]
#[table(name = "otel_logs", index = [trace_id], retention_days = 30, lane = severity)]
struct Log {
    #[column(time)]
    at: Timestamp,
    #[column(entity)]
    service: Option<String>,
    #[column(facet)]
    severity: Option<String>,
    /// Usually text, but any value is possible.
    body: Option<Json>,
    attributes: Option<Json>,
    trace_id: Option<String>,
}

fn logs(message: &Message<'_>, rows: &mut Rows<OtelLogs>) -> Result {
    for resource in message.tree()?.list("resourceLogs")? {
        let mut attributes = resource.list("resource.attributes")?.into_iter();
        let service = attributes.find(|attribute| attribute.get("key") == Ok("service.name"));
        let service: Option<String> = service.map_or(Ok(None), |service| service.get("value.stringValue"))?;
        for log in resource.list("scopeLogs.logRecords")? {
            rows.put(Log {
                at: log.get::<UnixNanos>("timeUnixNano")?.0,
                service: service.clone(),
                severity: log.get("severityText")?,
                body: log.get("body")?,
                attributes: log.get("attributes")?,
                trace_id: log.get("traceId")?,
            });
        }
    }
    Ok(())
}
