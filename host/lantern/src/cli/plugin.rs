//! `lantern plugin`: what can be done with plugins. Building and inspecting need no host; everything else asks a
//! running one. A command is a variant here and a file of its own.

mod diff;
mod hold;
#[cfg(feature = "oci")]
mod oci;
mod remove;
mod set;
mod show;
mod signature;
mod swap;
mod take_over;
mod trial;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Subcommand;

use super::{Failure, author, inspect};
use lantern_model::schema::PluginName;

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Make a project that builds and passes its test, with a table guessed from a sample.
    New(author::new::NewArgs),
    /// Build a plugin and compare what it makes of its fixtures with what is expected. Exits with 1 when it differs.
    Test(author::test::TestArgs),
    /// Build on each save, swap into a host that is started for it, and show rows and dead letters as they come.
    Dev(author::dev::DevArgs),
    /// Take messages from a stream, or a host's dead letters, as fixtures.
    Record(author::record::RecordArgs),
    /// Show what one message becomes. Exits with 1 when it is rejected.
    Run(author::run::RunArgs),
    /// Build the plugin in a cargo package and make it a component that the host loads.
    Build {
        /// The package's directory.
        path: PathBuf,
        /// Where the component is written [default: PACKAGE.wasm beside the package's target directory].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Build for wasm32-wasip2, for crates that do not compile without a system; an operator has to allow the plugin WASI.
        #[arg(long)]
        wasi: bool,
    },
    /// Build a component that says what it is and where it is from: version, licence, source, authors.
    Pack(author::pack::PackArgs),
    /// Make a pair of keys to sign components with, as minisign has them.
    Keygen(author::sign::KeygenArgs),
    /// Sign a component, so that hosts know who has made it; writes FILE.minisig.
    Sign(author::sign::SignArgs),
    /// Show what a plugin says of itself: sources, tables, writes, imports and sizes.
    Inspect(inspect::InspectArgs),
    /// Send a component to the host, which checks, compiles and keeps it; with --activate it runs.
    Install(swap::InstallArgs),
    /// List the plugins of the host, and what is refused and why.
    List(show::ListArgs),
    /// Show one plugin: its versions, what each has handled, and its settings.
    Show(show::ShowArgs),
    /// Make a version run: the one that is named, or the newest.
    Activate(swap::ActivateArgs),
    /// Go back to the version that ran before.
    Rollback(swap::RollbackArgs),
    /// Hold a plugin after the batch in hand; its messages wait in their streams.
    Pause(hold::PauseArgs),
    /// Let a paused plugin go on where it was.
    Resume(hold::ResumeArgs),
    /// Stop a plugin and forget it, with its tables or without.
    Remove(remove::RemoveArgs),
    /// Take over the plugin's consumers on the broker from another host that is not to continue.
    TakeOver(take_over::TakeOverArgs),
    /// Change settings of one plugin, such as limits.memory=128MiB; KEY= takes one back.
    Set(set::SetArgs),
    /// Try a version on real messages, beside the one that runs, and say what would change.
    Canary(trial::CanaryArgs),
    /// Say which messages a version has handled, and how many rows of them are there now.
    Written(trial::WrittenArgs),
    /// Say what differs between two versions of a plugin in the host, or between two files.
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
        PluginCommand::Pause(args) => hold::pause(args)?,
        PluginCommand::Resume(args) => hold::resume(args)?,
        PluginCommand::Remove(args) => remove::run(args)?,
        PluginCommand::TakeOver(args) => take_over::run(args)?,
        PluginCommand::Set(args) => set::run(args)?,
        PluginCommand::Canary(args) => trial::canary(args)?,
        PluginCommand::Written(args) => trial::written(args)?,
        PluginCommand::Diff(args) => diff::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A plugin, and perhaps one of its versions: `NAME`, `NAME@DIGEST` or `NAME@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub name: PluginName,
    pub version: Option<String>,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((_, "")) => return Err("after the @ comes a digest or a version".to_owned()),
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (text, None),
        };
        let name = PluginName::parse(name)?;
        Ok(Self { name, version })
    }
}

/// Where the API has a plugin; `rest` is empty or begins with `/`.
fn path(name: &PluginName, rest: &str) -> String {
    format!("/api/v1/plugins/{name}{rest}")
}

/// Enough of a digest for people, and for commands, to tell versions apart.
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
    fn a_plugin_is_named_with_a_version_or_without() {
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
