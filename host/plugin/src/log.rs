//! The log of plugins: a rate limit per plugin, and the lines that it admits into the host's log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lantern_model::batch::clean_text;

/// Longest logged line of a guest.
pub(super) const LOG_LINE_BYTES_MAX: usize = 4 * 1024;
/// Longest part of a logged error that is kept for the description of a trap.
pub(super) const ERROR_BYTES_MAX: usize = 600;

/// The rate limit of one plugin's log; all its instances share it.
pub(super) struct LogGate {
    plugin: String,
    lines_per_second: u32,
    window: Mutex<LogWindow>,
    dropped: AtomicU64,
}

struct LogWindow {
    start: Instant,
    lines: u32,
}

impl LogGate {
    pub fn new(plugin: String, lines_per_second: u32) -> Self {
        let window = Mutex::new(LogWindow {
            start: Instant::now(),
            lines: 0,
        });
        Self {
            plugin,
            lines_per_second,
            window,
            dropped: AtomicU64::new(0),
        }
    }

    /// Lines dropped since the plugin was loaded.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A permit to log one line, unless the plugin has reached its limit for this second.
    pub fn admit(&self) -> Option<LogLine<'_>> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(window.start) >= Duration::from_secs(1) {
            *window = LogWindow { start: now, lines: 0 };
        }
        if window.lines < self.lines_per_second {
            window.lines += 1;
            Some(LogLine { plugin: &self.plugin })
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// The log levels of the contract.
#[derive(Clone, Copy, Debug)]
pub(super) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// A permit for one line of the log.
pub(super) struct LogLine<'a> {
    plugin: &'a str,
}

impl LogLine<'_> {
    pub fn write(self, level: LogLevel, text: &str) {
        let (plugin, text) = (self.plugin, clean_text(text, LOG_LINE_BYTES_MAX));
        match level {
            LogLevel::Debug => tracing::debug!(target: "lantern::guest", plugin, "{text}"),
            LogLevel::Info => tracing::info!(target: "lantern::guest", plugin, "{text}"),
            LogLevel::Warn => tracing::warn!(target: "lantern::guest", plugin, "{text}"),
            LogLevel::Error => tracing::error!(target: "lantern::guest", plugin, "{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_log_lines_are_counted_and_dropped() {
        let gate = LogGate::new("flood".into(), 3);
        let admitted = (0..1_000).filter(|_| gate.admit().is_some()).count();
        // A new second may begin during the loop on a busy machine.
        assert!((3..=6).contains(&admitted), "{admitted} lines were admitted");
        assert_eq!(gate.dropped(), 1_000 - admitted as u64);
    }
}
