//! What the host says of itself to people and machines: the log on standard error, and [`Metrics`]. Decides
//! nothing; the rest of the host calls `tracing` and the methods here.

mod guests;
mod log;
mod metrics;
mod repeats;
mod throttle;

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
    EnvFilter::try_new(filter)
        .map(|_| ())
        .map_err(|error| error.to_string())
}
