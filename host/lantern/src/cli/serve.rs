//! `lantern serve`: checks the configuration, sets up umask, log and runtime, and runs the host.

use std::process::ExitCode;

use super::{Failure, ServeArgs, make_files_private};
use crate::app;
use crate::config::resolve;
use lantern_telemetry as telemetry;

pub fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let config = resolve(&args.sources()).1?;
    make_files_private();
    // Dropped last, so that the last lines are written.
    let _log = telemetry::init(&config.log.filter, config.log.json).map_err(Failure::new)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("lantern")
        // Plugin calls run on blocking threads, at most one for each source. Idle threads end automatically.
        .max_blocking_threads(256)
        .build()
        .map_err(|error| Failure::new(anyhow::Error::new(error).context("failed to start the runtime")))?;
    let result = runtime.block_on(app::serve(config)).map_err(Failure::new);
    // A plugin call, or a lock of another process, may exceed the shutdown time. Work that is abandoned here has not been
    // acknowledged.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}
