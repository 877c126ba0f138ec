//! `cargo xtask faults`: injects seeded random faults into the real program and a real broker. It runs the test
//! `host/lantern/tests/faults.rs` for longer than `cargo xtask test` does.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::{
    bench::with_environment,
    plugins, process, setup,
    workspace::{Profile, Workspace},
};

/// Options of `cargo xtask faults`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Duration of the fault injection
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Repeat the schedule of a run that printed this seed; by default, the seed is random
    #[arg(long)]
    seed: Option<u64>,
}

/// Fails if a message is lost, stored twice or unexpected, or if the host makes no progress.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let tools = setup::run(workspace)?;
    plugins::build(workspace, Profile::Dev)?;
    println!("==> faults");
    let mut command = process::cargo(&workspace.root);
    command.args([
        "test",
        "--locked",
        "--workspace",
        "--test",
        "faults",
        "--",
        "--nocapture",
    ]);
    command.arg("no_message_is_lost");
    with_environment(&mut command, workspace, &tools);
    command.env("LANTERN_FAULTS_MINUTES", options.minutes.to_string());
    let seed = options.seed.map_or_else(clock_seed, Ok)?;
    command.env("LANTERN_SEED", seed.to_string());
    process::run(&mut command)
}

/// A seed that differs between runs.
fn clock_seed() -> Result<u64> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(since_1970.as_micros())?)
}
