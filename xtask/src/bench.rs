//! `cargo xtask bench`: runs the benchmarks of the host with a broker and plugins.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    plugins, process,
    setup::{self, Tools},
    workspace::{Profile, Workspace},
};

/// Runs the benchmark program with `arguments`, after building the plugins.
pub fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    let tools = setup::run(workspace)?;
    plugins::build(workspace, Profile::Release)?;
    println!("==> bench");
    let mut command = process::cargo(&workspace.root);
    command
        .args(["bench", "--locked", "--workspace", "--bench", "figures", "--"])
        .args(arguments);
    with_environment(&mut command, workspace, &tools);
    process::run(&mut command)
}

/// Sets the environment variables with the paths of the broker and the plugins.
pub fn with_environment(command: &mut std::process::Command, workspace: &Workspace, tools: &Tools) {
    command
        .env("LANTERN_NATS_SERVER", &tools.nats_server)
        .env("LANTERN_PLUGINS", workspace.plugins());
}
