//! `cargo deny`: licences, bans and sources of the dependencies, and their known vulnerabilities.
//!
//! The first three checks need only the lock file and the sources that Cargo has fetched. The advisories need the RustSec
//! database on GitHub; if it is unreachable, the stage is skipped with the reason in the summary.

use std::{ffi::OsString, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::Verdict;
use crate::{process, workspace::Workspace};

/// Pinned, so that deny.toml has the same result on every machine.
const VERSION: &str = "0.20.2";

/// Checks licences, bans and sources.
pub fn check(workspace: &Workspace) -> Result<Verdict> {
    let deny = program(workspace)?;
    // cargo-deny needs the graph of every platform, including crates that were never built here.
    process::run(process::cargo(&workspace.root).args(["fetch", "--locked", "--quiet"]))?;
    let mut command = Command::new(&deny);
    command.current_dir(&workspace.root);
    command.args(["--offline", "check", "licenses", "bans", "sources"]);
    process::run(&mut command)?;
    // The allowed dependencies between the crates, without dev-dependencies, because tests use real servers.
    let mut crates = Command::new(&deny);
    crates.current_dir(&workspace.root);
    crates.args(["--offline", "--config", "deny-crates.toml", "check", "bans"]);
    process::run(&mut crates)?;
    Ok(Verdict::Done)
}

/// Checks the advisories if their database can be fetched.
pub fn advisories(workspace: &Workspace) -> Result<Verdict> {
    let deny = program(workspace)?;
    let mut fetch = Command::new(&deny);
    fetch.current_dir(&workspace.root).args(["fetch", "db"]);
    // Without a network, git must not wait for a password.
    fetch.env("GIT_TERMINAL_PROMPT", "0");
    if let Err(error) = process::run(&mut fetch) {
        let reason = format!("the advisory database cannot be fetched ({error:#})");
        println!("    SKIPPED: {reason}. Known vulnerabilities in dependencies were NOT checked.");
        return Ok(Verdict::Skipped(reason));
    }
    let mut command = Command::new(&deny);
    command.current_dir(&workspace.root);
    command.args(["--offline", "check", "advisories"]);
    process::run(&mut command)?;
    Ok(Verdict::Done)
}

/// The pinned cargo-deny: from PATH, from `target/tools`, or built from crates.io.
fn program(workspace: &Workspace) -> Result<OsString> {
    let tool = workspace.tools().join("bin/cargo-deny");
    for program in [OsString::from("cargo-deny"), tool.clone().into_os_string()] {
        if process::output_of(&program, &["--version"]).is_some_and(|version| is_pinned(&version)) {
            return Ok(program);
        }
    }
    println!("    cargo-deny {VERSION}: not installed, building it into target/tools (one to three minutes)");
    install(&workspace.root, &workspace.tools())
        .with_context(|| format!("cannot install cargo-deny {VERSION}; put it on PATH instead"))?;
    if !process::output_of(tool.as_os_str(), &["--version"]).is_some_and(|version| is_pinned(&version)) {
        bail!("{} is not cargo-deny {VERSION}", tool.display());
    }
    Ok(tool.into_os_string())
}

/// Builds without optimization: the program runs for a second, and an optimized build takes minutes longer.
fn install(root: &Path, tools: &Path) -> Result<()> {
    let mut command = process::cargo(root);
    command
        .args([
            "install",
            "--locked",
            "--quiet",
            "--debug",
            "--version",
            VERSION,
            "--root",
        ])
        .arg(tools);
    command.arg("cargo-deny").env("CARGO_PROFILE_DEV_DEBUG", "false");
    // The target directory of the workspace is locked, and should not contain unrelated crates.
    command.env_remove("CARGO_TARGET_DIR");
    process::run(&mut command)
}

fn is_pinned(version: &str) -> bool {
    version.split_whitespace().last() == Some(VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_version_is_used() {
        assert!(is_pinned(&format!("cargo-deny {VERSION}")));
        assert!(!is_pinned("cargo-deny 0.14.2"));
        assert!(!is_pinned(""));
    }
}
