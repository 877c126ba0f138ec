//! `cargo xtask languages`: builds one plugin in Rust, JavaScript and Python with the tools of each language, and compares
//! their performance. The tests build the JavaScript and Python examples, and new projects. npm and pip install the tools
//! into `target/tools`; Node with npm and Python are required.

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

/// Builds and measures. The host is optimized only with `release`; guests always are.
pub fn run(workspace: &Workspace, release: bool) -> Result<()> {
    setup::run(workspace)?;
    let rust = rust(workspace)?;
    let javascript = javascript(workspace)?;
    let python = python(workspace)?;
    println!("==> measurements");
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

/// Builds the JavaScript and Python examples and a new project in each language, and runs their tests.
pub fn check(workspace: &Workspace) -> Result<()> {
    setup::node::find()?;
    plugins::build_host(workspace, Profile::Dev)?;
    let new = workspace.root.join("target/new-plugins");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot clear {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("cannot create {}", new.display()))?;
    let packages = python_tools(workspace)?;
    let tools = [javascript_tools(workspace)?, packages.join("bin")];
    javascript(workspace)?;
    python(workspace)?;
    let path = path_with(&tools)?;
    let lantern = |folder: &Path, arguments: &[&str]| {
        let mut command = Command::new(workspace.program(Profile::Dev, "lantern"));
        command
            .current_dir(folder)
            .args(arguments)
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

/// The folder of the JavaScript tools, installed if missing.
fn javascript_tools(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.root.join("target/tools/javascript");
    let binaries = tools.join("node_modules/.bin");
    if !binaries.join("componentize-qjs").exists() {
        fs::create_dir_all(&tools).with_context(|| format!("cannot create {}", tools.display()))?;
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

/// The folder of the Python tools, installed if missing. It is not a virtual environment, because many systems have pip
/// without `venv`.
fn python_tools(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.root.join("target/tools/python-packages");
    if !tools.join("bin/componentize-py").exists() {
        let mut pip = setup::pip::command()?;
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--target"]);
        process::run(pip.arg(&tools).arg(COMPONENTIZE_PY))?;
    }
    Ok(tools)
}

/// `PATH` with folders prepended.
fn path_with(folders: &[PathBuf]) -> Result<OsString> {
    let current = std::env::var_os("PATH").unwrap_or_default();
    let all = folders.iter().cloned().chain(std::env::split_paths(&current));
    std::env::join_paths(all).context("the path of the workspace is not valid in PATH")
}
