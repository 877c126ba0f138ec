//! Embeds the sources of the SDK, so that `lantern plugin new` needs no checkout. Builds and downloads nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Paths of the SDK in the workspace, and in a project.
const SDK: [(&str, &str); 6] = [
    ("Cargo.toml", "workspace.toml"),
    ("plugins/sdk/Cargo.toml", "Cargo.toml"),
    ("plugins/sdk/src", "src"),
    ("plugins/sdk-macros/Cargo.toml", "macros/Cargo.toml"),
    ("plugins/sdk-macros/src", "macros/src"),
    ("wit/projection@0.1.0", "wit/projection@0.1.0"),
];

fn main() -> io::Result<()> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    let sdk = sdk(&here.join("../.."))?;
    fs::write(Path::new(&variable("OUT_DIR")?).join("sdk_files.rs"), sdk)
}

/// A Rust expression with the name and text of every file of the SDK.
fn sdk(root: &Path) -> io::Result<String> {
    let mut out = String::from("&[\n");
    for (from, to) in SDK {
        let path = root.join(from).canonicalize()?;
        println!("cargo::rerun-if-changed={}", path.display());
        let mut files = Vec::new();
        if path.is_dir() {
            walk(&path, &path, &mut files)?;
        }
        files.sort();
        let below = files.iter().map(|name| (format!("{to}/{name}"), path.join(name)));
        let itself = path.is_file().then(|| (to.to_owned(), path.clone()));
        for (name, file) in below.chain(itself) {
            writeln!(out, "    ({name:?}, include_str!({file:?})),").map_err(io::Error::other)?;
        }
    }
    out.push(']');
    Ok(out)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// Collects the files below `folder`, as paths relative to `root` with `/` as separator.
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
