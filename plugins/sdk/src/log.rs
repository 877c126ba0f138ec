//! Writes to the log of the host. A plugin that does not log imports nothing.

use std::fmt;

pub use crate::bindings::lantern::projection::log::Level;

/// Writes a line to the log of the host; in a native program, to standard error. The macros [`debug!`](crate::debug),
/// [`info!`](crate::info), [`warn!`](crate::warn) and [`error!`](crate::error) call it.
///
/// The host adds the name of the plugin, truncates the line to 4 KiB, and drops lines beyond a rate limit. It never fails.
///
/// ```
/// lantern_sdk::warn!("no clock on {}", "minipc");
/// ```
pub fn line(level: Level, text: fmt::Arguments<'_>) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::lantern::projection::log::log(level, &text.to_string());
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?}: {text}");
}

/// Writes a line of the level `debug`, formatted like [`format!`], to the log of the host.
#[macro_export]
macro_rules! debug {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Debug, ::core::format_args!($($text)*)) };
}

/// Writes a line of the level `info`, formatted like [`format!`], to the log of the host.
#[macro_export]
macro_rules! info {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Info, ::core::format_args!($($text)*)) };
}

/// Writes a line of the level `warn`, formatted like [`format!`], to the log of the host.
#[macro_export]
macro_rules! warn {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Warn, ::core::format_args!($($text)*)) };
}

/// Writes a line of the level `error`, formatted like [`format!`], to the log of the host.
#[macro_export]
macro_rules! error {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Error, ::core::format_args!($($text)*)) };
}
