//! Projects syslog lines in the format of RFC 5424 into a table. An omitted part (`-`) is null; the message id is not stored.

use lantern_sdk::prelude::*;

lantern_sdk::export!(Syslog);

/// The plugin.
pub struct Syslog;

impl Plugin for Syslog {
    const SOURCES: Sources<Self> = &[Source::stream("lines", "SYSLOG", &["syslog.>"], line)];
    const WRITES: Writes = &[Line::WRITE];
}

/// Syslog messages of machines and devices.
#[derive(Table, Row)]
#[table(name = "syslog_lines", retention_days = 30, lane = app, view("Errors", "filter=severity<4"))]
struct Line {
    #[column(time)]
    at: Timestamp,
    #[column(entity)]
    host: Option<String>,
    #[column(facet)]
    app: Option<String>,
    /// 0 is emergency, 3 error, 7 debug.
    #[column(facet)]
    severity: u8,
    process: Option<String>,
    /// Structured data, unchanged.
    data: Option<String>,
    text: Option<String>,
}

static LINE: Pattern = Pattern::new(
    r"(?s)^<(?<priority>[0-9]{1,2}|1[0-8][0-9]|19[01])>1 (?:-|(?<at>\S+)) (?:-|(?<host>\S+)) (?:-|(?<app>\S+)) (?:-|(?<process>\S+)) \S+ (?:-|(?<data>(?:\[(?:[^\]\\]|\\.)*\])+))(?: \u{feff}?(?<text>.*))?$",
);

fn line(message: &Message<'_>, rows: &mut Rows<Syslog>) -> Result {
    let parts = LINE.read(message.text()?)?;
    rows.put(Line {
        at: parts.optional("at")?.unwrap_or(message.published),
        host: parts.optional("host")?,
        app: parts.optional("app")?,
        severity: parts.get::<u8>("priority")? % 8,
        process: parts.optional("process")?,
        data: parts.optional("data")?,
        text: parts.optional("text")?,
    });
    Ok(())
}
