//! Load failures: the files and versions that do not run, with the reasons. A failure stays recorded until its subject
//! loads, is removed, or fails for another reason.

use std::fmt;
use std::sync::{MutexGuard, PoisonError};

use super::{Inner, Lifecycle, LifecycleError};

/// Maximum number of recorded load failures; it bounds the memory for a directory full of invalid files.
const LOAD_FAILURES_MAX: usize = 1_000;

/// A file, or an active version, that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadFailure {
    /// The file of the plugin directory, the plugin, or the directory.
    pub subject: LoadSubject,
    /// The reason.
    pub reason: String,
    /// Whether messages wait because of it: an installed plugin does not run.
    pub blocks_messages: bool,
    /// Whether its signature was rejected.
    pub unsigned: bool,
}

/// What does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadSubject {
    /// A file of the plugin directory.
    File(String),
    /// An installed plugin.
    Plugin(String),
    /// The whole plugin directory.
    PluginDirectory,
}

impl fmt::Display for LoadSubject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(formatter, "file {file}"),
            Self::Plugin(plugin) => write!(formatter, "plugin {plugin}"),
            Self::PluginDirectory => formatter.write_str("plugin directory"),
        }
    }
}

impl Lifecycle {
    /// Files and versions that do not run, with the reasons.
    pub fn load_failures(&self) -> Vec<LoadFailure> {
        self.inner.load_failures()
    }
}

impl Inner {
    fn recorded(&self) -> MutexGuard<'_, Vec<LoadFailure>> {
        self.load_failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn load_failures(&self) -> Vec<LoadFailure> {
        self.recorded().clone()
    }

    /// Records that something does not run, and replaces an earlier reason for the same.
    pub(super) fn record_load_failure(&self, failure: LoadFailure) {
        let mut recorded = self.recorded();
        recorded.retain(|known| known.subject != failure.subject);
        if recorded.len() < LOAD_FAILURES_MAX {
            recorded.push(failure);
        }
    }

    /// Clears a load failure.
    pub(super) fn clear_load_failure(&self, subject: &LoadSubject) {
        self.recorded().retain(|known| known.subject != *subject);
    }

    /// Clears the load failure of an installed plugin.
    pub(super) fn clear_plugin_failure(&self, plugin: &str) {
        self.clear_load_failure(&LoadSubject::Plugin(plugin.to_owned()));
    }
}

/// An error with its causes and its hint, in one line.
pub(super) fn describe_error(error: LifecycleError) -> String {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{:#}{hint}", anyhow::Error::new(error))
}
