//! Lists the built files of the dashboard for `assets`. Building the host does not require Node: without the files the list
//! is empty, and the host serves a page that explains how to build them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    // The folder always exists (it contains a committed file), so cargo notices when the dashboard is built.
    let dist = here.join("../../web/dist");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", dist.display());
    let list = list(&dist.join("page"))?;
    fs::write(Path::new(&variable("OUT_DIR")?).join("page.rs"), list)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// A Rust expression with every file and its compressed variants.
fn list(folder: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    if folder.is_dir() {
        walk(folder, folder, &mut files)?;
    }
    files.sort();
    let mut out = String::from("&[\n");
    for name in files.iter().filter(|name| !is_compressed(name)) {
        let path = folder.join(name).canonicalize()?;
        let packed = |ending: &str| match files.contains(&format!("{name}.{ending}")) {
            true => format!("Some(include_bytes!(\"{}.{ending}\"))", path.display()),
            false => "None".to_owned(),
        };
        let line = writeln!(
            out,
            "    File {{ path: {name:?}, plain: include_bytes!({:?}), brotli: {}, gzip: {} }},",
            path.display().to_string(),
            packed("br"),
            packed("gz"),
        );
        line.map_err(io::Error::other)?;
    }
    out.push(']');
    Ok(out)
}

fn is_compressed(name: &str) -> bool {
    name.ends_with(".br") || name.ends_with(".gz")
}

/// Collects the files in `folder` as paths relative to `root`, separated by `/`.
fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(root, &path, files)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
            files.push(parts.join("/"));
        }
    }
    Ok(())
}
