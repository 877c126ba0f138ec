//! The browser of the tests: one that is there, or Debian's package where this program may install it. A test tool's
//! own download of a browser is never used.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::process;

/// Says which browser to use instead of looking for one.
pub const VARIABLE: &str = "LANTERN_CHROMIUM";

const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
];

/// Finds a browser, or installs one when this is root on a system with apt. Otherwise fails and says what to install.
pub fn ensure() -> Result<PathBuf> {
    if let Some(path) = found() {
        println!("    chromium: {}", path.display());
        return Ok(path);
    }
    if !may_install() {
        bail!(
            "there is no Chromium for the browser tests: install your system's package (on Debian and Ubuntu \
             `sudo apt-get install chromium`), or name one in {VARIABLE}"
        );
    }
    println!("    chromium: missing, asking apt for it (some 100 MB)");
    let mut install = apt(&["install", "--yes", "--no-install-recommends", "chromium"]);
    if process::run(&mut install).is_err() {
        // A machine that is fresh has no list of packages, or an old one.
        process::run(&mut apt(&["update"]))?;
        process::run(&mut install)?;
    }
    match found() {
        Some(path) => Ok(path),
        None => bail!("apt has installed chromium, and there is none on PATH; name it in {VARIABLE}"),
    }
}

fn found() -> Option<PathBuf> {
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

fn apt(words: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(words);
    command
}
