//! Paths: the root of the repository, Cargo's target directory, and the folders that xtask fills.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// The paths that the commands share.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The folder with the workspace's Cargo.toml.
    pub root: PathBuf,
    /// Cargo's target directory: `root/target`, unless `CARGO_TARGET_DIR` is set.
    pub cargo_target: PathBuf,
    /// The members of the workspace.
    pub packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    /// The name in Cargo.toml.
    pub name: String,
    /// The path of that Cargo.toml.
    pub manifest_path: PathBuf,
    /// Its library, programs, tests and benchmarks.
    pub targets: Vec<Target>,
}

/// One target of a package.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// `bin`, `lib`, `cdylib`, `test` and so on.
    pub kind: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

impl Workspace {
    /// Runs `cargo metadata`. Fails if Cargo does, for example because a Cargo.toml is invalid.
    pub fn find() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let mut command = process::cargo(&package);
        command.args(["metadata", "--format-version", "1", "--no-deps"]);
        let output = command.output().context("cannot start cargo")?;
        if !output.status.success() {
            anyhow::bail!(
                "`cargo metadata` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).context("cannot parse the output of `cargo metadata`")?;
        Ok(Self {
            root: metadata.workspace_root,
            cargo_target: metadata.target_directory,
            packages: metadata.packages,
        })
    }

    /// The folder of external programs: `target/tools`.
    pub fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// The folder of the built plugins: `target/plugins`.
    pub fn plugins(&self) -> PathBuf {
        self.root.join("target/plugins")
    }

    /// A program that cargo built.
    pub fn program(&self, profile: Profile, name: &str) -> PathBuf {
        self.cargo_target.join(profile.folder()).join(name)
    }

    /// A path for display, relative to the root if possible.
    pub fn display<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// The build profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Builds faster. Used by tests.
    Dev,
    /// Runs faster. Used by the demo and benchmarks.
    Release,
}

impl Profile {
    /// The arguments for Cargo.
    pub fn flag(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}
