//! `cargo xtask setup`: installs the tools that the other commands need.
//!
//! It is idempotent, and writes only under `target/`, except for the compiler target, which rustup installs.

pub mod chromium;
mod nats_server;
pub mod node;
pub mod pip;
mod wasm_target;

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;

/// The tools that setup found or fetched.
#[derive(Clone, Debug)]
pub struct Tools {
    /// A broker of a supported version.
    pub nats_server: PathBuf,
}

/// Installs missing tools for builds, tests and the demo. Each error states a solution.
pub fn run(workspace: &Workspace) -> Result<Tools> {
    println!("==> setup");
    wasm_target::ensure(&workspace.root)?;
    let nats_server = nats_server::ensure(workspace)?;
    node::report();
    Ok(Tools { nats_server })
}

/// The older broker for cluster tests, with its environment variable.
pub fn older_server(workspace: &Workspace) -> Result<(&'static str, PathBuf)> {
    Ok((nats_server::OLDER_VARIABLE, nats_server::older(workspace)?))
}
