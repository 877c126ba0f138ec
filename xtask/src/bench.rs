//! `cargo xtask bench`: the host's benches, with everything in place that they need.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    plugins, process,
    setup::{self, Tools},
    workspace::{Profile, Workspace},
};

/// Runs the host's figures with `arguments`: which ones, and with how much.
pub fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    let tools = setup::run(workspace)?;
    plugins::build(workspace, Profile::Release)?;
    println!("==> bench");
    let mut command = process::cargo(&workspace.root);
    command
        .args([
            "bench",
            "--locked",
            "--package",
            "lantern",
            "--bench",
            "figures",
            "--",
        ])
        .args(arguments);
    with_environment(&mut command, workspace, &tools);
    process::run(&mut command)
}

/// Tells tests and benches where the broker and the plugins are.
pub fn with_environment(command: &mut std::process::Command, workspace: &Workspace, tools: &Tools) {
    command
        .env("LANTERN_NATS_SERVER", &tools.nats_server)
        .env("LANTERN_PLUGINS", workspace.plugins());
}
