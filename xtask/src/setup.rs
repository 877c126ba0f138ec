//! `cargo xtask setup`: makes a fresh machine ready, and says what it does while it does it.
//!
//! What is there already is left alone, so it may run as often as one likes. It writes only under `target/`,
//! apart from the compiler target, which belongs to rustup.

pub mod chromium;
mod nats_server;
pub mod node;
pub mod pip;
mod wasm_target;

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;

/// What set-up has found or fetched.
#[derive(Clone, Debug)]
pub struct Tools {
    /// A broker of a version that Lantern works with.
    pub nats_server: PathBuf,
}

/// Makes sure of everything that building, testing and the demo need. Each error says what to do about it.
pub fn run(workspace: &Workspace) -> Result<Tools> {
    println!("==> set-up");
    wasm_target::ensure(&workspace.root)?;
    let nats_server = nats_server::ensure(workspace)?;
    node::look();
    Ok(Tools { nats_server })
}

/// The older broker that cluster tests need in addition to the one of [`Tools`], with the variable that names it.
pub fn older_server(workspace: &Workspace) -> Result<(&'static str, PathBuf)> {
    Ok((nats_server::OLDER_VARIABLE, nats_server::older(workspace)?))
}
