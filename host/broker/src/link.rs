//! The state of the connection, and the signals with which the client's callbacks report failures to the task that
//! monitors the client (`monitor`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::Event;
use tokio::sync::{Notify, watch};
use tracing::info;

use super::auth::CredentialsError;
use lantern_model::batch::{Timestamp, clean_text};

/// The state of the connection to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not connected; attempts continue.
    Connecting {
        /// Start of this state.
        since: Timestamp,
        /// Error of the last attempt; `None` before the first failure.
        last_error: Option<String>,
    },
    /// Connected to a supported broker.
    Connected(Server),
    /// The broker refuses the login or is too old. Attempts continue at a lower rate.
    Refused {
        /// The reason.
        why: String,
        /// A remedy for the operator.
        hint: String,
    },
}

impl Link {
    /// Whether messages can flow.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected(_))
    }
}

/// The connected server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Number of connections so far, including this one. When it changes, a source compares histories again, because
    /// the broker may have been restored in between.
    pub generation: u64,
    /// The server's name.
    pub name: String,
    /// The server's version.
    pub version: ServerVersion,
    /// The URLs that were configured, without credentials.
    pub url: String,
    /// Largest message that the server accepts, in bytes.
    pub max_payload: usize,
    /// Whether this server has JetStream. With a JetStream domain, another server may have it.
    pub jetstream: bool,
}

/// The version of a `nats-server`, without pre-release suffix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl ServerVersion {
    /// Parses `2.14.1`, `v2.14.1-RC.1` and similar forms. Any other text is 0.0.0, which counts as too old.
    pub fn parse(text: &str) -> Self {
        let mut numbers = text
            .trim_start_matches('v')
            .splitn(3, '.')
            .map(|part| {
                part.split(|c: char| !c.is_ascii_digit())
                    .next()
                    .unwrap_or_default()
            })
            .map(|digits| digits.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self {
            major: next(),
            minor: next(),
            patch: next(),
        }
    }

    /// Whether the server supports consumer resets, which rewind without deleting.
    pub(super) fn has_reset(self) -> bool {
        self >= Self {
            major: 2,
            minor: 14,
            patch: 0,
        }
    }
}

impl std::fmt::Display for ServerVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// State that the client's callbacks report to the monitor task.
#[derive(Default)]
pub(super) struct Signals {
    failure: Mutex<Failure>,
    refused: AtomicBool,
    wake: Notify,
    /// The last error that the broker reported.
    server_errors: watch::Sender<String>,
}

#[derive(Default)]
struct Failure {
    last_error: Option<String>,
    credentials: Option<String>,
    last_server_error: Option<String>,
}

impl Signals {
    /// Delay before attempt number `attempts` (from 1) since the last success.
    pub(super) fn delay(&self, attempts: usize) -> Duration {
        let step = u32::try_from(attempts.saturating_sub(2))
            .unwrap_or(u32::MAX)
            .min(16);
        let doubled = |first: Duration, max: Duration| first.saturating_mul(1 << step).min(max);
        match (attempts, self.refused.load(Ordering::Relaxed)) {
            (0 | 1, _) => Duration::ZERO,
            // Each refusal adds a line to the broker's log and to ours.
            (_, true) => doubled(Duration::from_secs(1), Duration::from_secs(15)),
            (_, false) => doubled(Duration::from_millis(50), Duration::from_secs(2)),
        }
    }

