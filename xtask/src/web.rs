//! The dashboard: `cargo xtask web` builds it, the tests check it and drive it in a browser, `cargo xtask pictures`
//! draws it for the README, `cargo xtask frames` measures how it scrolls. The host embeds what lies in `web/dist/page` when it is built, so this comes before that.

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

/// `cargo xtask web`: fetches what is missing and builds the page.
pub fn build(workspace: &Workspace) -> Result<()> {
    println!("==> dashboard");
    node::find()?;
    install(workspace)?;
    npm(workspace, &["run", "build"])
}

/// The same for those who can do without: says why there is no page when it cannot be built.
pub fn build_where_possible(workspace: &Workspace) -> Result<()> {
    match node::find() {
        Ok(_) => build(workspace),
        Err(error) => {
            println!("==> dashboard: left out. {error}");
            Ok(())
        }
    }
}

/// Everything that is checked of the page without a browser. `each` sees every line that the tests print.
pub fn check(workspace: &Workspace, each: impl FnMut(&str)) -> Result<()> {
    node::find()?;
    install(workspace)?;
    npm(workspace, &["run", "lint"])?;
    npm(workspace, &["run", "check"])?;
    process::run_lines(&mut npm_command(workspace, &["run", "unit"]), each)?;
    npm(workspace, &["run", "build"])?;
    npm(workspace, &["run", "size"])
}

/// The unit tests of the page, in a time zone and, where `prefix` is the beginning of a command, behind that.
pub fn unit(workspace: &Workspace, prefix: &[&str], zone: &str, each: impl FnMut(&str)) -> Result<()> {
    let words = [prefix, &["npm", "run", "unit"]].concat();
    let mut command = Command::new(words[0]);
    command
        .current_dir(folder(workspace))
        .args(&words[1..])
        .env("TZ", zone);
    process::run_lines(&mut command, each)
}

/// The page in a browser, on a real host with a real broker and real plugins.
pub fn drive(workspace: &Workspace, tools: &Tools, each: impl FnMut(&str)) -> Result<()> {
    let mut command = browser_command(workspace, tools, "browser", Profile::Dev)?;
    test_plugins(workspace, &mut command)?;
    process::run_lines(&mut command, each)
}

/// `cargo xtask pictures`: draws the main pages into `docs/pictures`.
pub fn pictures(workspace: &Workspace) -> Result<()> {
    let tools = setup::run(workspace)?;
    build(workspace)?;
    plugins::build(workspace, Profile::Dev)?;
    process::run(&mut browser_command(workspace, &tools, "pictures", Profile::Dev)?)
}

/// What may be chosen for `cargo xtask frames`.
#[derive(clap::Args, Debug)]
pub struct Frames {
    /// Rows of the table; they are read from a stream
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Seconds of each way of scrolling
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// With a host built without optimization, which builds sooner and fills the table later
    #[arg(long)]
    dev: bool,
}

/// `cargo xtask frames`: measures how smoothly a table of very many rows scrolls.
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

/// With everything in place that a browser test needs.
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

/// Plugins that only tests load, each with the variable that says where it is: one that comes in many versions, and one
/// that ships a view.
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

/// `npm ci`, unless exactly this was installed before.
fn install(workspace: &Workspace) -> Result<()> {
    let folder = folder(workspace);
    let lock = fs::read(folder.join("package-lock.json")).context("cannot read web/package-lock.json")?;
    let stamp = folder.join("node_modules/.installed-lock");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        println!("    what npm fetches: there");
        return Ok(());
    }
    npm(workspace, &["ci", "--no-audit", "--no-fund"])?;
    fs::write(&stamp, lock).with_context(|| format!("cannot write {}", stamp.display()))
}

fn npm(workspace: &Workspace, words: &[&str]) -> Result<()> {
    process::run(&mut npm_command(workspace, words))
}

fn npm_command(workspace: &Workspace, words: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(folder(workspace)).args(words);
    command
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("web")
}

fn page(workspace: &Workspace) -> PathBuf {
    folder(workspace).join(Path::new("dist/page"))
}
