//! `cargo xtask bench`: runs the benchmarks of the host with a broker and plugins.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    plugins,
    postgres::{self, Disk},
    process,
    setup::{self, Tools},
    workspace::{Profile, Workspace},
};

/// Runs the benchmark program with `arguments`, after building the plugins.
pub fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    let tools = setup::run(workspace)?;
    plugins::build(workspace, Profile::Release)?;
    println!("==> bench");
    // It stops with the end of the run.
    let server = server(arguments)?;
    let mut command = process::cargo(&workspace.root);
    command
        .args(["bench", "--locked", "--workspace", "--bench", "figures", "--"])
        .args(arguments);
    with_environment(&mut command, workspace, &tools);
    if let Some(server) = &server {
        command.env("LANTERN_TEST_POSTGRES", server.address());
    }
    process::run(&mut command)
}

/// A PostgreSQL server for a run that measures one, if it is installed.
fn server(arguments: &[OsString]) -> Result<Option<postgres::Server>> {
    let names_figures = arguments
        .first()
        .is_some_and(|first| !first.as_encoded_bytes().starts_with(b"-"));
    if names_figures && !arguments.iter().any(|argument| argument == "postgres") {
        return Ok(None);
    }
    match postgres::programs() {
        Ok(programs) => postgres::Server::start_with(&programs, Disk::Waits).map(Some),
        Err(reason) => {
            println!("no figures of PostgreSQL: {reason}");
            Ok(None)
        }
    }
}

/// Sets the environment variables with the paths of the broker and the plugins.
pub fn with_environment(command: &mut std::process::Command, workspace: &Workspace, tools: &Tools) {
    command
        .env("LANTERN_NATS_SERVER", &tools.nats_server)
        .env("LANTERN_PLUGINS", workspace.plugins());
}
