//! From a crate to a plugin file: cargo builds the core module, wit-component encodes it, and the loader has the last
//! word. What is written has been loaded.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde::Deserialize;

use super::config::{Compiler, EngineConfig};
use super::loader::{LoadError, Loader, LoaderError, Plugin};
use lantern_model::settings::PluginSettings;

/// What a crate is built for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// `wasm32-unknown-unknown`: the component imports nothing but what the contract allows.
    #[default]
    Bare,
    /// `wasm32-wasip2`, for crates whose dependencies do not compile without a system. The component imports WASI, so
    /// an operator has to allow it.
    Wasi,
}

impl Target {
    fn triple(self) -> &'static str {
        match self {
            Self::Bare => "wasm32-unknown-unknown",
            Self::Wasi => "wasm32-wasip2",
        }
    }
}

/// The profile that is used where a workspace defines it.
const PROFILE: &str = "plugin";
/// The settings for [`Speed::Quick`], which calculate as the others do. They are the release profile's as well, and only
/// differ from [`RELEASE_SETTINGS`] in what does not touch macros and build scripts: those are built once for both.
const QUICK_SETTINGS: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "true"),
];
/// The same settings for a workspace without that profile: small and fast, with nothing to unwind.
const RELEASE_SETTINGS: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
];

/// What is more worth: a plugin that runs fast, or one that is built fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// As it is installed: small and fast.
    Full,
    /// For a look while it is being written: a second after a change instead of several.
    Quick,
}

/// A crate that has become a component.
pub struct Compiled {
    /// The package's name.
    pub name: String,
    /// The component, as no host has seen it yet.
    pub component: Vec<u8>,
}

/// A plugin file that was built.
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    /// The plugin in it, loaded from the bytes that were written.
    pub plugin: Arc<Plugin>,
}

/// Why there is no plugin file.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is nothing to build.
    #[error("there is no crate at {0}")]
    NoCrate(PathBuf),
    /// A program that is needed cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Rust cannot build for WebAssembly here.
    #[error("the Rust target {} is not installed", .0.triple())]
    TargetMissing(Target),
    /// Cargo has said why on standard error.
    #[error("cargo could not build {0}")]
    Cargo(PathBuf),
    /// What was built is no plugin's kind of library.
    #[error("the crate at {0} is not built as a cdylib")]
    NotACdylib(PathBuf),
    /// Cargo's or the workspace's words were not understood.
    #[error("cannot understand {what}: {words}")]
    Unclear {
        /// Whose words.
        what: &'static str,
        /// What is wrong with them.
        words: String,
    },
    /// The module cannot become a component.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The component is no plugin.
    #[error("what was built is not a plugin that a host would load")]
    Load(#[from] LoadError),
    /// The host's engine does not run here.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// A file could not be read or written.
    #[error("cannot access {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    /// What the author can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCrate(_) => Some("give the directory that has the plugin's Cargo.toml"),
            Self::Run { .. } => Some("plugins are built with cargo; install Rust from https://rustup.rs"),
            Self::TargetMissing(Target::Bare) => Some("run `rustup target add wasm32-unknown-unknown`"),
            Self::TargetMissing(Target::Wasi) => Some("run `rustup target add wasm32-wasip2`"),
            Self::NotACdylib(_) => Some("add to its Cargo.toml: [lib] crate-type = [\"cdylib\"]"),
            Self::Encode(_) => Some("the crate needs `lantern_sdk::export!(YourPlugin);` in its lib.rs"),
            Self::Load(error) => error.hint(),
            Self::Cargo(_) | Self::Unclear { .. } | Self::Loader(_) | Self::File { .. } => None,
        }
    }
}

/// A core module that cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the module cannot be encoded as a component: {0}")]
pub struct EncodeError(String);

