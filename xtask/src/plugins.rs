//! `cargo xtask plugins`: builds the stock plugins as components into `target/plugins/NAME.wasm`.
//!
//! A plugin is a workspace member under `plugins/` with a `cdylib`. The demo loads all plugins of the folder, so test plugins
//! and the examples without a stream are excluded. Tests build those themselves.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    process,
    workspace::{Package, Profile, Workspace},
};

const EXCLUDED: [&str; 6] = [
    "misbehaving",
    "evolving",
    "scripted",
    "github-webhooks",
    "otel-logs",
    "syslog",
];

/// Builds the host, and each plugin with `lantern plugin build`. Removes files of other plugins, because a host loads all
/// plugins of the folder.
pub fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
    println!("==> plugins");
    build_host(workspace, profile)?;
    let folder = workspace.plugins();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let plugins = plugins_of(workspace);
    if plugins.is_empty() {
        bail!("no plugin under plugins/");
    }
    remove_others(&folder, &plugins)?;
    let lantern = workspace.program(profile, "lantern");
    for package in plugins {
        let source = package.manifest_path.parent().unwrap_or(&workspace.root);
        let mut command = Command::new(&lantern);
        command.current_dir(&workspace.root).args(["plugin", "build"]);
        command.arg(workspace.display(source).to_string());
        command
            .arg("--out")
            .arg(folder.join(format!("{}.wasm", package.name)));
        process::run(&mut command)?;
    }
    Ok(())
}

/// Builds `lantern` with the dependency features of the whole workspace, so that tests do not compile dependencies again.
pub fn build_host(workspace: &Workspace, profile: Profile) -> Result<()> {
    let mut command = process::cargo(&workspace.root);
    command
        .args(["build", "--locked", "--workspace", "--bin", "lantern"])
        .args(profile.flag());
    process::run(&mut command)
}

/// The plugins to build, sorted by name.
fn plugins_of(workspace: &Workspace) -> Vec<&Package> {
    let folder = workspace.root.join("plugins");
    let mut plugins: Vec<&Package> = workspace
        .packages
        .iter()
        .filter(|package| {
            package.manifest_path.starts_with(&folder) && !EXCLUDED.contains(&package.name.as_str())
        })
        .filter(|package| {
            package
                .targets
                .iter()
                .any(|target| target.kind.iter().any(|kind| kind == "cdylib"))
        })
        .collect();
    plugins.sort_by(|left, right| left.name.cmp(&right.name));
    plugins
}

fn remove_others(folder: &Path, plugins: &[&Package]) -> Result<()> {
    for entry in folder
        .read_dir()
        .with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry
            .with_context(|| format!("cannot read {}", folder.display()))?
            .path();
        let known = plugins
            .iter()
            .any(|package| path.file_stem().is_some_and(|stem| stem == &*package.name));
        if !known && path.extension().is_some_and(|extension| extension == "wasm") {
            println!("    removing {}, which belongs to no plugin", path.display());
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::Target;

    fn package(folder: &str, kinds: &[&str]) -> Package {
        Package {
            name: folder.rsplit('/').next().unwrap().to_owned(),
            manifest_path: PathBuf::from("/repo").join(folder).join("Cargo.toml"),
            targets: vec![Target {
                kind: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            }],
        }
    }

    #[test]
    fn plugins_are_the_cdylibs_under_plugins() {
        let workspace = Workspace {
            root: "/repo".into(),
            cargo_target: "/repo/target".into(),
            packages: vec![
                package("plugins/obs-events", &["cdylib", "rlib"]),
                package("plugins/audit-log", &["cdylib"]),
                package("plugins/misbehaving", &["cdylib"]),
                package("plugins/sdk", &["lib"]),
                package("plugins/sdk-macros", &["proc-macro"]),
                package("host/lantern", &["cdylib"]),
            ],
        };
        let names: Vec<_> = plugins_of(&workspace)
            .iter()
            .map(|package| package.name.as_str())
            .collect();
        assert_eq!(names, ["audit-log", "obs-events"]);
    }

    #[test]
    fn only_files_of_removed_plugins_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["obs-events.wasm", "gone.wasm", "notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_others(folder.path(), &[&package("plugins/obs-events", &["cdylib"])]).unwrap();
        let mut left: Vec<_> = folder
            .path()
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["notes.txt", "obs-events.wasm"]);
    }
}
