//! The task that monitors the client for requests: it publishes the state of the connection through a `watch` channel,
//! and replaces a client that has ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::VERSION_MIN;
use super::client::{Current, Main};
use super::link::{Link, Server, ServerVersion};
use lantern_model::batch::{Timestamp, clean_text};

/// Delay before the next attempt when the client rejected the settings of a replacement.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

/// Starts to monitor the client for requests. `urls` is the displayed address.
pub(super) fn monitor(main: Arc<Main>, urls: String) -> (watch::Receiver<Link>, JoinHandle<()>) {
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
                () = signals.changed() => {}
                () = current.ended() => {}
                // Events wake the task at once, but the library drops events under load.
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            let next = if current.is_connected() {
                let generation = current.generation();
                if seen == Some(generation) {
                    continue;
                }
                let Some(link) = describe_server(&current, &urls, generation).await else {
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

/// Replaces a client whose task has ended, which reconnecting cannot repair.
async fn replace(main: &Main) {
    warn!("the NATS client library stopped unexpectedly; connecting with a new client");
    if let Err(error) = main.replace().await {
        warn!(%error, "failed to create a new NATS client; will retry");
        tokio::time::sleep(REPLACE_PAUSE).await;
    }
}

/// Describes the connected server; `None` when the connection was lost meanwhile.
async fn describe_server(current: &Current, urls: &str, number: u64) -> Option<Link> {
    let client = &current.client;
    // The library publishes the server's facts after it has reported the connection; a round trip completes after both.
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
                "nats-server {} is too old: {}.{} or later is required",
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
            warn!(url = urls, "lost the connection to the broker; reconnecting");
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
                error, "cannot connect to the broker; will keep retrying"
            );
        }
        _ => {}
    }
}