/// Encodes a core module, as compilers make it, as a component. The description of its interfaces is taken from the
/// sections that wit-bindgen left in it.
///
/// # Errors
/// When the module does not have them, or does not fit them.
pub fn encode(core_module: &[u8]) -> Result<Vec<u8>, EncodeError> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(core_module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| EncodeError(format!("{error:#}")))
}

/// Builds the crate at `path` (a directory or its Cargo.toml) for `target`, as it is installed, and [writes](write) it.
///
/// # Errors
/// Whatever keeps a file from being a plugin that the host would load; then nothing is written.
pub fn build(path: &Path, out: Option<&Path>, target: Target) -> Result<Built, BuildError> {
    write(&compile(path, target, Speed::Full)?, out)
}

/// Loads what was built and writes it to `out`, or to `NAME.wasm` in the current directory.
///
/// # Errors
/// Whatever keeps a file from being a plugin that the host would load; then nothing is written.
pub fn write(compiled: &Compiled, out: Option<&Path>) -> Result<Built, BuildError> {
    let Compiled { name, component } = compiled;
    // Whether it may import WASI is for the operator of a host to say; here it is empty anyway.
    let settings = PluginSettings {
        wasi: true,
        internal_subjects: true,
        ..PluginSettings::default()
    };
    let plugin =
        Loader::new(EngineConfig::new(Compiler::InProcess), [0; 32])?.load_with(component, &settings)?;
    let path = out.map_or_else(|| PathBuf::from(format!("{name}.wasm")), Path::to_owned);
    replace(&path, component).map_err(|source| file(&path, source))?;
    Ok(Built { path, plugin })
}

/// Builds and encodes the crate at `path` (a directory or its Cargo.toml), without a look at whether a host would load it.
/// Cargo talks to standard error while it works.
///
/// # Errors
/// Whatever keeps the crate from becoming a component.
pub fn compile(path: &Path, target: Target, speed: Speed) -> Result<Compiled, BuildError> {
    let manifest = manifest_of(path)?;
    let dir = manifest.parent().unwrap_or(Path::new("/"));
    ensure_target(dir, target)?;
    let artifact = cargo_build(dir, &manifest, target, speed)?;
    let binary = std::fs::read(&artifact.file).map_err(|source| file(&artifact.file, source))?;
    let component = match target {
        Target::Bare => encode(&binary)?,
        Target::Wasi => binary, // Rust's linker for this target has encoded it.
    };
    Ok(Compiled {
        name: artifact.name,
        component,
    })
}

fn file(path: &Path, source: io::Error) -> BuildError {
    BuildError::File {
        path: path.to_owned(),
        source,
    }
}

fn manifest_of(path: &Path) -> Result<PathBuf, BuildError> {
    let manifest = if path.is_dir() {
        path.join("Cargo.toml")
    } else {
        path.to_owned()
    };
    match manifest.canonicalize() {
        Ok(manifest) if manifest.is_file() => Ok(manifest),
        _ => Err(BuildError::NoCrate(path.to_owned())),
    }
}

/// Runs a tool in the crate's directory, where rustup and cargo look for their settings, and returns its output.
fn run(command: &mut Command) -> Result<std::process::Output, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BuildError::Run { program, source })
}

/// The tool that a surrounding cargo names, or the one on the path.
fn tool(variable: &str, name: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| name.into())
}

fn ensure_target(dir: &Path, target: Target) -> Result<(), BuildError> {
    let mut rustc = Command::new(tool("RUSTC", "rustc"));
    let output = run(rustc
        .args(["--print", "target-libdir", "--target", target.triple()])
        .current_dir(dir))?;
    let libdir = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && Path::new(libdir.trim()).is_dir() {
        Ok(())
    } else {
        Err(BuildError::TargetMissing(target))
    }
}

/// Whether the crate's workspace defines the profile for plugins.
fn has_profile(dir: &Path) -> Result<bool, BuildError> {
    let mut cargo = Command::new(tool("CARGO", "cargo"));
    let output = run(cargo
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .current_dir(dir))?;
    let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let text = std::fs::read_to_string(&root).map_err(|source| file(&root, source))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| unclear("the workspace's Cargo.toml", &error))?;
    Ok(table
        .get("profile")
        .and_then(|profiles| profiles.get(PROFILE))
        .is_some())
}

