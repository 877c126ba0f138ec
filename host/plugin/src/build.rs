//! Builds a plugin file from a crate: cargo builds the core module, wit-component encodes it, and the loader verifies
//! it. Every written file has been loaded.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde::Deserialize;

use super::config::{Compiler, EngineConfig};
use super::loader::{LoadError, Loader, LoaderError, Plugin};
use lantern_model::settings::PluginSettings;

/// The compilation target of a crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// `wasm32-unknown-unknown`: the component imports only what the contract allows.
    #[default]
    Bare,
    /// `wasm32-wasip2`, for crates whose dependencies do not compile without a system. The component imports WASI,
    /// which requires an operator's permission.
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

/// The profile that is used if the workspace defines it.
const PROFILE: &str = "plugin";
/// The settings for [`Speed::Quick`], which compute the same results. They apply to the release profile as well and
/// differ from [`RELEASE_SETTINGS`] only in settings that do not affect macros and build scripts, so those are built
/// once for both.
const QUICK_SETTINGS: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "true"),
];
/// The settings for a workspace without that profile: small and fast, without unwinding.
const RELEASE_SETTINGS: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
];

/// Whether to optimize the plugin or the build time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// Optimized, as for installation: small and fast.
    Full,
    /// For development: one second after a change instead of several.
    Quick,
}

/// A compiled component.
pub struct Compiled {
    /// The package's name.
    pub name: String,
    /// The component, not loaded yet.
    pub component: Vec<u8>,
}

/// A built plugin file.
pub struct Built {
    /// Its path.
    pub path: PathBuf,
    /// The plugin, loaded from the written bytes.
    pub plugin: Arc<Plugin>,
}

/// Why building failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no crate.
    #[error("there is no crate at {0}")]
    NoCrate(PathBuf),
    /// A required program cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The Rust target for WebAssembly is not installed.
    #[error("the Rust target {} is not installed", .0.triple())]
    TargetMissing(Target),
    /// Cargo failed and reported the cause on standard error.
    #[error("cargo could not build {0}")]
    Cargo(PathBuf),
    /// The crate is not a cdylib.
    #[error("the crate at {0} is not built as a cdylib")]
    NotACdylib(PathBuf),
    /// The output of cargo or the workspace's Cargo.toml cannot be parsed.
    #[error("cannot parse {what}: {reason}")]
    Unparsable {
        /// The text.
        what: &'static str,
        /// The problem.
        reason: String,
    },
    /// The module cannot be encoded as a component.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The component is not a plugin.
    #[error("what was built is not a plugin that a host would load")]
    Load(#[from] LoadError),
    /// The engine does not run on this machine.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// A file could not be read or written.
    #[error("cannot access {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    /// A remedy for the author.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCrate(_) => Some("specify the directory with the plugin's Cargo.toml"),
            Self::Run { .. } => Some("plugins are built with cargo; install Rust from https://rustup.rs"),
            Self::TargetMissing(Target::Bare) => Some("run `rustup target add wasm32-unknown-unknown`"),
            Self::TargetMissing(Target::Wasi) => Some("run `rustup target add wasm32-wasip2`"),
            Self::NotACdylib(_) => Some("add to its Cargo.toml: [lib] crate-type = [\"cdylib\"]"),
            Self::Encode(_) => Some("the crate requires `lantern_sdk::export!(YourPlugin);` in its lib.rs"),
            Self::Load(error) => error.hint(),
            Self::Cargo(_) | Self::Unparsable { .. } | Self::Loader(_) | Self::File { .. } => None,
        }
    }
}

/// A core module cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the module cannot be encoded as a component: {0}")]
pub struct EncodeError(String);

/// Encodes a core module, as compilers emit it, as a component. The description of its interfaces comes from the
/// sections that wit-bindgen added.
///
/// # Errors
/// When the module lacks them, or does not match them.
pub fn encode(core_module: &[u8]) -> Result<Vec<u8>, EncodeError> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(core_module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| EncodeError(format!("{error:#}")))
}

/// Builds the crate at `path` (a directory or its Cargo.toml) for `target` with full optimization, and [writes](write)
/// it.
///
/// # Errors
/// When the host would not load the file; then nothing is written.
pub fn build(path: &Path, out: Option<&Path>, target: Target) -> Result<Built, BuildError> {
    write(&compile(path, target, Speed::Full)?, out)
}

/// Loads a compiled component and writes it to `out`, or to `NAME.wasm` in the current directory.
///
/// # Errors
/// When the host would not load the file; then nothing is written.
pub fn write(compiled: &Compiled, out: Option<&Path>) -> Result<Built, BuildError> {
    let Compiled { name, component } = compiled;
    // The operator of a host decides about WASI; here it is empty anyway.
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

/// Builds and encodes the crate at `path` (a directory or its Cargo.toml), without checking whether a host would load
/// it. Cargo writes to standard error.
///
/// # Errors
/// When the crate cannot become a component.
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

/// Runs a tool in the crate's directory, where rustup and cargo find their settings, and returns its output.
fn run(command: &mut Command) -> Result<std::process::Output, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BuildError::Run { program, source })
}

/// The tool that a surrounding cargo names, or the one on PATH.
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
        .map_err(|error: toml::de::Error| unparsable("the workspace's Cargo.toml", &error))?;
    Ok(table
        .get("profile")
        .and_then(|profiles| profiles.get(PROFILE))
        .is_some())
}

fn unparsable(what: &'static str, error: &dyn std::error::Error) -> BuildError {
    BuildError::Unparsable {
        what,
        reason: error.to_string(),
    }
}

/// A line of cargo's report, which has other fields and other kinds of lines as well.
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

/// The crate's own cdylib among cargo's artifacts.
fn artifact_in(report: &[u8], manifest: &Path) -> Result<Option<Artifact>, BuildError> {
    let mut found = None;
    for line in report
        .split(|&byte| byte == b'\n')
        .filter(|line| line.starts_with(b"{"))
    {
        let report: Report =
            serde_json::from_slice(line).map_err(|error| unparsable("cargo's report", &error))?;
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

/// Replaces a file atomically: a reader sees the old bytes or the new ones.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::File::open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error matters.
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
    fn a_directory_without_a_crate_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let Err(error) = compile(dir.path(), Target::Bare, Speed::Full) else {
            panic!("there is nothing to build")
        };
        assert!(matches!(error, BuildError::NoCrate(_)), "{error:?}");
        assert!(error.hint().is_some());
    }
}
