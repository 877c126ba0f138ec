//! The dashboard: `cargo xtask web` builds it, the tests check it and run it in a browser, `cargo xtask pictures` takes the
//! screenshots of the README, `cargo xtask frames` measures scrolling. The build of the host embeds `web/dist/page`, so the
//! dashboard is built first.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    bench::with_environment,
    plugins, process,
    setup::{self, Tools, chromium, node},
    workspace::{Profile, Workspace},
};

/// `cargo xtask web`: installs the dependencies and builds the page.
pub fn build(workspace: &Workspace) -> Result<()> {
    println!("==> dashboard");
    node::find()?;
    install(workspace)?;
    npm(workspace, &["run", "build"])
}

/// Builds the page if Node is installed, and otherwise prints the reason.
pub fn build_if_possible(workspace: &Workspace) -> Result<()> {
    match node::find() {
        Ok(_) => build(workspace),
        Err(error) => {
            println!("==> dashboard: skipped, {error}");
            Ok(())
        }
    }
}

/// All checks of the page that need no browser. `each` receives every line of the unit tests.
pub fn check(workspace: &Workspace, each: impl FnMut(&str)) -> Result<()> {
    node::find()?;
    install(workspace)?;
    npm(workspace, &["run", "lint"])?;
    npm(workspace, &["run", "check"])?;
    process::run_lines(&mut npm_command(workspace, &["run", "unit"]), each)?;
    npm(workspace, &["run", "build"])?;
    npm(workspace, &["run", "size"])
}

/// Runs the unit tests of the page in a time zone. `prefix` is a command that starts them, or empty.
pub fn unit(workspace: &Workspace, prefix: &[&str], zone: &str, each: impl FnMut(&str)) -> Result<()> {
    let command_line = [prefix, &["npm", "run", "unit"]].concat();
    let mut command = Command::new(command_line[0]);
    command
        .current_dir(folder(workspace))
        .args(&command_line[1..])
        .env("TZ", zone);
    process::run_lines(&mut command, each)
}

/// Runs the browser tests with a real host, broker and plugins.
pub fn browser_tests(workspace: &Workspace, tools: &Tools, each: impl FnMut(&str)) -> Result<()> {
    let mut command = browser_command(workspace, tools, "browser", Profile::Dev)?;
    test_plugins(workspace, &mut command)?;
    process::run_lines(&mut command, each)
}

/// `cargo xtask pictures`: takes the screenshots in `docs/pictures`.
pub fn pictures(workspace: &Workspace) -> Result<()> {
    let tools = setup::run(workspace)?;
    build(workspace)?;
    plugins::build(workspace, Profile::Dev)?;
    process::run(&mut browser_command(workspace, &tools, "pictures", Profile::Dev)?)
}

/// Options of `cargo xtask frames`.
#[derive(clap::Args, Debug)]
pub struct Frames {
    /// Rows of the table, read from a stream
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Seconds per scroll pattern
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Use a host without optimization, which builds faster and fills the table more slowly
    #[arg(long)]
    dev: bool,
}

/// `cargo xtask frames`: measures the frame rate of a scrolling table with many rows.
pub fn frames(workspace: &Workspace, frames: &Frames) -> Result<()> {
    let profile = if frames.dev {
        Profile::Dev
    } else {
        Profile::Release
    };
    let tools = setup::run(workspace)?;
    build(workspace)?;
    plugins::build(workspace, profile)?;
    let mut command = browser_command(workspace, &tools, "frames", profile)?;
    command
        .env("LANTERN_ROWS", frames.rows.to_string())
        .env("LANTERN_SECONDS", frames.seconds.to_string());
    process::run(&mut command)
}

/// A command for an npm script that needs a browser, the host, a broker and plugins.
fn browser_command(workspace: &Workspace, tools: &Tools, script: &str, profile: Profile) -> Result<Command> {
    node::find()?;
    let chromium = chromium::ensure()?;
    install(workspace)?;
    if !page(workspace).join("index.html").is_file() {
        npm(workspace, &["run", "build"])?;
    }
    plugins::build_host(workspace, profile)?;
    let mut command = npm_command(workspace, &["run", script]);
    with_environment(&mut command, workspace, tools);
    command
        .env("LANTERN_BINARY", workspace.program(profile, "lantern"))
        .env(chromium::VARIABLE, chromium);
    Ok(command)
}

/// Builds the plugins for tests, and sets their environment variables: one with many versions, and one with a view.
fn test_plugins(workspace: &Workspace, command: &mut Command) -> Result<()> {
    for (name, variable) in [("evolving", "LANTERN_EVOLVING"), ("syslog", "LANTERN_SYSLOG")] {
        let component = workspace.tools().join(format!("{name}.wasm"));
        let mut build = Command::new(workspace.program(Profile::Dev, "lantern"));
        build
            .current_dir(&workspace.root)
            .args(["plugin", "build", &format!("plugins/{name}"), "--out"])
            .arg(&component);
        process::run(&mut build)?;
        command.env(variable, component);
    }
    Ok(())
}

/// Runs `npm ci`, unless the lock file is unchanged since the last run.
fn install(workspace: &Workspace) -> Result<()> {
    let folder = folder(workspace);
    let lock = fs::read(folder.join("package-lock.json")).context("cannot read web/package-lock.json")?;
    let stamp = folder.join("node_modules/.installed-lock");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        println!("    npm packages: installed");
        return Ok(());
    }
    npm(workspace, &["ci", "--no-audit", "--no-fund"])?;
    fs::write(&stamp, lock).with_context(|| format!("cannot write {}", stamp.display()))
}

fn npm(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    process::run(&mut npm_command(workspace, arguments))
}

fn npm_command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(folder(workspace)).args(arguments);
    command
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("web")
}

fn page(workspace: &Workspace) -> PathBuf {
    folder(workspace).join(Path::new("dist/page"))
}
