//! The browser of the tests: an installed one, or Debian's package. A browser downloaded by a test tool is never used.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::process;

/// Environment variable with the path of the browser.
pub const VARIABLE: &str = "LANTERN_CHROMIUM";

const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
];

/// Finds a browser, or installs one if this process is root on a system with apt. Otherwise the error names the package.
pub fn ensure() -> Result<PathBuf> {
    if let Some(path) = find() {
        println!("    chromium: {}", path.display());
        return Ok(path);
    }
    if !may_install() {
        bail!(
            "no Chromium for the browser tests: install the package of your system (Debian and Ubuntu: \
             `sudo apt-get install chromium`), or set {VARIABLE}"
        );
    }
    println!("    chromium: not installed, installing it with apt (about 100 MB)");
    let mut install = apt(&["install", "--yes", "--no-install-recommends", "chromium"]);
    if process::run(&mut install).is_err() {
        // A fresh machine has no package list, or an outdated one.
        process::run(&mut apt(&["update"]))?;
        process::run(&mut install)?;
    }
    match find() {
        Some(path) => Ok(path),
        None => bail!("apt installed chromium, but it is not on PATH; set {VARIABLE}"),
    }
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let in_folder = |folder: &Path| {
        NAMES
            .iter()
            .map(|name| folder.join(name))
            .find(|file| file.is_file())
    };
    folders.iter().find_map(|folder| in_folder(folder))
}

fn may_install() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists()
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
    command
}
