//! What the host says of itself to people and machines: the log on standard error, and [`Metrics`]. Decides
//! nothing; the rest of the host calls `tracing` and the methods here.

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
    /// The filter is none. A checked configuration does not bring one here.
    #[error("log filter {filter:?} cannot be used")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The system has no thread left for it.
    #[error("the log has no thread")]
    Thread(#[source] std::io::Error),
    /// Something else in the process has set up a log.
    #[error("the log is set up already")]
    Again(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Whether `filter` is one that [`init`] takes, or in words why not.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    // A lone word that is no level is taken by the library for a module, which silences all others.
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
    fn a_mistyped_level_is_refused() {
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
