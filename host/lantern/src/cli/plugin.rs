//! `lantern plugin`: develops, inspects and manages plugins. Development and inspection need no host; the other commands
//! call a running host. Each command is a variant here, with its own file.

mod canary;
mod diff;
#[cfg(feature = "oci")]
mod oci;
mod pause;
mod remove;
mod set;
mod show;
mod signature;
mod swap;
mod take_over;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Subcommand;
use serde::de::IgnoredAny;

use super::client::Client;
use super::{Failure, author, inspect};
use lantern_model::schema::PluginName;

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Create a project whose table is derived from sample messages.
    New(author::new::NewArgs),
    /// Build a plugin, run it on its fixtures and compare the results with the expected ones.
    ///
    /// Exits with 1 if a result differs.
    Test(author::test::TestArgs),
    /// Rebuild on each save, load each build into a temporary host, and show new rows and dead letters.
    Dev(author::dev::DevArgs),
    /// Save messages of a stream, or dead letters of a host, as fixtures.
    Record(author::record::RecordArgs),
    /// Project messages of a file and show the outcome.
    ///
    /// Exits with 1 if a message is rejected.
    Run(author::run::RunArgs),
    /// Build a component from a project.
    Build {
        /// Directory of the project.
        path: PathBuf,
        /// Path of the component [default: PACKAGE.wasm next to the package's target directory].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Build for wasm32-wasip2, for crates that require WASI; an operator must then allow WASI.
        #[arg(long)]
        wasi: bool,
    },
    /// Build a component that contains its version, licence, source and authors.
    Pack(author::pack::PackArgs),
    /// Create a key pair for signing components, in the format of minisign.
    Keygen(author::sign::KeygenArgs),
    /// Sign a component; writes FILE.minisig.
    Sign(author::sign::SignArgs),
    /// Show what a component declares: sources, tables, writes, imports and sizes.
    Inspect(inspect::InspectArgs),
    /// Install a component in the host; with --activate, also activate it.
    Install(swap::InstallArgs),
    /// List installed plugins, and rejected components with the reason.
    List(show::ListArgs),
    /// Show one plugin: its versions, the messages that each has handled, and its settings.
    Show(show::ShowArgs),
    /// Activate a version: the given one, or the newest.
    Activate(swap::ActivateArgs),
    /// Activate the previous version.
    Rollback(swap::RollbackArgs),
    /// Pause a plugin after its current batch; its messages stay in their streams.
    Pause(pause::PauseArgs),
    /// Resume a paused plugin at its checkpoint.
    Resume(pause::ResumeArgs),
    /// Remove a plugin, with or without its tables.
    Remove(remove::RemoveArgs),
    /// Take over the plugin's consumers on the broker from a host that will not run again.
    TakeOver(take_over::TakeOverArgs),
    /// Change settings of a plugin, such as limits.memory=128MiB; KEY= restores the default.
    Set(set::SetArgs),
    /// Run a version on real messages without side effects, and compare its rows with those of the active version.
    Canary(canary::CanaryArgs),
    /// List the messages that a version has handled, and the number of their rows in the tables.
    Written(canary::WrittenArgs),
    /// Compare the declarations of two versions of a plugin in the host, or of two component files.
    Diff(diff::DiffArgs),
}

pub fn run(command: &PluginCommand) -> Result<ExitCode, Failure> {
    match command {
        PluginCommand::Build { path, out, wasi } => return inspect::run_build(path, out.as_deref(), *wasi),
        PluginCommand::New(args) => author::new::run(args)?,
        PluginCommand::Dev(args) => return author::dev::run(args),
        PluginCommand::Record(args) => author::record::run(args)?,
        PluginCommand::Test(args) => return author::test::run(args),
        PluginCommand::Run(args) => return author::run::run(args),
        PluginCommand::Pack(args) => author::pack::run(args)?,
        PluginCommand::Keygen(args) => author::sign::keygen(args)?,
        PluginCommand::Sign(args) => author::sign::run(args)?,
        PluginCommand::Inspect(args) => return inspect::run(args),
        PluginCommand::Install(args) => swap::install(args)?,
        PluginCommand::List(args) => show::list(args)?,
        PluginCommand::Show(args) => show::show(args)?,
        PluginCommand::Activate(args) => swap::activate(args)?,
        PluginCommand::Rollback(args) => swap::rollback(args)?,
        PluginCommand::Pause(args) => pause::pause(args)?,
        PluginCommand::Resume(args) => pause::resume(args)?,
        PluginCommand::Remove(args) => remove::run(args)?,
        PluginCommand::TakeOver(args) => take_over::run(args)?,
        PluginCommand::Set(args) => set::run(args)?,
        PluginCommand::Canary(args) => canary::canary(args)?,
        PluginCommand::Written(args) => canary::written(args)?,
        PluginCommand::Diff(args) => diff::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A plugin with an optional version: `NAME`, `NAME@DIGEST` or `NAME@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub name: PluginName,
    pub version: Option<String>,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((_, "")) => return Err("expected a digest or a version after the @".to_owned()),
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (text, None),
        };
        let name = PluginName::parse(name)?;
        Ok(Self { name, version })
    }
}

/// API path of a plugin; `rest` is empty or begins with `/`.
fn path(name: &PluginName, rest: &str) -> String {
    format!("/api/v1/plugins/{name}{rest}")
}

/// Fails if the host does not know a plugin that a filter names: an empty list would otherwise look like good news.
pub fn require(client: &Client, name: Option<&PluginName>) -> Result<(), Failure> {
    match name {
        Some(name) => client.get_json::<IgnoredAny>(&path(name, "")).map(drop),
        None => Ok(()),
    }
}

/// Displays the first 12 hex digits of a digest.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.strip_prefix("sha256:").unwrap_or(self.0);
        f.write_str(digits.get(..12).unwrap_or(digits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_a_plugin_with_an_optional_version() {
        let parse = str::parse::<Reference>;
        assert_eq!(parse("obs-events").unwrap().version, None);
        for version in ["1.0.0", "sha256:abcdefab", "1.0.0+a@b"] {
            let reference = parse(&format!("obs-events@{version}")).unwrap();
            assert_eq!(reference.version.as_deref(), Some(version));
        }
        for bad in ["", "@1.0.0", "obs-events@", "../x", "A@1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Short("sha256:0123456789abcdef").to_string(), "0123456789ab");
        assert_eq!(Short("sha256:aa").to_string(), "aa");
    }
}
