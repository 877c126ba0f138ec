//! The compiler targets of plugins: the default one, and the one with WASI for a test.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::process;

const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// Installs each target with rustup if the compiler has no standard library for it.
pub fn ensure(root: &Path) -> Result<()> {
    TARGETS
        .into_iter()
        .try_for_each(|target| ensure_one(root, target))
}

fn ensure_one(root: &Path, target: &str) -> Result<()> {
    if installed(target)? {
        println!("    {target}: installed");
        return Ok(());
    }
    if process::output_of(OsStr::new("rustup"), &["--version"]).is_none() {
        bail!(
            "the compiler has no standard library for {target}, and rustup is not installed.\n\
             Install Rust with rustup (https://rustup.rs), or the package of your system for this target, and \
             run this command again."
        );
    }
    println!("    {target}: not installed, installing it with rustup");
    let mut rustup = Command::new("rustup");
    process::run(rustup.current_dir(root).args(["target", "add", target]))?;
    if !installed(target)? {
        bail!("rustup installed {target}, but not for the compiler that Cargo uses; see `rustup show`");
    }
    Ok(())
}

/// Checks the sysroot of the compiler, because a rustc without rustup may have the target as well.
fn installed(target: &str) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let folder = process::output_of(&rustc, &["--print", "target-libdir", "--target", target])
        .with_context(|| format!("cannot query the targets of {}", rustc.display()))?;
    Ok(holds_core(Path::new(&folder)))
}

fn holds_core(folder: &Path) -> bool {
    let Ok(entries) = folder.read_dir() else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_with_a_core_library_is_installed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!holds_core(&folder.path().join("absent")));
        assert!(!holds_core(folder.path()));
        std::fs::write(folder.path().join("libcore-0123.rlib"), "").unwrap();
        assert!(holds_core(folder.path()));
    }
}