    /// Returns when a callback has reported something.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    pub(super) fn event(&self, event: &Event) {
        match event {
            // No JetStream subscription requests that many messages; if it happens anyway, the reader detects the hole.
            Event::SlowConsumer(_) => return,
            Event::ServerError(error) => {
                let message = error.to_string();
                self.lock().last_server_error = Some(clean_text(&message, 500));
                self.server_errors.send_replace(message);
            }
            Event::LameDuckMode => info!("the broker is shutting down; connecting to another server"),
            _ => {}
        }
        self.wake.notify_one();
    }

    /// Called before each attempt, with the known state of each server.
    pub(super) fn attempt(&self, servers: &[async_nats::Server]) {
        let errors = servers.iter().filter_map(|server| server.last_error.as_ref());
        let Some(error) = errors.max_by_key(|error| is_auth_error(error)) else {
            return;
        };
        self.refused.store(is_auth_error(error), Ordering::Relaxed);
        self.lock().last_error = Some(clean_text(error, 500));
        self.wake.notify_one();
    }

    pub(super) fn credentials_failed(&self, error: &CredentialsError) {
        let cause = std::error::Error::source(error)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        self.lock().credentials = Some(format!("{error}{cause}"));
    }

    /// The broker's last error; it often explains a request without an answer.
    pub(super) fn last_server_error(&self) -> Option<String> {
        self.lock().last_server_error.clone()
    }

    /// Errors that the broker reports from now on.
    pub(super) fn server_errors(&self) -> watch::Receiver<String> {
        self.server_errors.subscribe()
    }

    /// The link state while there is no connection.
    pub(super) fn disconnected(&self, since: Timestamp) -> Link {
        let failure = self.lock();
        if !self.refused.load(Ordering::Relaxed) {
            return Link::Connecting {
                since,
                last_error: failure.last_error.clone(),
            };
        }
        match &failure.credentials {
            Some(why) => Link::Refused {
                why: why.clone(),
                hint: "see the credentials settings of the broker".to_owned(),
            },
            None => Link::Refused {
                why: "the broker refuses the credentials (authorization violation)".to_owned(),
                hint: "see the credentials settings of the broker: they are read again at each attempt"
                    .to_owned(),
            },
        }
    }

    pub(super) fn connected(&self) {
        self.refused.store(false, Ordering::Relaxed);
        *self.lock() = Failure::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when the broker reports that the user may not publish to `subject`. The broker sends no other answer to such
/// a request.
pub(super) async fn wait_until_denied(mut server_errors: watch::Receiver<String>, subject: &str) {
    while server_errors.changed().await.is_ok() {
        if denies_publish(&server_errors.borrow_and_update(), subject) {
            return;
        }
    }
    // The sender is gone; the request ends in another way.
    std::future::pending().await
}

/// Whether the broker's error denies publishing to `subject`.
pub(super) fn denies_publish(server_error: &str, subject: &str) -> bool {
    server_error
        .to_lowercase()
        .contains("permissions violation for publish")
        && server_error.contains(&format!("\"{subject}\""))
}

/// The library keeps only the message of an error; these are its kinds `AuthorizationViolation` and `Authentication`.
fn is_auth_error(error: &str) -> bool {
    error.starts_with("authorization violation") || error.starts_with("failed signing nonce")
}

#[cfg(test)]
mod tests {
    use super::super::VERSION_MIN;
    use super::*;

    #[test]
    fn versions_compare_by_their_numbers() {
        for (text, major, minor, patch) in [
            ("2.15.1", 2, 15, 1),
            ("v2.10.0-RC.1", 2, 10, 0),
            ("2.9.10", 2, 9, 10),
            ("2.14", 2, 14, 0),
        ] {
            assert_eq!(
                ServerVersion::parse(text),
                ServerVersion { major, minor, patch },
                "{text}"
            );
        }
        assert!(ServerVersion::parse("2.9.10") < VERSION_MIN);
        assert!(ServerVersion::parse("2.10.0-beta") >= VERSION_MIN);
        assert!(ServerVersion::parse("nonsense") < VERSION_MIN);
    }

    #[test]
    fn delays_grow_and_are_longer_after_refusals() {
        let signals = Signals::default();
        assert_eq!(signals.delay(1), Duration::ZERO);
        assert_eq!(signals.delay(2), Duration::from_millis(50));
        assert_eq!(signals.delay(1_000), Duration::from_secs(2));
        signals.refused.store(true, Ordering::Relaxed);
        assert_eq!(signals.delay(2), Duration::from_secs(1));
        assert_eq!(signals.delay(1_000_000), Duration::from_secs(15));
    }
}
