//! Watches a project for changes that may change its component.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use notify_debouncer_full::notify::{self, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};

/// Changes within this time are one change, because editors write a file in several steps.
const DEBOUNCE_TIME: Duration = Duration::from_millis(80);
/// Folders of build output and dependencies, which are ignored.
const IGNORED_FOLDERS: [&str; 7] = [
    "target",
    "node_modules",
    "dist",
    "build",
    "__pycache__",
    "venv",
    "wit_world",
];

/// Watches a project until it is dropped.
pub struct Watch {
    changes: Receiver<Vec<PathBuf>>,
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
}

/// Why a project cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("failed to watch {path}")]
pub struct WatchError {
    path: PathBuf,
    #[source]
    source: notify::Error,
}

impl Watch {
    /// Starts to watch `project`.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn start(project: &Path) -> Result<Self, WatchError> {
        let failed = |source| WatchError {
            path: project.to_owned(),
            source,
        };
        let root = project
            .canonicalize()
            .map_err(|error| failed(notify::Error::io(error)))?;
        let (sender, changes) = channel();
        let base = root.clone();
        let on_events = move |events: DebounceEventResult| {
            let Ok(events) = events else { return };
            let paths = events
                .iter()
                .filter(|event| !event.kind.is_access())
                .flat_map(|event| &event.paths)
                .filter(|path| is_relevant(&base, path))
                .map(|path| path.strip_prefix(&base).unwrap_or(path).to_owned());
            let paths: Vec<PathBuf> = paths.collect();
            if !paths.is_empty() {
                // The receiver is gone after the watch has ended.
                let _ = sender.send(paths);
            }
        };
        let mut debouncer = new_debouncer(DEBOUNCE_TIME, None, on_events).map_err(failed)?;
        debouncer.watch(&root, RecursiveMode::Recursive).map_err(failed)?;
        Ok(Self {
            changes,
            _debouncer: debouncer,
        })
    }

    /// Waits at most `time`. Returns the changed files, relative to the project.
    pub fn wait(&self, time: Duration) -> Vec<PathBuf> {
        let mut changed = match self.changes.recv_timeout(time) {
            Ok(paths) => paths,
            Err(RecvTimeoutError::Timeout) => return Vec::new(),
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(time);
                return Vec::new();
            }
        };
        // Later events belong to the same change.
        changed.extend(self.changes.try_iter().flatten());
        changed.sort();
        changed.dedup();
        changed
    }
}

/// Whether a change of this file may change the component.
fn is_relevant(root: &Path, path: &Path) -> bool {
    let below = path.strip_prefix(root).unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_ignored = below.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        IGNORED_FOLDERS.contains(&part.as_ref()) || part.starts_with('.')
    });
    // Expected outcomes do not change the component; the build writes the lock file.
    let is_output = name == "Cargo.lock" || name.ends_with(".wasm") || name.ends_with(".expected.json");
    !is_ignored && !is_output && !name.ends_with('~') && !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_output_is_ignored() {
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
            assert_eq!(is_relevant(Path::new("/p"), Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_saved_file_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::start(dir.path()).unwrap();
        std::fs::write(dir.path().join("lib.rs"), "x").unwrap();
        assert_eq!(watch.wait(Duration::from_secs(10)), [Path::new("lib.rs")]);
    }
}
