//! The state of the connection, in words that an operator can use. Owns the task that watches the client; fed by
//! the client's own callbacks, which say why an attempt failed, and read by everybody through a `watch` channel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Event;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::VERSION_MIN;
use super::auth::CredentialsError;
use super::client::{Current, Main};
use lantern_model::batch::{Timestamp, clean_text};

/// The state of the connection to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not connected, and trying.
    Connecting {
        /// Since when.
        since: Timestamp,
        /// Why the last attempt failed; none before the first has.
        last_error: Option<String>,
    },
    /// Connected, to a broker that can be worked with.
    Connected(Server),
    /// The broker is there and will not have us, or is too old. The attempts go on, more slowly.
    Refused {
        /// What is wrong.
        why: String,
        /// What the operator can do about it.
        hint: String,
    },
}

impl Link {
    /// Whether messages can flow.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected(_))
    }
}

/// The broker at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Counts the connections that were made, this one included. A source that sees another number than before
    /// has to compare histories again: the broker may have been restored while we were away.
    pub generation: u64,
    /// The server's name.
    pub name: String,
    /// The server's version.
    pub version: ServerVersion,
    /// The URLs that were configured, without credentials.
    pub url: String,
    /// The largest message that it accepts, in bytes.
    pub max_payload: usize,
    /// Whether this server has JetStream. With a JetStream domain another one may have it.
    pub jetstream: bool,
}

/// The version of a `nats-server`; what comes after the third number does not count.
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
    /// Reads `2.14.1`, `v2.14.1-RC.1` and the like. What is no version is 0.0.0, and so too old.
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

    /// Whether consumers can be reset, which rewinds without deleting.
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

/// What the client's callbacks leave for the watching task.
#[derive(Default)]
pub(super) struct Signals {
    failure: Mutex<Failure>,
    refused: AtomicBool,
    wake: Notify,
    /// What the broker complained of last.
    complaints: watch::Sender<String>,
}

#[derive(Default)]
struct Failure {
    last_error: Option<String>,
    credentials: Option<String>,
    server_said: Option<String>,
}

impl Signals {
    /// The pause before attempt number `attempts` (from 1) since the last success.
    pub(super) fn delay(&self, attempts: usize) -> Duration {
        let step = u32::try_from(attempts.saturating_sub(2))
            .unwrap_or(u32::MAX)
            .min(16);
        let doubled = |first: Duration, max: Duration| first.saturating_mul(1 << step).min(max);
        match (attempts, self.refused.load(Ordering::Relaxed)) {
            (0 | 1, _) => Duration::ZERO,
            // Each refusal is a line in the broker's log and in ours.
            (_, true) => doubled(Duration::from_secs(1), Duration::from_secs(15)),
            (_, false) => doubled(Duration::from_millis(50), Duration::from_secs(2)),
        }
    }

    pub(super) fn event(&self, event: &Event) {
        match event {
            // No JetStream subscription asks for as much, and if it happens all the same, its reader finds the hole.
            Event::SlowConsumer(_) => return,
            Event::ServerError(error) => {
                let words = error.to_string();
                self.lock().server_said = Some(clean_text(&words, 500));
                self.complaints.send_replace(words);
            }
            Event::LameDuckMode => info!("the broker is about to shut down; looking for another one"),
            _ => {}
        }
        self.wake.notify_one();
    }

    /// Called before each attempt, with what is known of each server since the attempts before.
    pub(super) fn attempt(&self, servers: &[async_nats::Server]) {
        let errors = servers.iter().filter_map(|server| server.last_error.as_ref());
        let Some(error) = errors.max_by_key(|error| is_refusal(error)) else {
            return;
        };
        self.refused.store(is_refusal(error), Ordering::Relaxed);
        self.lock().last_error = Some(clean_text(error, 500));
        self.wake.notify_one();
    }

    pub(super) fn credentials_failed(&self, error: &CredentialsError) {
        let cause = std::error::Error::source(error)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        self.lock().credentials = Some(format!("{error}{cause}"));
    }

    /// The last thing that the broker complained of; it often explains a request without an answer.
    pub(super) fn server_said(&self) -> Option<String> {
        self.lock().server_said.clone()
    }

    /// What the broker complains of from now on.
    pub(super) fn complaints(&self) -> watch::Receiver<String> {
        self.complaints.subscribe()
    }

