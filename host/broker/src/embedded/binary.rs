//! Finds a sufficiently recent `nats-server`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::{EmbeddedError, ServerVersion};
use crate::VERSION_MIN;

const NAME: &str = "nats-server";

/// The first candidate that runs and is recent enough: only the configured one, or else those on PATH, next to our
/// executable, and, for a program inside the checkout that built it, among that checkout's tools.
pub(super) async fn find(configured: Option<&Path>) -> Result<(PathBuf, ServerVersion), EmbeddedError> {
    let mut rejected = Vec::new();
    for path in configured.map_or_else(candidates, |path| vec![path.to_owned()]) {
        let display = path.display();
        if !path.is_file() {
            if configured.is_some() {
                rejected.push(format!("{display} does not exist"));
            }
            continue;
        }
        match version(&path).await {
            Ok(version) if version >= VERSION_MIN => return Ok((path, version)),
            Ok(version) => rejected.push(format!("{display} is {version}, too old")),
            Err(reason) => rejected.push(format!("{display} {reason}")),
        }
    }
    if configured.is_none() {
        rejected.push("not on PATH and not next to the executable".to_owned());
    }
    Err(EmbeddedError::NoBinary { candidates: rejected })
}

fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join(NAME))
        .collect();
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        all.push(folder.join(NAME));
        all.extend(tools(folder, Path::new(env!("CARGO_MANIFEST_DIR"))).map(|tools| tools.join(NAME)));
    }
    all
}

/// The directory of a checkout's tools, for a program inside that checkout. For any other program the same path could
/// be a directory that everybody may write to.
fn tools(program: &Path, manifest: &Path) -> Option<PathBuf> {
    let target = manifest.ancestors().nth(2)?.join("target");
    program.starts_with(&target).then(|| target.join("tools"))
}

/// Runs the program to obtain its version: `nats-server: v2.15.1`.
async fn version(binary: &Path) -> Result<ServerVersion, String> {
    let run = Command::new(binary).arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(10), run)
        .await
        .map_err(|_| "does not report its version".to_owned())?
        .map_err(|error| format!("cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim().strip_prefix("nats-server: v") {
        Some(version) if output.status.success() => Ok(ServerVersion::parse(version)),
        _ => Err("is not a nats-server".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell writes the file, because a descriptor that one thread has open for writing while another thread forks is
    /// also open in that child until exec, and the file cannot be executed so long.
    fn program(dir: &Path, output: &str) -> PathBuf {
        let path = dir.join("nats-server");
        let write = r#"printf '#!/bin/sh\necho "%s"\n' "$2" >"$1" && chmod 755 "$1""#;
        let mut shell = std::process::Command::new("/bin/sh");
        let status = shell.args(["-c", write, "sh"]).arg(&path).arg(output).status();
        assert!(status.unwrap().success());
        path
    }

    #[tokio::test]
    async fn an_unusable_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (output, word) in [
            ("nats-server: v2.9.10", "2.9.10, too old"),
            ("hello", "is not a nats-server"),
        ] {
            let error = find(Some(&program(dir.path(), output))).await.unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| hint.contains("broker.embedded.binary"))
            );
        }
        let error = find(Some(Path::new("/nowhere/nats-server"))).await.unwrap_err();
        assert!(
            error.to_string().contains("/nowhere/nats-server does not exist"),
            "{error}"
        );
    }

    #[test]
    fn tools_of_a_checkout_are_used_only_by_its_programs() {
        let manifest = Path::new("/src/lantern/host/broker");
        let found = |program: &str| tools(Path::new(program), manifest);
        let expected = Some(PathBuf::from("/src/lantern/target/tools"));
        assert_eq!(found("/src/lantern/target/debug"), expected);
        assert_eq!(found("/src/lantern/target/release/deps"), expected);
        for elsewhere in [
            "/usr/local/bin",
            "/tmp/x",
            "/src/lantern/target-of-others",
            "/src/lantern",
        ] {
            assert_eq!(found(elsewhere), None, "{elsewhere}");
        }
    }

    #[tokio::test]
    async fn a_recent_program_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let (_, version) = find(Some(&program(dir.path(), "nats-server: v2.11.0-RC.1")))
            .await
            .unwrap();
        assert_eq!(
            version,
            ServerVersion {
                major: 2,
                minor: 11,
                patch: 0
            }
        );
    }
}
