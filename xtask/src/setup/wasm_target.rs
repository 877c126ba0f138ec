//! The compiler targets that plugins are built for: the one for all of them, and the one with WASI, which a test tries.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::process;

const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// Adds each target through rustup when the compiler in use has no standard library for it.
pub fn ensure(root: &Path) -> Result<()> {
    TARGETS
        .into_iter()
        .try_for_each(|target| ensure_one(root, target))
}

fn ensure_one(root: &Path, target: &str) -> Result<()> {
    if installed(target)? {
        println!("    {target}: there");
        return Ok(());
    }
    if process::answer(OsStr::new("rustup"), &["--version"]).is_none() {
        bail!(
            "the compiler has no standard library for {target}, and there is no rustup to add it.\n\
             Install Rust with rustup (https://rustup.rs), or the package of your system that brings this \
             target, then run this again."
        );
    }
    println!("    {target}: missing, asking rustup for it");
    let mut rustup = Command::new("rustup");
    process::run(rustup.current_dir(root).args(["target", "add", target]))?;
    if !installed(target)? {
        bail!("rustup has added {target}, but not to the compiler that cargo uses here; see `rustup show`");
    }
    Ok(())
}

/// Asks the compiler itself, because a rustc that did not come from rustup may have the target as well.
fn installed(target: &str) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let folder = process::answer(&rustc, &["--print", "target-libdir", "--target", target])
        .with_context(|| format!("cannot ask {} for its targets", rustc.display()))?;
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
    fn a_target_is_there_when_its_core_library_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!holds_core(&folder.path().join("absent")));
        assert!(!holds_core(folder.path()));
        std::fs::write(folder.path().join("libcore-0123.rlib"), "").unwrap();
        assert!(holds_core(folder.path()));
    }
}
