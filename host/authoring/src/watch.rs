//! Tells when something in a project has changed that may make another component of it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use notify_debouncer_full::notify::{self, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};

/// Editors write a file in several steps; what comes within this time is one change.
const QUIET: Duration = Duration::from_millis(80);
/// Folders that a build writes, or that are nobody's source.
const LEFT_OUT: [&str; 7] = [
    "target",
    "node_modules",
    "dist",
    "build",
    "__pycache__",
    "venv",
    "wit_world",
];

/// A watch over a project. It ends when it is dropped.
pub struct Watch {
    changes: Receiver<Vec<PathBuf>>,
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
}

/// Why a project cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {path}")]
pub struct WatchError {
    path: PathBuf,
    #[source]
    source: notify::Error,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn over(project: &Path) -> Result<Self, WatchError> {
        let failed = |source| WatchError {
            path: project.to_owned(),
            source,
        };
        let root = project
            .canonicalize()
            .map_err(|error| failed(notify::Error::io(error)))?;
        let (sender, changes) = channel();
        let below = root.clone();
        let heard = move |events: DebounceEventResult| {
            let Ok(events) = events else { return };
            let paths = events
                .iter()
                .filter(|event| !event.kind.is_access())
                .flat_map(|event| &event.paths)
                .filter(|path| counts(&below, path))
                .map(|path| path.strip_prefix(&below).unwrap_or(path).to_owned());
            let paths: Vec<PathBuf> = paths.collect();
            if !paths.is_empty() {
                // Whoever has ended the watch no longer wants to know.
                let _ = sender.send(paths);
            }
        };
        let mut debouncer = new_debouncer(QUIET, None, heard).map_err(failed)?;
        debouncer.watch(&root, RecursiveMode::Recursive).map_err(failed)?;
        Ok(Self {
            changes,
            _debouncer: debouncer,
        })
    }

    /// Waits at most so long; answers with the files that have changed, relative to the project.
    pub fn wait(&self, time: Duration) -> Vec<PathBuf> {
        let mut changed = match self.changes.recv_timeout(time) {
            Ok(paths) => paths,
            Err(RecvTimeoutError::Timeout) => return Vec::new(),
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(time);
                return Vec::new();
            }
        };
        // What has come meanwhile is part of the same.
        changed.extend(self.changes.try_iter().flatten());
        changed.sort();
        changed.dedup();
        changed
    }
}

/// Whether a change of this file matters.
fn counts(root: &Path, path: &Path) -> bool {
    let below = path.strip_prefix(root).unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let left_out = below.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        LEFT_OUT.contains(&part.as_ref()) || part.starts_with('.')
    });
    // Expectations are for tests; the lock file is written by the build itself.
    let written = name == "Cargo.lock" || name.ends_with(".wasm") || name.ends_with(".expected.json");
    !left_out && !written && !name.ends_with('~') && !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_do_not_start_builds() {
        for (path, expected) in [
            ("/p/src/lib.rs", true),
            ("/p/fixtures/a.json", true),
            ("/p/fixtures/a.expected.json", false),
            ("/p/target/debug/x", false),
            ("/p/.git/index", false),
            ("/p/src/.lib.rs.swp", false),
            ("/p/src/lib.rs~", false),
            ("/p/Cargo.lock", false),
            ("/p/Cargo.toml", true),
            ("/p/plugin.wasm", false),
            ("/p/vendor/lantern-sdk/src/lib.rs", true),
        ] {
            assert_eq!(counts(Path::new("/p"), Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_save_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::over(dir.path()).unwrap();
        std::fs::write(dir.path().join("lib.rs"), "x").unwrap();
        assert_eq!(watch.wait(Duration::from_secs(10)), [Path::new("lib.rs")]);
    }
}
