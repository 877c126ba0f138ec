//! Settings of the plugin engine: the limits of a guest, and the origin of compiled code. Every limit is on by default,
//! and this file gives its reason.

use std::path::PathBuf;
use std::time::Duration;

use lantern_model::settings::{self, PluginLimitSettings};

/// Settings of the plugin engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Limits of a guest. Units are in the names.
    pub limits: Limits,
    /// Directory of compiled code that is kept between starts; `None` compiles at each start. The directory becomes
    /// private to its owner, so it must not be one that others put plugins into.
    pub cache_dir: Option<PathBuf>,
    /// Where components are compiled.
    pub compiler: Compiler,
}

impl EngineConfig {
    /// Default limits, no cache, and the given compiler.
    pub fn new(compiler: Compiler) -> Self {
        Self {
            limits: Limits::default(),
            cache_dir: None,
            compiler,
        }
    }
}

/// Where components are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// In this process. A component crafted to occupy the compiler blocks this process, so this is for tools and tests.
    InProcess,
    /// In a child process that the host can kill: `program compile-component`, which calls
    /// [`compile_child_main`](super::compile_child_main).
    Child {
        /// The host's own binary.
        program: PathBuf,
    },
}

/// Minimum size of an answer that the host accepts, even if the limit per message is lower.
const ANSWER_BYTES_MIN: usize = 8 << 20;

/// Limits of a guest. Units are in the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance. 64 MiB holds many batches of messages.
    pub memory_bytes: usize,
    /// Processor time for one message, and for one call of several: long enough for any legitimate decoder, short
    /// enough that an endless loop causes only a short delay. A call that gets no processor ends after five times as
    /// much wall-clock time.
    pub message_time: Duration,
    /// Stack of a call. A thread's stack must be larger: 512 KiB of the usual 2 MiB.
    pub stack_bytes: usize,
    /// Rows in the answer to one message. One transaction contains them all.
    pub rows_per_message: usize,
    /// Bytes of values in the answer to one message. The host copies the answer of a call before it counts, and refuses
    /// to copy more than four times this limit, or 8 MiB if that is more.
    pub bytes_per_message: usize,
    /// Size of a component's file.
    pub module_bytes: usize,
    /// Wall-clock time for compiling one component.
    pub compile_time: Duration,
    /// Address space of the compiling process.
    pub compile_memory_bytes: u64,
    /// Time for creating the first instance and for its description.
    pub describe_time: Duration,
    /// Lines per second that one plugin may write into the host's log; the rest are counted and dropped.
    pub log_lines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // Limits that operators can set have one definition, which the host's configuration uses as well: a plugin that
        // passes its tests does not meet smaller limits in a host.
        let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Self {
            memory_bytes: count(settings::MEMORY_BYTES_DEFAULT),
            message_time: settings::MESSAGE_TIME_DEFAULT,
            stack_bytes: 512 << 10,
            rows_per_message: count(settings::ROWS_PER_MESSAGE_DEFAULT),
            bytes_per_message: count(settings::BYTES_PER_MESSAGE_DEFAULT),
            module_bytes: count(settings::MODULE_BYTES_DEFAULT),
            compile_time: settings::COMPILE_TIME_DEFAULT,
            compile_memory_bytes: settings::COMPILE_MEMORY_BYTES_DEFAULT,
            describe_time: Duration::from_secs(1),
            log_lines_per_second: 100,
        }
    }
}

impl Limits {
    /// These limits, overridden by the settings of one plugin.
    pub fn with(&self, settings: &PluginLimitSettings) -> Self {
        let count = |set: Option<u64>, otherwise| {
            set.map_or(otherwise, |value| usize::try_from(value).unwrap_or(usize::MAX))
        };
        Self {
            memory_bytes: count(settings.memory_bytes, self.memory_bytes),
            message_time: settings.message_time.unwrap_or(self.message_time),
            rows_per_message: count(settings.rows_per_message, self.rows_per_message),
            bytes_per_message: count(settings.bytes_per_message, self.bytes_per_message),
            ..self.clone()
        }
    }

    /// Bytes that one answer of a guest may copy into the host's memory. An answer covers up to a thousand messages, or
    /// is a description; a small limit per message must not make those impossible.
    pub(super) fn answer_bytes(&self) -> usize {
        self.bytes_per_message.saturating_mul(4).max(ANSWER_BYTES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_model::settings::ByteSize;

    #[test]
    fn the_documentation_has_these_limits() {
        let docs = include_str!("../../../docs/plugins.md");
        let limits = Limits::default();
        let size = |bytes: usize| ByteSize(bytes as u64).to_string();
        let rows = limits.rows_per_message;
        let compiling = format!(
            "{} s, {}",
            limits.compile_time.as_secs(),
            ByteSize(limits.compile_memory_bytes)
        );
        for (limit, default) in [
            ("memory of an instance", size(limits.memory_bytes)),
            (
                "processor time for a message",
                format!("{} s", limits.message_time.as_secs()),
            ),
            (
                "rows of a message",
                format!("{},{:03}", rows / 1_000, rows % 1_000),
            ),
            ("bytes of values of a message", size(limits.bytes_per_message)),
            ("the component's file", size(limits.module_bytes)),
            ("compiling it", compiling),
            (
                "starting and describing itself",
                format!("{} s", limits.describe_time.as_secs()),
            ),
        ] {
            let line = format!("| {limit} | {default} |");
            assert!(
                docs.lines().any(|found| found == line),
                "{line} is not in docs/plugins.md"
            );
        }
    }
}
