//! Receives the log lines of plugins, for commands that display them on a terminal.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, filter::FilterFn};

use super::TelemetryError;

/// The log target of plugin lines.
const TARGET: &str = "lantern::guest";
/// Maximum number of waiting lines. A plugin may log 100 a second; the excess is dropped here as well.
const LINES_MAX: usize = 10_000;

/// A line that a plugin wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestLine {
    /// The plugin.
    pub plugin: String,
    /// `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// The text.
    pub text: String,
}

/// Sends the lines of plugins to the returned receiver, and the host's log at `filter` to standard error. Call it once.
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
        let mut fields = LineFields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => "debug",
        };
        // A line is only for display: it is dropped when nobody reads it in time.
        let _ = self.0.try_send(GuestLine {
            plugin: fields.plugin,
            level,
            text: fields.text,
        });
    }
}

#[derive(Default)]
struct LineFields {
    plugin: String,
    text: String,
}

impl Visit for LineFields {
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
