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
    /// The broker and its streams; by default, the seed selects one
    #[arg(long)]
    setup: Option<Setup>,
}

/// The broker of a run, and the retention of its streams.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Setup {
    /// One broker, whose streams keep their messages
    Single,
    /// One broker, with a work-queue stream and an interest stream
    Retention,
    /// Three servers, with three replicas of each stream
    Cluster,
}

impl Setup {
    const ALL: [Self; 3] = [Self::Single, Self::Retention, Self::Cluster];

    fn of_seed(seed: u64) -> Self {
        let index = seed % Self::ALL.len() as u64;
        Self::ALL[index as usize]
    }

    /// The test of `host/lantern/tests/faults.rs`.
    fn test(self) -> &'static str {
        match self {
            Self::Single => "no_message_is_lost_or_stored_twice_on_one_broker",
            Self::Retention => {
                "no_message_is_lost_or_stored_twice_on_streams_that_delete_acknowledged_messages"
            }
            Self::Cluster => "no_message_is_lost_or_stored_twice_on_a_cluster",
        }
    }
}

/// Fails if a message is lost, stored twice or unexpected, if an acknowledgement is missing at the end, or if the host
/// makes no progress.
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
        "--exact",
    ]);
    let seed = options.seed.map_or_else(clock_seed, Ok)?;
    command.arg(options.setup.unwrap_or_else(|| Setup::of_seed(seed)).test());
    with_environment(&mut command, workspace, &tools);
    command.env("LANTERN_FAULTS_MINUTES", options.minutes.to_string());
    command.env("LANTERN_SEED", seed.to_string());
    process::run(&mut command)
}

/// A seed that differs between runs.
fn clock_seed() -> Result<u64> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(since_1970.as_micros())?)
}
