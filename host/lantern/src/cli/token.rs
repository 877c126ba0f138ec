//! `lantern token`: who may ask a running host, and for what.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{Client, HostArgs};
use super::{Failure, note, print, print_json, table};
use lantern_model::schema::TokenName;

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it. It cannot be shown again.
    Create(CreateArgs),
    /// List the tokens, without their text.
    List(ListArgs),
    /// Have a token refused from now on.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What it is called, in the audit too: lower-case letters, digits, - and _.
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,
    /// What it allows: to read (viewer), or to read and change (operator).
    #[arg(long, value_parser = ["viewer", "operator"])]
    role: String,
    /// After so many days it is refused; without it, never.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_in_days: Option<u32>,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Which.
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Deserialize)]
struct Created {
    token: String,
}

#[derive(Deserialize, Serialize)]
struct Token {
    name: String,
    role: String,
    created_at: String,
    created_by: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
}

pub fn run(command: &TokenCommand) -> Result<ExitCode, Failure> {
    match command {
        TokenCommand::Create(args) => create(args)?,
        TokenCommand::List(args) => list(args)?,
        TokenCommand::Revoke(args) => {
            Client::open(&args.host)?.delete::<Value>(&format!("/api/v1/tokens/{}", args.name))?;
            print(&format!("token {} is revoked\n", args.name))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: &CreateArgs) -> Result<(), Failure> {
    let body = json!({
        "name": args.name.as_str(), "role": args.role, "expires_in_days": args.expires_in_days,
    });
    let created: Created = Client::open(&args.host)?.post_json("/api/v1/tokens", &body)?;
    // Alone on standard output, so that a script can keep it.
    note(format_args!("token {}, shown only this once:", args.name));
    print(&format!("{}\n", created.token))
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let tokens: Vec<Token> = Client::open(&args.host)?.get_json("/api/v1/tokens")?;
    match args.json {
        true => print_json(&tokens),
        false => print(&render(&tokens)),
    }
}

fn render(tokens: &[Token]) -> String {
    let head = ["name", "role", "created", "by", "expires", "last used"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let time = |time: &Option<String>| {
        time.as_deref()
            .map_or_else(|| "never".to_owned(), table::to_the_second)
    };
    rows.extend(tokens.iter().map(|token| {
        vec![
            token.name.clone(),
            token.role.clone(),
            table::to_the_second(&token.created_at),
            token.created_by.clone(),
            time(&token.expires_at),
            time(&token.last_used_at),
        ]
    }));
    table::align(&rows, &[], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed_in_columns() {
        let token = Token {
            name: "ci".into(),
            role: "viewer".into(),
            created_at: "2026-11-20T10:00:00.123456Z".into(),
            created_by: "local".into(),
            expires_at: None,
            last_used_at: Some("2026-11-21T10:00:00.000001Z".into()),
        };
        assert_eq!(
            render(&[token]),
            "\
name  role    created               by     expires  last used
ci    viewer  2026-11-20T10:00:00Z  local  never    2026-11-21T10:00:00Z
"
        );
    }
}
