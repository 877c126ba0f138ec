//! `cargo deny`: licences, doubles and origins of the dependencies, and their known vulnerabilities.
//!
//! The first three need nothing but the lock file and the sources that cargo has fetched. The advisories need
//! RustSec's database, which lies on GitHub; where that cannot be reached the stage says so and is skipped, with
//! the reason in the summary.

use std::{ffi::OsString, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::Verdict;
use crate::{process, workspace::Workspace};

/// Without it the same deny.toml could pass here and fail there.
const VERSION: &str = "0.20.2";

/// Checks licences, bans and sources.
pub fn check(workspace: &Workspace) -> Result<Verdict> {
    let deny = program(workspace)?;
    // It asks cargo for the graph of every platform, also of crates that were never built here.
    process::run(process::cargo(&workspace.root).args(["fetch", "--locked", "--quiet"]))?;
    let mut command = Command::new(&deny);
    command.current_dir(&workspace.root);
    command.args(["--offline", "check", "licenses", "bans", "sources"]);
    process::run(&mut command)?;
    // Which crate of the host may depend on which: without dev-dependencies, since tests talk to real servers.
    let mut crates = Command::new(&deny);
    crates.current_dir(&workspace.root);
    crates.args(["--offline", "check", "--config", "deny-crates.toml", "bans"]);
    process::run(&mut crates)?;
    Ok(Verdict::Done)
}

/// Checks the advisories, when their database can be had.
pub fn advisories(workspace: &Workspace) -> Result<Verdict> {
    let deny = program(workspace)?;
    let mut fetch = Command::new(&deny);
    fetch.current_dir(&workspace.root).args(["fetch", "db"]);
    // A machine without a network must not hang at a password prompt of git.
    fetch.env("GIT_TERMINAL_PROMPT", "0");
    if let Err(error) = process::run(&mut fetch) {
        let reason = format!("the advisory database cannot be fetched ({error:#})");
        println!("    SKIPPED: {reason}. Known vulnerabilities in dependencies were NOT looked for.");
        return Ok(Verdict::Skipped(reason));
    }
    let mut command = Command::new(&deny);
    command.current_dir(&workspace.root);
    command.args(["--offline", "check", "advisories"]);
    process::run(&mut command)?;
    Ok(Verdict::Done)
}

/// The pinned cargo-deny: on PATH, in `target/tools`, or built from crates.io into it.
fn program(workspace: &Workspace) -> Result<OsString> {
    let tool = workspace.tools().join("bin/cargo-deny");
    for program in [OsString::from("cargo-deny"), tool.clone().into_os_string()] {
        if process::answer(&program, &["--version"]).is_some_and(|said| is_pinned(&said)) {
            return Ok(program);
        }
    }
    println!(
        "    cargo-deny {VERSION}: not there, building it into target/tools (one to three minutes, once)"
    );
    install(&workspace.root, &workspace.tools())
        .with_context(|| format!("cannot install cargo-deny {VERSION}; put it on PATH to go on without"))?;
    if !process::answer(tool.as_os_str(), &["--version"]).is_some_and(|said| is_pinned(&said)) {
        bail!("{} is not cargo-deny {VERSION}", tool.display());
    }
    Ok(tool.into_os_string())
}

/// Builds without optimization: it runs for a second, and the optimized build takes minutes longer.
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
    // The workspace's own target directory would be locked and filled with foreign crates.
    command.env_remove("CARGO_TARGET_DIR");
    process::run(&mut command)
}

fn is_pinned(said: &str) -> bool {
    said.split_whitespace().last() == Some(VERSION)
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