fn unclear(what: &'static str, error: &dyn std::error::Error) -> BuildError {
    BuildError::Unclear {
        what,
        words: error.to_string(),
    }
}

/// A line of cargo's report. There are other fields and other kinds of lines.
#[derive(Deserialize)]
struct Report {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Product>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Product {
    name: String,
    kind: Vec<String>,
}

struct Artifact {
    name: String,
    file: PathBuf,
}

fn cargo_build(dir: &Path, manifest: &Path, target: Target, speed: Speed) -> Result<Artifact, BuildError> {
    let mut cargo = Command::new(tool("CARGO", "cargo"));
    cargo
        .args([
            "build",
            "--lib",
            "--target",
            target.triple(),
            "--message-format",
            "json-render-diagnostics",
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .current_dir(dir)
        .stderr(Stdio::inherit());
    if speed == Speed::Quick {
        cargo.arg("--release").envs(QUICK_SETTINGS);
    } else if has_profile(dir)? {
        cargo.args(["--profile", PROFILE]);
    } else {
        cargo.arg("--release").envs(RELEASE_SETTINGS);
    }
    let output = run(&mut cargo)?;
    if !output.status.success() {
        return Err(BuildError::Cargo(dir.to_owned()));
    }
    artifact_in(&output.stdout, manifest)?.ok_or_else(|| BuildError::NotACdylib(dir.to_owned()))
}

/// The crate's own cdylib among all that cargo reports.
fn artifact_in(report: &[u8], manifest: &Path) -> Result<Option<Artifact>, BuildError> {
    let mut found = None;
    for line in report
        .split(|&byte| byte == b'\n')
        .filter(|line| line.starts_with(b"{"))
    {
        let report: Report =
            serde_json::from_slice(line).map_err(|error| unclear("cargo's report", &error))?;
        let Some(target) = report.target.filter(|_| report.reason == "compiler-artifact") else {
            continue;
        };
        let ours = report.manifest_path.as_deref() == Some(manifest);
        if ours && target.kind.iter().any(|kind| kind == "cdylib") {
            let wasm = report
                .filenames
                .into_iter()
                .find(|name| name.extension().is_some_and(|e| e == "wasm"));
            found = wasm.map(|file| Artifact {
                name: target.name.replace('_', "-"),
                file,
            });
        }
    }
    Ok(found)
}

/// Writes a file so that whoever watches it sees the old bytes or the new ones, and nothing in between.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::File::open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_own_library_is_found_in_cargos_report() {
        let report = br#"{"reason":"compiler-artifact","manifest_path":"/x/dep/Cargo.toml","target":{"name":"dep","kind":["cdylib"]},"filenames":["/t/dep.wasm"]}
{"reason":"build-script-executed","package_id":"x"}
not json
{"reason":"compiler-artifact","manifest_path":"/x/mine/Cargo.toml","target":{"name":"obs_events","kind":["cdylib","rlib"]},"filenames":["/t/libobs.rlib","/t/obs_events.wasm"]}
{"reason":"build-finished","success":true}"#;
        let found = artifact_in(report, Path::new("/x/mine/Cargo.toml"))
            .unwrap()
            .unwrap();
        assert_eq!(
            (found.name.as_str(), found.file.as_path()),
            ("obs-events", Path::new("/t/obs_events.wasm"))
        );
        assert!(
            artifact_in(report, Path::new("/x/other/Cargo.toml"))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_place_without_a_crate_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let Err(error) = compile(dir.path(), Target::Bare, Speed::Full) else {
            panic!("there is nothing to build")
        };
        assert!(matches!(error, BuildError::NoCrate(_)), "{error:?}");
        assert!(error.hint().is_some());
    }
}
