//! What the host says of itself to people and machines: the log on standard error, and [`Metrics`]. Decides
//! nothing; the rest of the host calls `tracing` and the methods here.

mod guests;
mod metrics;
mod repeats;
mod throttle;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

pub use guests::{GuestLine, listen_to_guests};
pub use metrics::{Metrics, Outcome};
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
    /// Something else in the process has set up a log.
    #[error("the log is set up already")]
    Again(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends the log to standard error, as text or with one JSON object a line. To be called once.
pub fn init(filter: &str, json: bool) -> Result<(), TelemetryError> {
    let env_filter = EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(env_filter)
        .with_writer(std::io::stderr);
    let done = match json {
        true => log.json().flatten_event(true).try_init(),
        false => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    done.map_err(TelemetryError::Again)
}

/// Whether `filter` is one that [`init`] takes, or in words why not.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter)
        .map(|_| ())
        .map_err(|error| error.to_string())
}
