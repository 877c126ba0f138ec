//! `lantern audit`: who changed or read what in a running host, with the outcome.

use std::process::ExitCode;

use clap::Args;
use url::form_urlencoded::Serializer;

use super::client::{Client, HostArgs};
use super::{Failure, print, print_json, table};
use lantern_api::AuditRecord;

/// Largest page of the API.
const PAGE_MAX: usize = 1_000;

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only changes to this plugin.
    #[arg(long)]
    plugin: Option<String>,
    /// Only changes made with this token.
    #[arg(long)]
    actor: Option<String>,
    /// Only changes of this kind, such as plugin.install.
    #[arg(long)]
    action: Option<String>,
    /// Maximum number of entries, newest first.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print JSON. `hash` of the first entry, without filters, is the head of the chain for `lantern check --audit-head`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

pub fn run(args: &AuditArgs) -> Result<ExitCode, Failure> {
    let client = Client::open(&args.host)?;
    let entries: Vec<AuditRecord> = client.newest(&list(args), args.limit, PAGE_MAX)?;
    match args.json {
        true => print_json(&entries)?,
        false => print(&render(&entries))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &AuditArgs) -> String {
    let mut query = Serializer::new(String::new());
    let parts = [
        ("plugin", &args.plugin),
        ("actor", &args.actor),
        ("action", &args.action),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/api/v1/audit?{}", query.finish())
}

fn render(entries: &[AuditRecord]) -> String {
    if entries.is_empty() {
        return "no matching audit entries; `lantern audit` without filters shows the actions and actors\n"
            .to_owned();
    }
    let head = ["at", "actor", "action", "plugin", "outcome", "detail"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        vec![
            table::to_the_second(&entry.at),
            entry.actor.clone(),
            entry.action.clone(),
            entry.plugin.clone().unwrap_or_else(|| "-".into()),
            entry.outcome.clone(),
            entry.detail.clone(),
        ]
    }));
    table::align(&rows, &[], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_is_listed_in_columns() {
        let entry = AuditRecord {
            id: 1,
            at: "2026-11-20T10:00:00.123456Z".into(),
            began_at: None,
            actor: "(nobody)".into(),
            action: "token.create".into(),
            plugin: None,
            digest: None,
            outcome: "refused".into(),
            detail: "the request has no token".into(),
            hash: None,
        };
        assert_eq!(
            render(&[entry]),
            "\
at                    actor     action        plugin  outcome  detail
2026-11-20T10:00:00Z  (nobody)  token.create  -       refused  the request has no token
"
        );
    }
}
