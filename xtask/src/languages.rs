//! `cargo xtask languages`: one plugin in Rust, JavaScript and Python, built with each language's own tools and measured side
//! by side. The tools come from npm and PyPI into `target/tools`; node with npm and Python have to be there.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{process, setup, workspace::Workspace};

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
    let tools = workspace.root.join("target/tools/javascript");
    let binaries = tools.join("node_modules/.bin");
    if !binaries.join("componentize-qjs").exists() {
        fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]);
        process::run(npm.arg(&tools).arg(COMPONENTIZE_QJS))?;
    }
    let folder = workspace.root.join("plugins/js-example");
    let mut npm = Command::new("npm");
    npm.current_dir(&folder)
        .args(["run", "build"])
        .env("PATH", path_with(&binaries));
    process::run(&mut npm)?;
    Ok(folder.join("js-example.wasm").display().to_string())
}

fn python(workspace: &Workspace) -> Result<String> {
    println!("==> Python");
    let tools = workspace.root.join("target/tools/python");
    let program = tools.join("bin/componentize-py");
    if !program.exists() {
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&tools))?;
        process::run(Command::new(tools.join("bin/pip")).args(["install", "--quiet", COMPONENTIZE_PY]))?;
    }
    let folder = workspace.root.join("plugins/python-example");
    let mut build = Command::new(program);
    build
        .current_dir(&folder)
        .args(["--wit-path", "../../wit/projection@0.1.0", "--world", "plugin"]);
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

/// The search path with a folder before it.
fn path_with(folder: &Path) -> std::ffi::OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}
