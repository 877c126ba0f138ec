//! The host's connections to the broker. One client carries all requests and their answers, and the library reconnects
//! it. The library's task can end (it panics on some input, and `connection_state` then stays `Connected`); a new
//! client then replaces it. A [`Line`] is the connection of one subscription and is used until it is lost. Stored
//! messages arrive only on lines, so a message that the library cannot receive ends only the connection of its source.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Event, Subject, jetstream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::link::Signals;
use super::{BrokerError, Dialing, REQUEST_TIMEOUT};

/// The current client for requests.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    /// Number of connections of earlier clients.
    before: u64,
    /// Cancelled when the library's task for this client has ended.
    ended: CancellationToken,
}

impl Current {
    /// Number of connections so far, including this one. The library increments it before it reads the first message of
    /// a connection, so nothing arrives under a number that is too low.
    pub(super) fn generation(&self) -> u64 {
        self.before + self.client.statistics().connects.load(Ordering::SeqCst)
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.has_ended() && self.client.connection_state() == State::Connected
    }

    /// Whether this client is permanently unusable.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Returns when the library's task ends.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// Owns the client for requests.
pub(super) struct Main {
    dialing: Dialing,
    api_prefix: String,
    signals: Arc<Signals>,
    current: RwLock<Current>,
}

impl Main {
    /// Starts to connect.
    pub(super) async fn dial(
        dialing: Dialing,
        api_prefix: String,
        signals: Arc<Signals>,
    ) -> Result<Self, async_nats::ConnectError> {
        let first = dial(&dialing, &api_prefix, &signals, 0).await?;
        Ok(Self {
            dialing,
            api_prefix,
            signals,
            current: RwLock::new(first),
        })
    }

    pub(super) fn current(&self) -> Current {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    pub(super) fn dialing(&self) -> &Dialing {
        &self.dialing
    }

    /// Starts to connect with a new client that replaces one that has ended.
    pub(super) async fn replace(&self) -> Result<(), async_nats::ConnectError> {
        let before = self.current().generation();
        let next = dial(&self.dialing, &self.api_prefix, &self.signals, before).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

async fn dial(
    dialing: &Dialing,
    api_prefix: &str,
    signals: &Arc<Signals>,
    before: u64,
) -> Result<Current, async_nats::ConnectError> {
    let ended = CancellationToken::new();
    let guard = EndGuard(ended.clone().drop_guard());
    let listening = Arc::clone(signals);
    let options = dialing
        .options(signals)
        .retry_on_initial_connect()
        .event_callback(move |event| {
            guard.holds();
            listening.event(&event);
            std::future::ready(())
        });
    let client = options.connect(dialing.addresses.as_slice()).await?;
    let builder = jetstream::context::ContextBuilder::new().timeout(REQUEST_TIMEOUT);
    let jetstream = builder.api_prefix(api_prefix).build(client.clone());
    Ok(Current {
        client,
        jetstream,
        before,
        ended,
    })
}

/// Hides panics of the library's tasks from the terminal, for commands. The default hook prints them with a backtrace,
/// although the reader recovers and reads the message in another way.
pub fn hide_library_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(std::panic::Location::file);
            if !place.is_some_and(|file| file.contains("/async-nats-")) {
                before(panic);
            }
        }));
    });
}

/// Cancels its token when it is dropped. The event callback owns it: the library drops the callback when its connection
/// task ends, for any reason, and gives no other sign.
struct EndGuard(DropGuard);

impl EndGuard {
    /// Makes a closure take ownership of the guard.
    fn holds(&self) {
        let _: &DropGuard = &self.0;
    }
}

/// Delay before the library reconnects a line. A lost line is never reused: its reader takes the buffered messages and
/// drops it, and the library's task ends after its next attempt.
const LINE_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Interval of pings on a line, as a last resort: the heartbeats of a subscription and the deadline of an ephemeral read detect
/// a broker that does not answer much earlier.
const LINE_PING_INTERVAL: Duration = Duration::from_secs(30);

/// After this time of waiting, a reader checks its line, in case the library dropped the event that reports the loss. Longer
/// than the interval of the broker's heartbeats, which end the wait: the checks of many idle sources would wake the host
/// more often than everything else.
pub(super) const LINE_CHECK_INTERVAL: Duration = Duration::from_millis(1_250);

/// The connection of one subscription.
pub(super) struct Line {
    pub(super) client: Client,
    /// Identifies the line; an acknowledgement may only use the line that delivered its message.
    pub(super) number: u64,
    lost: CancellationToken,
    /// Subject of the last acknowledgement.
    last_ack: Mutex<Option<Subject>>,
}

impl Line {
    /// Connects, with the credentials of the main connection, which is up at this point.
    pub(super) async fn dial(main: &Main) -> Result<Self, BrokerError> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let lost = CancellationToken::new();
        let guard = EndGuard(lost.clone().drop_guard());
        let (losing, listening) = (lost.clone(), Arc::clone(main.signals()));
        let was_connected = Arc::new(AtomicBool::new(false));
        let connected = Arc::clone(&was_connected);
        // Separate signals: the state of this connection must not affect that of the main one.
        let options = main
            .dialing()
            .options(&Arc::new(Signals::default()))
            .ping_interval(LINE_PING_INTERVAL)
            .max_reconnects(main.dialing().addresses.len())
            .reconnect_delay_callback(move |_| {
                if connected.load(Ordering::SeqCst) {
                    LINE_RECONNECT_DELAY
                } else {
                    Duration::ZERO
                }
            })
            .event_callback(move |event| {
                guard.holds();
                match event {
                    Event::Disconnected | Event::Closed => losing.cancel(),
                    // A refused acknowledgement is reported only here.
                    Event::ServerError(_) => listening.event(&event),
                    _ => {}
                }
                std::future::ready(())
            });
        let addresses = main.dialing().addresses.as_slice();
        let client = options
            .connect(addresses)
            .await
            .map_err(|error| BrokerError::NotConnected {
                last_error: Some(lantern_model::batch::clean_text(&error.to_string(), 500)),
            })?;
        was_connected.store(true, Ordering::SeqCst);
        Ok(Self {
            client,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            lost,
            last_ack: Mutex::default(),
        })
    }

    /// Records the subject of the last acknowledgement.
    pub(super) fn record_ack(&self, reply: &Subject) {
        *self.last_ack.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply.clone());
    }

    /// Subject of the last acknowledgement.
    pub(super) fn last_ack(&self) -> Option<Subject> {
        self.last_ack
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the line can deliver nothing more.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled() || self.was_remade() || self.client.connection_state() != State::Connected
    }

    /// Whether the library has reconnected the line: new messages may belong to another history.
    pub(super) fn was_remade(&self) -> bool {
        self.client.statistics().connects.load(Ordering::SeqCst) != 1
    }

    /// Returns when the line is lost.
    pub(super) async fn lost(&self) {
        while !self.is_lost() {
            tokio::select! {
                () = self.lost.cancelled() => {}
                () = tokio::time::sleep(LINE_CHECK_INTERVAL) => {}
            }
        }
    }

    /// Flushes the client; gives up after `limit`.
    pub(super) async fn flush(&self, limit: Duration) {
        if !self.is_lost() && !matches!(tokio::time::timeout(limit, self.client.flush()).await, Ok(Ok(()))) {
            tracing::debug!("the last acknowledgements of a subscription may not have been sent");
        }
    }
}
