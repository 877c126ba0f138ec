//! `lantern serve`: checks the configuration, sets up the log and the runtime, and hands over.

use std::process::ExitCode;

use rustix::fs::Mode;

use super::{Failure, ServeArgs, commands};
use crate::config::resolve;
use lantern_telemetry as telemetry;

pub fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let config = resolve(&args.sources()).1?;
    // Whatever the host and its broker create is for its owner alone: rows, components, streams, logs.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // To the end, so that the last words are written.
    let _log = telemetry::init(&config.log.filter, config.log.json).map_err(Failure::new)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("lantern")
        // Plugins run on these, one for each source that has something to decode; idle ones go by themselves.
        .max_blocking_threads(256)
        .build()
        .map_err(|error| Failure::new(anyhow::Error::new(error).context("cannot start the runtime")))?;
    let ended = runtime.block_on(commands::serve(config));
    // A plugin's call, or a lock that another process holds, may outlast the time that a stop may take. Nothing that
    // is left behind here has been answered or acknowledged.
    runtime.shutdown_background();
    ended
}
