//! `lantern trace` and `lantern reproject`: from a row to its message and the version that made it, and the work of a
//! bad version made again.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, HostArgs};
use super::{Failure, print, print_json};
use crate::schema::PluginName;

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The table.
    table: String,
    /// The values of its primary key or of a unique index, or the host's columns as ORIGIN:SEQUENCE:ROW.
    #[arg(required = true)]
    key: Vec<String>,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct ReprojectArgs {
    /// The plugin.
    #[arg(value_parser = PluginName::parse)]
    plugin: PluginName,
    /// The bad version: its digest (eight digits or more) or its number.
    #[arg(long, value_name = "DIGEST|VERSION")]
    digest: String,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

pub fn trace(args: &TraceArgs) -> Result<(), Failure> {
    let key = serde_json::to_string(&args.key).map_err(|error| Failure::new(anyhow::Error::new(error)))?;
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("table", &args.table)
        .append_pair("key", &key)
        .finish();
    let traced: Value = Client::open(&args.host)?.get_json(&format!("/api/v1/trace?{query}"))?;
    match args.json {
        true => print_json(&traced),
        false => print(&render(&traced)),
    }
}

fn render(traced: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(out, "row      {}", traced["row"]);
    let place = match &traced["stream"] {
        Value::String(stream) => format!("stream {stream}, sequence {}", traced["sequence"]),
        _ => format!("core NATS, message {}", traced["sequence"]),
    };
    let _ = writeln!(
        out,
        "from     {place}, epoch {}, row {}",
        traced["epoch"], traced["row_number"]
    );
    let _ = writeln!(
        out,
        "by       {} {} {}",
        text(&traced["plugin"]),
        text(&traced["version"]),
        text(&traced["digest"])
    );
    if traced["healed"] == true {
        let _ = writeln!(
            out,
            "         its message was a dead letter before this version could project it"
        );
    }
    if let Value::String(note) = &traced["note"] {
        let _ = writeln!(out, "note     {note}");
    }
    let message = &traced["message"];
    if message.is_object() {
        let _ = writeln!(
            out,
            "message  {} at {}, {} bytes, found in the {}",
            text(&message["subject"]),
            text(&message["published"]),
            message["payload_bytes"],
            text(&message["found_in"])
        );
        for header in message["headers"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "         {}: {}", text(&header[0]), text(&header[1]));
        }
        let payload = match &message["payload_text"] {
            Value::String(text) => text.clone(),
            _ => format!("(base64) {}", text(&message["payload_base64"])),
        };
        let _ = writeln!(out, "{payload}");
    } else if let Value::String(gone) = &traced["gone"] {
        let _ = writeln!(out, "message  {gone}");
    }
    out
}

pub fn reproject(args: &ReprojectArgs) -> Result<(), Failure> {
    let body = json!({"version": args.digest});
    let client = Client::open(&args.host)?;
    let done: Value =
        client.post_json_for_long(&format!("/api/v1/plugins/{}/reproject", args.plugin), &body)?;
    if args.json {
        return print_json(&done);
    }
    let mut out = format!(
        "{} messages of version {} were done again by {}: {} rows removed, {} written\n",
        done["messages"],
        done["from"].as_str().unwrap_or_default(),
        done["to"].as_str().unwrap_or_default(),
        done["rows_removed"],
        done["rows_written"]
    );
    if done["gone"] != 0 {
        let _ = writeln!(
            out,
            "{} messages are gone from their stream and keep their rows",
            done["gone"]
        );
    }
    if let Value::String(partial) = &done["partial"] {
        let _ = writeln!(
            out,
            "it is not finished: {partial}; the same command goes on with the rest"
        );
    }
    print(&out)
}
