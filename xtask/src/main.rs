//! `cargo xtask COMMAND`: the steps that cargo alone does not know.
//!
//! This file reads the command line and chooses the exit code; each command has a module of its own. Nothing of
//! the host is linked, so that it builds in seconds on a fresh machine.

mod bench;
mod demo;
mod digest;
mod faults;
mod fuzz;
mod languages;
mod plugins;
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

/// Builds, tests and shows Lantern
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs Lantern on real events of this machine, with everything that it needs
    Demo(demo::Options),
    /// Checks everything: format, lints, dependencies, plugins, all tests
    Test(test::Options),
    /// Makes this machine ready: the compiler target for plugins and a nats-server
    Setup,
    /// Builds every plugin into target/plugins
    Plugins {
        /// Use the host built without optimization, which builds sooner
        #[arg(long)]
        dev: bool,
    },
    /// Builds the dashboard into web/dist/page, where the host's build finds it
    Web,
    /// Draws the dashboard's main pages for the README into docs/pictures
    Pictures,
    /// Measures how many frames a second a table of a million rows scrolls with, in a browser
    Frames(web::Frames),
    /// Measures the host against its floors; arguments go to `cargo bench`
    Bench {
        /// For `cargo bench`, for example `--bench throughput -- --quick`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Kills, freezes, fills, deletes, restores and swaps at random, and checks that no message is lost or stored twice
    Faults(faults::Options),
    /// Fuzzes everything that parses untrusted bytes, with libFuzzer
    Fuzz(fuzz::Options),
    /// Measures one plugin in Rust, JavaScript and Python; needs node with npm, and Python
    Languages {
        /// With an optimized host
        #[arg(long)]
        release: bool,
    },
    /// Checks the promises that no compiler checks: module boundaries, frozen WIT, file openings
    Tidy {
        /// Write down the digests of a released WIT folder, for example wit/projection@0.1.0
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
