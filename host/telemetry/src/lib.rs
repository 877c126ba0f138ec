//! Log on standard error and [`Metrics`]. The rest of the host calls `tracing` and the methods here.

mod guests;
mod log;
mod metrics;
mod repeats;
mod throttle;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

pub use guests::{GuestLine, listen_to_guests};
pub use log::{Log, init};
pub use metrics::{Metrics, Outcome, RowEffect};
pub use repeats::Repeats;
pub use throttle::Throttle;

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter is not valid. A checked configuration never passes such a filter.
    #[error("log filter {filter:?} is not valid")]
    Filter {
        /// The filter.
        filter: String,
        /// The cause.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The system cannot start another thread.
    #[error("cannot start the log thread")]
    Thread(#[source] std::io::Error),
    /// The process has already set up a log.
    #[error("the log is already set up")]
    Again(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Checks a filter for [`init`]; the error describes the problem.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    // The library treats a single word that is not a level as a module, which silences all others.
    let words = filter.split(',').map(str::trim);
    let plain = words.filter(|word| !word.is_empty() && !word.contains(['[', ']', '{', '}']));
    for word in plain {
        let level = match word.split_once('=') {
            Some((_, level)) => level,
            None if word.contains("::") => continue,
            None => word,
        };
        if level.parse::<LevelFilter>().is_err() {
            return Err(format!("{level:?} is not a level"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_rejected() {
        for good in [
            "info",
            "INFO",
            "off",
            "info,async_nats=off",
            "lantern::broker=debug, warn",
            "lantern::broker",
        ] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["inof", "info,wran", "lantern=inof", "info lantern"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }
}
