//! The command line: arguments, commands, output and exit codes. Each command has its own file.
//!
//! Exit codes: 0 success, 1 failure, 2 usage error, 78 invalid configuration.

mod audit;
mod author;
mod broker;
pub mod check;
pub mod client;
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
mod search;
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

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

pub use failure::Failure;
pub use output::text as printable;
pub use publish::Header;

use broker::BrokerArgs;
use output::{note, print, print_error, print_json};

use crate::config::{Flag, Sources};

static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (SQLite {})",
        env!("CARGO_PKG_VERSION"),
        lantern_store::reader::sqlite_version()
    )
});

/// Project NATS JetStream streams into SQLite tables through WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(name = "lantern", version = VERSION.as_str(), max_term_width = 100)]
#[command(after_help = "Exit codes: 0 success, 1 failure, 2 usage error, 78 invalid configuration.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host: project streams into tables and serve the API, until SIGTERM or Ctrl-C.
    Serve(ServeArgs),
    /// Create, build, inspect and test plugins, and manage the plugins of a running host.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// List, show, export, retry and discard dead letters (messages that could not be projected).
    #[command(subcommand, name = "dead-letters")]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Resolve sources whose stream the host cannot identify.
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// List messages that were lost before the host read them.
    Gaps(gaps::GapsArgs),
    /// Rebuild a plugin's tables in the background, then swap them in.
    Rebuild(rebuild::RebuildArgs),
    /// Manage the tables of a running host.
    #[command(subcommand)]
    Table(search::TableCommand),
    /// Show the message that a row comes from, and the version that wrote the row.
    Trace(trace::TraceArgs),
    /// Reprocess the messages a bad version handled, using the active version.
    Reproject(trace::ReprojectArgs),
    /// Erase a person's data: rows that contain a value, their messages, and dead letters that mention it.
    Forget(forget::ForgetArgs),
    /// Verify a database: integrity, ledger, checkpoints, indexes and row counts; with --deep also the values of the rows.
    ///
    /// Exits with 1 if there are problems, or if --deep could compare nothing.
    Check(check::CheckArgs),
    /// Show the state of a running host.
    ///
    /// Exits with 1 if the host is not ready.
    Status(status::StatusArgs),
    /// Create, list and revoke API tokens.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Show the audit of a running host: who changed what.
    Audit(audit::AuditArgs),
    /// Publish events to a stream and wait until the broker has stored them.
    Publish(publish::PublishArgs),
    /// Check tools, database, broker and disk, and suggest a fix for each problem.
    ///
    /// Exits with 1 if there are errors.
    Doctor(doctor::DoctorArgs),
    /// Show, check and document the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Compile a component from standard input. The host runs this in a separate process.
    #[command(hide = true)]
    CompileComponent,
}

/// Flags that override settings.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration file in TOML; `lantern config reference` prints a template.
    #[arg(long, value_name = "FILE", env = "LANTERN_CONFIG")]
    config: Option<PathBuf>,
    /// Directory for the database and all other data [setting: data_dir].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<OsString>,
    /// Directory from which plugins are loaded [setting: plugin_dir].
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<OsString>,
    /// Address on which the API is served [setting: listen].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<OsString>,
    /// Without --nats and --nats-context, the host runs an embedded broker.
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

/// Runs the command and prints its output. The caller prints a failure.
pub fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Plugin(command) => plugin::run(&command),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Source(command) => source::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Gaps(args) => gaps::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Rebuild(args) => rebuild::run(&args),
        Command::Table(command) => search::run(&command).map(|()| ExitCode::SUCCESS),
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
        Command::CompileComponent => Ok(lantern_plugin::compile_child_main()),
    }
}

/// Makes files that this process and its broker create readable only by their owner.
fn make_files_private() {
    use rustix::fs::Mode;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Runs a future of a command on a small runtime.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    Ok(runtime.block_on(future))
}
