//! `lantern token`: creates, lists and revokes API tokens.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::de::IgnoredAny;

use super::client::{Client, HostArgs, OutputArgs};
use super::{Failure, note, print, table};
use lantern_api::{CreatedToken, NewToken, Token};
use lantern_model::schema::TokenName;

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it. It cannot be shown again.
    Create(CreateArgs),
    /// List tokens, without their secrets.
    List(ListArgs),
    /// Revoke a token.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the token, also used in the audit: lower-case letters, digits, - and _.
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,
    /// Role: viewer (read) or operator (read and change).
    #[arg(long, value_parser = ["viewer", "operator"])]
    role: String,
    /// Number of days until the token expires [default: never].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_in_days: Option<u32>,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Name of the token.
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,
    #[command(flatten)]
    host: HostArgs,
}

pub fn run(command: &TokenCommand) -> Result<ExitCode, Failure> {
    match command {
        TokenCommand::Create(args) => create(args)?,
        TokenCommand::List(args) => list(args)?,
        TokenCommand::Revoke(args) => {
            Client::open(&args.host)?.delete::<IgnoredAny>(&format!("/api/v1/tokens/{}", args.name))?;
            print(&format!("revoked token {}\n", args.name))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: &CreateArgs) -> Result<(), Failure> {
    let body = NewToken {
        name: args.name.to_string(),
        role: args.role.clone(),
        expires_in_days: args.expires_in_days,
    };
    let created: CreatedToken = Client::open(&args.host)?.post_json("/api/v1/tokens", &body)?;
    // Standard output contains only the token, for scripts.
    note(format_args!(
        "created token {}; it is shown only once:",
        args.name
    ));
    print(&format!("{}\n", created.token))
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let tokens: Vec<Token> = args.output.open()?.get_json("/api/v1/tokens")?;
    args.output.print(&tokens[..], render)
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
            token.role.as_str().to_owned(),
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
            role: lantern_api::Role::Viewer,
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
