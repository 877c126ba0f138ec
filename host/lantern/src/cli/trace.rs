//! `lantern trace`: the message of a row and the version that wrote it. `lantern reproject`: reprocesses the messages that a
//! bad version handled.

use std::fmt::Write as _;

use clap::Args;

use super::client::OutputArgs;
use super::{Failure, output, print, print_json};
use lantern_api::{Reproject, Reprojected, Trace, TracedMessage};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Table.
    table: String,
    /// Row: the values of the primary key or of a unique index, or the row identity ORIGIN:SEQUENCE:ROW.
    #[arg(required = true)]
    key: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ReprojectArgs {
    /// Name of the plugin.
    #[arg(value_parser = PluginName::parse)]
    plugin: PluginName,
    /// Bad version: its digest (at least eight digits) or its version number.
    #[arg(long, value_name = "DIGEST|VERSION")]
    digest: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn trace(args: &TraceArgs) -> Result<(), Failure> {
    let key = serde_json::to_string(&args.key).map_err(|error| Failure::new(anyhow::Error::new(error)))?;
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("table", &args.table)
        .append_pair("key", &key)
        .finish();
    let traced: Trace = args.output.open()?.get_json(&format!("/api/v1/trace?{query}"))?;
    args.output.print(&traced, render)
}

fn render(traced: &Trace) -> String {
    let unknown = "(unknown)";
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(out, "id       {}", traced.id);
    let _ = writeln!(out, "row      {}", output::json(traced.row.json()));
    let location = match &traced.stream {
        Some(stream) => format!("stream {stream}, sequence {}", traced.sequence),
        None => format!("core NATS, message {}", traced.sequence),
    };
    let _ = writeln!(out, "from     {location}, epoch {}", traced.epoch);
    let _ = writeln!(
        out,
        "by       {} {} {}",
        traced.plugin,
        traced.version.as_deref().unwrap_or(unknown),
        traced.digest.as_deref().unwrap_or_default()
    );
    if traced.was_dead_letter {
        let _ = writeln!(out, "         a retry of the dead letter wrote the row");
    }
    if let Some(note) = &traced.note {
        let _ = writeln!(out, "note     {note}");
    }
    if let Some(message) = &traced.message {
        render_message(&mut out, message);
    } else if let Some(missing) = &traced.message_missing {
        let _ = writeln!(out, "message  {missing}");
    }
    out
}

fn render_message(out: &mut String, message: &TracedMessage) {
    let _ = writeln!(
        out,
        "message  {}, published {}, {} bytes, found in the {}",
        output::line(&message.subject),
        message.published,
        message.payload_bytes,
        message.found_in
    );
    for (name, value) in &message.headers {
        let _ = writeln!(out, "         {}: {}", output::line(name), output::line(value));
    }
    let _ = match &message.payload_text {
        Some(text) => writeln!(out, "{text}"),
        None => writeln!(out, "(base64) {}", message.payload_base64),
    };
}

pub fn reproject(args: &ReprojectArgs) -> Result<(), Failure> {
    let body = Reproject {
        version: args.digest.clone(),
    };
    let client = args.output.open()?;
    let done: Reprojected =
        client.post_json_for_long(&format!("/api/v1/plugins/{}/reproject", args.plugin), &body)?;
    if args.output.json {
        return print_json(&done);
    }
    let mut out = format!(
        "reprojected {} messages of version {} with {}\nrows: {} removed; {} inserted, {} updated, {} present\n",
        done.messages, done.from, done.to, done.rows_removed, done.inserted, done.updated, done.present
    );
    if done.messages_gone != 0 {
        let _ = writeln!(
            out,
            "{} messages are no longer in their stream; their rows stay",
            done.messages_gone
        );
    }
    if let Some(partial) = &done.partial {
        let _ = writeln!(
            out,
            "incomplete: {partial}; to process the rest, run the command again"
        );
    }
    print(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_values_are_shown_as_they_are_stored() {
        let row =
            r#"{"id":7,"extra":{"n":12345678901234567890123,"a":1,"a":2,"z":-0,"e":1e400,"s":"\ud800"}}"#;
        let answer = format!(
            r#"{{"table":"t","id":"1:9:0","row":{row},"plugin":"p","version":"1.0.0","digest":"sha256:aa",
                 "was_dead_letter":false,"source":"s","stream":"S","epoch":1,"sequence":9,"note":null,"message":null,
                 "message_missing":"it is no longer in stream S"}}"#
        );
        let traced: Trace = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            render(&traced),
            format!(
                "id       1:9:0\nrow      {row}\nfrom     stream S, sequence 9, epoch 1\nby       p 1.0.0 sha256:aa\n\
                 message  it is no longer in stream S\n"
            )
        );
        assert!(serde_json::to_string_pretty(&traced).unwrap().contains(row));
    }
}
