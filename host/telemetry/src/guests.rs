//! What plugins write to the log, for somebody who sits before a terminal and waits for just that.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, filter::FilterFn};

use super::TelemetryError;

/// The target under which the host writes down what plugins say.
const TARGET: &str = "lantern::guest";
/// Lines that wait to be fetched. A plugin has 100 in a second, and what comes on top is dropped here as well.
const LINES_MAX: usize = 10_000;

/// A line that a plugin wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestLine {
    /// Who.
    pub plugin: String,
    /// `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// What.
    pub text: String,
}

/// Sends what plugins say to whom it returns, and the host's own log from `filter` on to standard error. To be called
/// once.
///
/// # Errors
/// See [`TelemetryError`].
pub fn listen_to_guests(filter: &str) -> Result<Receiver<GuestLine>, TelemetryError> {
    let env_filter = EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let (sender, receiver) = sync_channel(LINES_MAX);
    let own = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_filter(env_filter)
        .with_filter(FilterFn::new(|metadata| metadata.target() != TARGET));
    let guests = Guests(sender).with_filter(FilterFn::new(|metadata| metadata.target() == TARGET));
    tracing_subscriber::registry()
        .with(own)
        .with(guests)
        .try_init()
        .map_err(|error| TelemetryError::Again(Box::new(error)))?;
    Ok(receiver)
}

struct Guests(SyncSender<GuestLine>);

impl<S: Subscriber> Layer<S> for Guests {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => "debug",
        };
        // Nobody listens, or not fast enough: the line is for somebody who looks, and is not kept.
        let _ = self.0.try_send(GuestLine {
            plugin: words.plugin,
            level,
            text: words.text,
        });
    }
}

#[derive(Default)]
struct Words {
    plugin: String,
    text: String,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "plugin" {
            self.plugin = value.to_owned();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.text = format!("{value:?}"),
            "plugin" => self.plugin = format!("{value:?}"),
            _ => {}
        }
    }
}
