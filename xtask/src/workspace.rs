//! Where things are: the root of the repository, cargo's target directory, and the folders that xtask fills.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// The places that the commands share.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The folder with the workspace's Cargo.toml.
    pub root: PathBuf,
    /// Where cargo builds. It is not always `root/target`: `CARGO_TARGET_DIR` moves it.
    pub cargo_target: PathBuf,
    /// The members, as cargo knows them.
    pub packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    /// Its name in Cargo.toml.
    pub name: String,
    /// Where that Cargo.toml is.
    pub manifest_path: PathBuf,
    /// Its library, programs, tests and benches.
    pub targets: Vec<Target>,
}

/// One thing that cargo can build of a package.
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
    /// Asks `cargo metadata`. Fails when cargo does, for example because a Cargo.toml is broken.
    pub fn find() -> Result<Self> {
        let here = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let mut command = process::cargo(&here);
        command.args(["metadata", "--format-version", "1", "--no-deps"]);
        let output = command.output().context("cannot start cargo")?;
        if !output.status.success() {
            anyhow::bail!(
                "`cargo metadata` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).context("cannot read what `cargo metadata` says")?;
        Ok(Self {
            root: metadata.workspace_root,
            cargo_target: metadata.target_directory,
            packages: metadata.packages,
        })
    }

    /// Programs that are not built from this repository: `target/tools`.
    pub fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// The plugins as components: `target/plugins`.
    pub fn plugins(&self) -> PathBuf {
        self.root.join("target/plugins")
    }

    /// A program that cargo built.
    pub fn program(&self, profile: Profile, name: &str) -> PathBuf {
        self.cargo_target.join(profile.folder()).join(name)
    }

    /// A path as it is shown to people: from the root on where it lies under it.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// How programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build. The tests use it.
    Dev,
    /// Quick to run. The demo and the bench use it.
    Release,
}

impl Profile {
    /// What cargo wants to be told.
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
