//! `cargo xtask COMMAND`: build and test steps that Cargo does not provide.
//!
//! This file parses the command line and sets the exit code; each command has its own module. It links no crate of the
//! host, so that it builds in seconds on a fresh machine.

mod bench;
mod demo;
mod digest;
mod faults;
#[cfg(test)]
mod features;
mod fuzz;
mod languages;
mod plugins;
mod postgres;
mod process;
mod setup;
mod test;
mod tidy;
mod web;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use workspace::{Profile, Workspace};

/// Builds, tests and demonstrates Lantern
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run Lantern on real events of this machine
    Demo(demo::Options),
    /// Run all checks and tests
    Test(test::Options),
    /// Install the compiler target for plugins and a nats-server
    Setup,
    /// Build every plugin into target/plugins
    Plugins {
        /// Use a host without optimization, which builds faster
        #[arg(long)]
        dev: bool,
    },
    /// Build the dashboard into web/dist/page, which the host embeds
    Web,
    /// Take the screenshots of the README
    Pictures,
    /// Measure the frame rate of a scrolling table with a million rows
    Frames(web::Frames),
    /// Run the benchmarks and compare the results with their baselines
    Bench {
        /// Arguments of the benchmark program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Inject random faults, and verify that no message is lost or stored twice
    Faults(faults::Options),
    /// Fuzz all parsers of untrusted input with libFuzzer
    Fuzz(fuzz::Options),
    /// Measure one plugin in Rust, JavaScript and Python; requires Node with npm, and Python
    Languages {
        /// Use an optimized host
        #[arg(long)]
        release: bool,
    },
    /// Check repository rules: frozen WIT, file headers, file sizes, wording
    Tidy {
        /// Freeze a released WIT folder, for example wit/projection@0.1.0
        #[arg(long, value_name = "FOLDER")]
        freeze: Option<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match task {
        Task::Demo(options) => demo::run(&workspace, &options)?,
        Task::Test(options) => return Ok(test::run(workspace, &options)),
        Task::Setup => drop(setup::run(&workspace)?),
        Task::Plugins { dev } => {
            setup::run(&workspace)?;
            plugins::build(&workspace, if dev { Profile::Dev } else { Profile::Release })?;
        }
        Task::Web => web::build(&workspace)?,
        Task::Pictures => web::pictures(&workspace)?,
        Task::Frames(options) => web::frames(&workspace, &options)?,
        Task::Bench { arguments } => bench::run(&workspace, &arguments)?,
        Task::Faults(options) => faults::run(&workspace, &options)?,
        Task::Fuzz(options) => fuzz::run(&workspace, &options)?,
        Task::Languages { release } => languages::run(&workspace, release)?,
        Task::Tidy { freeze: Some(folder) } => tidy::freeze(&workspace.root, &folder)?,
        Task::Tidy { freeze: None } => tidy::check(&workspace.root)?,
    }
    Ok(ExitCode::SUCCESS)
}
