//! `cargo xtask languages`: one plugin in Rust, JavaScript and Python, built with each language's own tools and measured side
//! by side. The tests build those in JavaScript and Python too, and what `plugin new` writes. The tools come from npm and
//! PyPI into `target/tools`; node with npm and Python have to be there.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    plugins, process, setup,
    workspace::{Profile, Workspace},
};

const COMPONENTIZE_QJS: &str = "componentize-qjs@0.4.5";
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";

/// Builds and measures. The host is built without optimization unless `release` is asked for; guests always are.
pub fn run(workspace: &Workspace, release: bool) -> Result<()> {
    setup::run(workspace)?;
    let rust = rust(workspace)?;
    let javascript = javascript(workspace)?;
    let python = python(workspace)?;
    println!("==> figures");
    let mut command = process::cargo(&workspace.root);
    command.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "lantern",
        "--example",
        "languages",
    ]);
    if release {
        command.arg("--release");
    }
    process::run(command.arg("--").args([rust, javascript, python]))
}

/// Builds the examples in JavaScript and Python, and a new project in each, and runs their tests on a host's engine.
pub fn check(workspace: &Workspace) -> Result<()> {
    setup::node::find()?;
    plugins::build_host(workspace, Profile::Dev)?;
    let new = workspace.root.join("target/new-plugins");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot clear {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    let packages = python_tools(workspace)?;
    let tools = [javascript_tools(workspace)?, packages.join("bin")];
    javascript(workspace)?;
    python(workspace)?;
    let path = path_with(&tools)?;
    let lantern = |folder: &Path, words: &[&str]| {
        let mut command = Command::new(workspace.program(Profile::Dev, "lantern"));
        command
            .current_dir(folder)
            .args(words)
            .env("PATH", &path)
            .env("PYTHONPATH", &packages);
        process::run(&mut command)
    };
    for language in ["js", "python"] {
        let example = format!("plugins/{language}-example/{language}-example.wasm");
        lantern(&workspace.root, &["plugin", "test", &example])?;
        let name = format!("new-{language}");
        lantern(&new, &["plugin", "new", &name, "--lang", language])?;
        lantern(&new, &["plugin", "test", &name])?;
    }
    Ok(())
}

fn rust(workspace: &Workspace) -> Result<String> {
    println!("==> Rust");
    let mut command = process::cargo(&workspace.root);
    command.args([
        "build",
        "--locked",
        "--package",
        "lantern-sdk",
        "--example",
        "readings",
    ]);
    command.args(["--profile", "plugin", "--target", "wasm32-unknown-unknown"]);
    process::run(&mut command)?;
    let file = workspace
        .cargo_target
        .join("wasm32-unknown-unknown/plugin/examples/readings.wasm");
    Ok(file.display().to_string())
}

fn javascript(workspace: &Workspace) -> Result<String> {
    println!("==> JavaScript");
    let tools = [javascript_tools(workspace)?];
    let folder = workspace.root.join("plugins/js-example");
    let mut npm = Command::new("npm");
    npm.current_dir(&folder)
        .args(["run", "build"])
        .env("PATH", path_with(&tools)?);
    process::run(&mut npm)?;
    Ok(folder.join("js-example.wasm").display().to_string())
}

/// The folder with what makes components of JavaScript; fetched when it is missing.
fn javascript_tools(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.root.join("target/tools/javascript");
    let binaries = tools.join("node_modules/.bin");
    if !binaries.join("componentize-qjs").exists() {
        fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]);
        process::run(npm.arg(&tools).arg(COMPONENTIZE_QJS))?;
    }
    Ok(binaries)
}

fn python(workspace: &Workspace) -> Result<String> {
    println!("==> Python");
    let tools = python_tools(workspace)?;
    let folder = workspace.root.join("plugins/python-example");
    let mut build = Command::new(tools.join("bin/componentize-py"));
    build.current_dir(&folder).env("PYTHONPATH", &tools).args([
        "--wit-path",
        "../../wit/projection@0.1.0",
        "--world",
        "plugin",
    ]);
    build.args([
        "componentize",
        "--stub-wasi",
        "--python-path",
        ".",
        "--python-path",
        "../templates/python",
    ]);
    process::run(build.args(["plugin", "--output", "python-example.wasm"]))?;
    Ok(folder.join("python-example.wasm").display().to_string())
}

/// The folder with what makes components of Python; fetched when it is missing. It is a folder and no virtual environment,
/// because many systems have pip without `venv`.
fn python_tools(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.root.join("target/tools/python-packages");
    if !tools.join("bin/componentize-py").exists() {
        let mut pip = setup::pip::command()?;
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--target"]);
        process::run(pip.arg(&tools).arg(COMPONENTIZE_PY))?;
    }
    Ok(tools)
}

/// The search path with folders before it.
fn path_with(folders: &[PathBuf]) -> Result<OsString> {
    let there = std::env::var_os("PATH").unwrap_or_default();
    let all = folders.iter().cloned().chain(std::env::split_paths(&there));
    std::env::join_paths(all).context("the workspace's path cannot stand in PATH")
}