    /// What to show while there is no connection.
    fn disconnected(&self, since: Timestamp) -> Link {
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

    fn connected(&self) {
        self.refused.store(false, Ordering::Relaxed);
        *self.lock() = Failure::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when the broker complains that the user may not publish to `subject`. It answers such a request in no other
/// way.
pub(super) async fn denied(mut complaints: watch::Receiver<String>, subject: &str) {
    while complaints.changed().await.is_ok() {
        if denies(&complaints.borrow_and_update(), subject) {
            return;
        }
    }
    // Nobody complains any more; the request ends in another way.
    std::future::pending().await
}

/// Whether the broker's complaint is that the user may not publish to `subject`.
pub(super) fn denies(complaint: &str, subject: &str) -> bool {
    complaint
        .to_lowercase()
        .contains("permissions violation for publish")
        && complaint.contains(&format!("\"{subject}\""))
}

/// The library only keeps the words of an error; these are its kinds `AuthorizationViolation` and `Authentication`.
fn is_refusal(error: &str) -> bool {
    error.starts_with("authorization violation") || error.starts_with("failed signing nonce")
}

/// How long to wait before the settings are tried again that the client has refused at a replacement.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

/// Starts to watch the client for requests. `urls` is what to show of where it connects to.
pub(super) fn watch_over(main: Arc<Main>, urls: String) -> (watch::Receiver<Link>, JoinHandle<()>) {
    let mut since = Timestamp::now();
    let (sender, receiver) = watch::channel(Link::Connecting {
        since,
        last_error: None,
    });
    let task = tokio::spawn(async move {
        let mut seen = None;
        loop {
            let current = main.current();
            let signals = main.signals();
            tokio::select! {
                () = signals.wake.notified() => {}
                () = current.ended() => {}
                // The events wake us at once, but the library drops them when they come too fast.
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            let next = if current.is_connected() {
                let generation = current.generation();
                if seen == Some(generation) {
                    continue;
                }
                let Some(link) = look(&current, &urls, generation).await else {
                    continue;
                };
                seen = Some(generation);
                signals.connected();
                link
            } else {
                seen = None;
                if sender.borrow().is_connected() {
                    since = Timestamp::now();
                }
                signals.disconnected(since)
            };
            let changed = *sender.borrow() != next;
            if changed {
                report(&sender.borrow(), &next, &urls);
                sender.send_replace(next);
            }
            if current.has_ended() {
                replace(&main).await;
            }
        }
    });
    (receiver, task)
}

/// Puts another client in the place of one whose task has ended, which no reconnecting can mend.
async fn replace(main: &Main) {
    warn!("the NATS client library stopped unexpectedly; connecting with a new client");
    if let Err(error) = main.replace().await {
        warn!(%error, "cannot make a new NATS client; trying again");
        tokio::time::sleep(REPLACE_PAUSE).await;
    }
}

/// What we are connected to; none when the connection did not last.
async fn look(current: &Current, urls: &str, number: u64) -> Option<Link> {
    let client = &current.client;
    // The library publishes the server's facts after it has reported the connection; a round trip comes after both.
    tokio::time::timeout(Duration::from_secs(5), client.flush())
        .await
        .ok()?
        .ok()?;
    let facts = client.try_server_info()?;
    if current.generation() != number || !current.is_connected() {
        return None;
    }
    let version = ServerVersion::parse(&facts.version);
    if version < VERSION_MIN {
        return Some(Link::Refused {
            why: format!(
                "nats-server {} is too old: {}.{} or later is needed",
                clean_text(&facts.version, 40),
                VERSION_MIN.major,
                VERSION_MIN.minor
            ),
            hint: "upgrade the broker, or let Lantern run its own by setting no URL".to_owned(),
        });
    }
    Some(Link::Connected(Server {
        generation: number,
        name: clean_text(&facts.server_name, 100),
        version,
        url: urls.to_owned(),
        max_payload: facts.max_payload,
        jetstream: facts.jetstream,
    }))
}

fn report(before: &Link, now: &Link, urls: &str) {
    match (before, now) {
        (_, Link::Connected(server)) => {
            info!(url = urls, server = %server.name, version = %server.version, "connected to the broker");
        }
        (_, Link::Refused { why, hint }) => warn!(url = urls, hint, "{why}"),
        (Link::Connected(_), Link::Connecting { .. }) => {
            warn!(
                url = urls,
                "the connection to the broker is lost; trying to connect again"
            );
        }
        (
            Link::Connecting { last_error: None, .. },
            Link::Connecting {
                last_error: Some(error),
                ..
            },
        ) => {
            warn!(
                url = urls,
                error, "cannot connect to the broker; trying again until it is there"
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
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
    fn attempts_slow_down_and_refusals_more_so() {
        let signals = Signals::default();
        assert_eq!(signals.delay(1), Duration::ZERO);
        assert_eq!(signals.delay(2), Duration::from_millis(50));
        assert_eq!(signals.delay(1_000), Duration::from_secs(2));
        signals.refused.store(true, Ordering::Relaxed);
        assert_eq!(signals.delay(2), Duration::from_secs(1));
        assert_eq!(signals.delay(1_000_000), Duration::from_secs(15));
    }
}
