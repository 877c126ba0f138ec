//! What the operator may decide about plugins: the limits that bound a guest, and where compiled code comes from.
//! Every limit is on by default and has a reason here.

use std::path::PathBuf;
use std::time::Duration;

use lantern_model::settings::{self, PluginLimitSettings};

/// Settings of the plugin module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// What a guest may use.
    pub limits: Limits,
    /// Where compiled code is kept between starts; none compiles each time. The directory is made private to its
    /// owner. It should not be one that others put plugins into.
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
    /// In this process. A component made to keep the compiler busy keeps this process busy, so this is for
    /// tools and tests.
    InProcess,
    /// In a child process that can be killed: `program compile-component`, which calls
    /// [`compile_child_main`](super::compile_child_main).
    Child {
        /// The host's own binary.
        program: PathBuf,
    },
}

/// The host has this much for an answer, whatever one message may bring.
const ANSWER_BYTES_MIN: usize = 8 << 20;

/// What a guest may use. Units are in the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance. 64 MiB holds a batch of messages many times over.
    pub memory_bytes: usize,
    /// Processor time for one message, and for one call of many: long enough for any honest decoder, short enough
    /// that a loop is a hiccup and not an outage. A call that gets no processor ends after
    /// five times as much by the clock.
    pub message_time: Duration,
    /// Stack of a call. A thread's own stack has to be larger than this: 512 KiB of the usual 2 MiB.
    pub stack_bytes: usize,
    /// Rows in the answer to one message. One transaction takes them all.
    pub rows_per_message: usize,
    /// Bytes of values in the answer to one message. The host copies the answer of a call before it counts, and
    /// refuses to copy more than four times this, or 8 MiB where that is more.
    pub bytes_per_message: usize,
    /// A component's file.
    pub module_bytes: usize,
    /// Compiling one component, by the clock.
    pub compile_time: Duration,
    /// Address space of the process that compiles.
    pub compile_memory_bytes: u64,
    /// Making the first instance and asking it for its description.
    pub describe_time: Duration,
    /// Lines that one plugin may write into the host's log in a second; the rest are counted and dropped.
    pub log_lines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // Those that operators can set have one definition, which the host's configuration uses as well: a plugin that
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
    /// These limits, but for what is set for one plugin.
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

    /// Bytes that one answer of a guest may bring into the host's memory. An answer is to as many as a thousand messages,
    /// or is a description; a small limit for each message must not make those impossible.
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
