//! The command line: what can be typed, which command it becomes, and how success and failure look. Each command
//! has its own file and does its own printing; the work behind it is in `commands`.
//!
//! Exit codes: 0 done, 1 failed, 2 not understood, 78 the configuration cannot be used.

mod audit;
mod author;
mod broker;
pub mod check;
pub mod client;
mod commands;
mod completions;
mod config;
mod dead_letters;
mod doctor;
mod failure;
mod forget;
mod gaps;
pub mod inspect;
mod output;
mod plugin;
mod publish;
mod rebuild;
mod serve;
mod source;
mod status;
mod table;
mod token;
mod trace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};

pub use failure::Failure;
pub use output::text as printable;
pub use publish::Header;

use broker::BrokerArgs;
use output::{mutter, note, print, print_json};

use crate::config::{Flag, Sources};

static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (SQLite {})",
        env!("CARGO_PKG_VERSION"),
        lantern_store::reader::sqlite_version()
    )
});

/// Projects event streams into SQLite tables through WebAssembly plugins that can be swapped while it runs.
#[derive(Debug, Parser)]
#[command(name = "lantern", version = VERSION.as_str(), max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 not understood, 78 the configuration cannot be used."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read streams, project them into tables, and serve the API, until SIGTERM or Ctrl-C.
    Serve(ServeArgs),
    /// Build plugins, look into them, and install, swap, pause and remove them in a running host.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Messages that could not be projected: see them, try them again, give them up.
    #[command(subcommand, name = "dead-letters")]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Decide about the streams that plugins read.
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// Show messages that were gone before they were read, which no plugin has seen.
    Gaps(gaps::GapsArgs),
    /// Fill a plugin's tables anew beside those in use, and put them in their place.
    Rebuild(rebuild::RebuildArgs),
    /// Say where a row comes from: its message, and the version that made it.
    Trace(trace::TraceArgs),
    /// Make the work of a bad version again, from just its messages, with the version that runs.
    Reproject(trace::ReprojectArgs),
    /// Erase a person's data: rows that hold a value, their messages, and dead letters that mention it.
    Forget(forget::ForgetArgs),
    /// Verify a database: integrity, ledger, checkpoints, indexes, row counts; with --deep also the values of the rows.
    /// Exits with 1 when there is a problem.
    Check(check::CheckArgs),
    /// Show how a running host is. Exits with 1 when it is not ready.
    Status(status::StatusArgs),
    /// Make, list and revoke tokens, by which others may ask a running host.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Show who changed what in a running host.
    Audit(audit::AuditArgs),
    /// Send events to a stream and wait until the broker has stored them.
    Publish(publish::PublishArgs),
    /// Check the tools, the database, the broker and the disk, with what to do about each problem. Exits with 1 when
    /// something is wrong.
    Doctor(doctor::DoctorArgs),
    /// Show, check and explain the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a script that completes commands in a shell.
    Completions(completions::CompletionsArgs),
    /// Compile a component from standard input. The host runs this in a process of its own.
    #[command(hide = true)]
    CompileComponent,
}

/// Flags that stand for settings.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A TOML file; `lantern config reference` prints one.
    #[arg(long, value_name = "FILE", env = "LANTERN_CONFIG")]
    config: Option<PathBuf>,
    /// Where the database and all else is kept [setting: data_dir].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<OsString>,
    /// Where plugins are loaded from [setting: plugin_dir].
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<OsString>,
    /// Where the API is served [setting: listen].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<OsString>,
    /// Without --nats and --nats-context the host runs its own broker.
    #[command(flatten)]
    broker: BrokerArgs,
}

impl ServeArgs {
    fn sources(&self) -> Sources {
        let flags = [
            ("data_dir", "--data-dir", &self.data_dir),
            ("plugin_dir", "--plugin-dir", &self.plugin_dir),
            ("listen", "--listen", &self.listen),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(setting, name, value)| value.clone().map(|value| Flag { setting, name, value }))
            .chain(self.broker.flags());
        Sources::of_process(self.config.clone(), given.collect())
    }
}

/// Runs the command that was typed. What it answers is printed by then; a failure is not.
pub fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Plugin(command) => plugin::run(&command),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Source(command) => source::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Gaps(args) => gaps::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Rebuild(args) => rebuild::run(&args),
        Command::Trace(args) => trace::trace(&args).map(|()| ExitCode::SUCCESS),
        Command::Reproject(args) => trace::reproject(&args).map(|()| ExitCode::SUCCESS),
        Command::Forget(args) => forget::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Status(args) => status::run(&args),
        Command::Token(command) => token::run(&command),
        Command::Audit(args) => audit::run(&args),
        Command::Publish(args) => publish::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Config(command) => config::run(&command),
        Command::Completions(args) => completions::run(&args),
        Command::CompileComponent => commands::compile_component(),
    }
}
