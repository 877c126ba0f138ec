//! Draining over one connection: sends events in order within a window, and processes the acknowledgements.
//!
//! A session ends with its connection. If the client library reconnected, it would send its queued events before older events
//! that were lost with the old connection, in the wrong order. So reconnecting is disabled, the connection lives in a runtime
//! that ends with the session, and the next session starts at the oldest event. The broker detects duplicates by message id.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{ContextBuilder, PublishError};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::{Event as ClientEvent, HeaderMap};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::backlog::Backlog;
use crate::broker::{Broker, DrainOptions};
use crate::entry::{Entry, EntryId};
use crate::event::{Event, MESSAGE_ID_HEADER};
use crate::outbox::Shared;
use crate::status::{DrainState, chain};
use crate::verdict::{Verdict, classify};

/// Time limit for acknowledgements after a stop request.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Time limit for connecting, for all servers together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of sends after which the session yields to the connection.
const SENDS_PER_YIELD: usize = 16;
/// First and longest rest of a rejected subject. A new stream is noticed within ten seconds, and one publish every ten seconds
/// is a negligible load for the broker.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Why a session ended.
pub(crate) enum End {
    /// A stop request.
    Stopped,
    /// An error, in one line. `progress` states whether an event was acknowledged before.
    Failed { reason: String, progress: bool },
}

/// State that the callbacks of the connection share with the session.
#[derive(Clone, Default)]
struct ConnectionState {
    /// Set when the session has its client; after that, a reconnect ends the session.
    established: Arc<OnceLock<()>>,
    lost: CancellationToken,
    server_error: Arc<Mutex<Option<String>>>,
}

/// An event in flight.
struct Sent {
    entry: Entry,
    subject: String,
    size_bytes: usize,
    /// Sequence number within this session.
    serial: u64,
}

type Answer = (Sent, Result<PublishAck, PublishError>);

struct Session<'a> {
    shared: &'a Shared,
    options: &'a DrainOptions,
    backlog: &'a mut Backlog,
    context: async_nats::jetstream::Context,
    connection: ConnectionState,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    in_flight_bytes: usize,
    /// Send time of each event in flight.
    sent_at: HashMap<EntryId, Instant>,
    serial: u64,
    /// The highest answered sequence number.
    answered: u64,
    progress: bool,
    /// Set when nothing more may be sent on this connection.
    ending: Option<End>,
    /// Set when waiting for acknowledgements is pointless.
    abandoned: bool,
    scan_at: Instant,
}

/// Connects and drains until the connection is lost or `stop` is cancelled. Spawned tasks belong to the caller's runtime, which
/// must end with the session.
pub(crate) async fn run(
    shared: &Shared,
    options: &DrainOptions,
    broker: &Broker,
    backlog: &mut Backlog,
    stop: &CancellationToken,
) -> End {
    let connection = ConnectionState::default();
    let connected = tokio::select! {
        () = stop.cancelled() => return End::Stopped,
        connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(broker, &connection)) => connected,
    };
    let client = match connected {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return failed(format!("cannot connect to the broker: {}", chain(&error))),
        Err(_) => return failed("cannot connect to the broker: no response".to_owned()),
    };
    // Nothing has been sent yet, so a concurrent reconnect is harmless.
    let _ = connection.established.set(());
    shared.status.set_drain_state(DrainState::Connected);
    tracing::info!(outbox = %shared.directory.path().display(), waiting = backlog.listed(), "the outbox is connected to the broker");
    let context = ContextBuilder::new()
        .timeout(options.ack_timeout)
        // The session enforces the window; the limit of the library must not be smaller.
        .max_ack_inflight(options.window + 1)
        .build(client);
    let mut session = Session {
        shared,
        options,
        backlog,
        context,
        connection,
        answers: FuturesUnordered::new(),
        in_flight_bytes: 0,
        sent_at: HashMap::new(),
        serial: 0,
        answered: 0,
        progress: false,
        ending: None,
        abandoned: false,
        scan_at: Instant::now(),
    };
    let end = session.drain(stop).await;
    session.reset_in_flight();
    end
}

fn failed(reason: String) -> End {
    End::Failed {
        reason,
        progress: false,
    }
}

async fn connect(
    broker: &Broker,
    state: &ConnectionState,
) -> Result<async_nats::Client, async_nats::ConnectError> {
    let (reconnects, events) = (state.clone(), state.clone());
    let options = broker
        .options
        .clone()
        // Called before each attempt. In a running session, an attempt means that the connection is lost; it sleeps until
        // the runtime is shut down.
        .reconnect_delay_callback(move |_| match reconnects.established.get() {
            None => Duration::ZERO,
            Some(()) => {
                reconnects.lost.cancel();
                Duration::from_secs(3600)
            }
        })
        .reconnect_to_server_callback(|_, _| async { None })
        .event_callback(move |event| {
            if let ClientEvent::ServerError(error) = event {
                let text = error.to_string();
                *events.server_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            }
            async {}
        });
    options.connect(broker.servers.clone()).await
}

impl Session<'_> {
    async fn drain(&mut self, stop: &CancellationToken) -> End {
        let mut stop_at = None;
        loop {
            if stop_at.is_none() && stop.is_cancelled() {
                stop_at = Some(Instant::now() + STOP_GRACE);
                self.ending = Some(End::Stopped);
            }
            if let Err(error) = self.fill().await {
                self.end(format!("cannot access the outbox: {error}"));
            }
            self.shared
                .status
                .in_flight
                .store(self.answers.len() as u64, Ordering::Relaxed);
            if (self.answers.is_empty() || self.abandoned)
                && let Some(end) = self.ending.take()
            {
                return end;
            }
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                Some(answer) = self.answers.next() => {
                    self.settle(answer);
                    // Processes all available acknowledgements before filling the window.
                    while let Some(Some(answer)) = self.answers.next().now_or_never() {
                        self.settle(answer);
                    }
                }
                // Earlier acknowledgements are processed first, because their events need not be sent again.
                () = self.connection.lost.cancelled() => return self.connection_lost(),
                () = stop.cancelled(), if stop_at.is_none() => {}
                () = sleep_until(stop_at) => return End::Stopped,
                () = self.shared.put.notified(), if self.ending.is_none() => self.scan_at = Instant::now(),
                () = sleep_until(wake_at), if self.ending.is_none() => {}
            }
        }
    }

    /// Sends until the window is full or nothing can be sent.
    async fn fill(&mut self) -> io::Result<()> {
        let mut sends = 0;
        while self.ending.is_none() && !self.connection.lost.is_cancelled() && self.has_room() {
            match self.backlog.next(Instant::now())? {
                Some((entry, event)) => self.send(entry, event).await,
                None if self.backlog.has_more() || self.scan_at <= Instant::now() => {
                    if !self.backlog.scan()? {
                        break;
                    }
                    self.scan_at = Instant::now() + self.options.poll_interval;
                }
                None => break,
            }
            sends += 1;
            if sends % SENDS_PER_YIELD == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.answers.len() < self.options.window && self.in_flight_bytes < self.options.window_bytes
    }

    /// The next time to send without an acknowledgement; `None` if the window is full.
    fn wake_at(&self) -> Option<Instant> {
        if !self.has_room() {
            return None;
        }
        let scan_at = if self.backlog.has_more() {
            Instant::now()
        } else {
            self.scan_at
        };
        let scan_at = self
            .backlog
            .scan_not_before()
            .map_or(scan_at, |not_before| not_before.max(scan_at));
        Some(
            self.backlog
                .lanes
                .wake_at()
                .map_or(scan_at, |resting| resting.min(scan_at)),
        )
    }

    async fn send(&mut self, entry: Entry, event: Event) {
        self.serial += 1;
        let size_bytes = event.payload.len();
        let sent = Sent {
            entry,
            subject: event.subject,
            size_bytes,
            serial: self.serial,
        };
        self.sent_at.insert(entry.id, Instant::now());
        let mut headers = HeaderMap::new();
        for (name, value) in event.headers {
            headers.append(name, value);
        }
        if let Some(id) = event.id {
            headers.insert(MESSAGE_ID_HEADER, id);
        }
        let message = PublishMessage::build().payload(event.payload).headers(headers);
        match self.context.send_publish(sent.subject.clone(), message).await {
            Ok(answer) => {
                self.in_flight_bytes += size_bytes;
                self.answers.push(async move { (sent, answer.await) }.boxed());
            }
            Err(error) => self.fail(sent, &error),
        }
    }

    fn settle(&mut self, (sent, answer): Answer) {
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(sent.size_bytes);
        match answer {
            Ok(ack) => {
                self.sent_at.remove(&sent.entry.id);
                self.answered = self.answered.max(sent.serial);
                self.progress = true;
                self.backlog.acked(sent.entry, ack.duplicate, Instant::now());
            }
            Err(error) => self.fail(sent, &error),
        }
    }

    fn fail(&mut self, sent: Sent, error: &PublishError) {
        let sent_at = self.sent_at.remove(&sent.entry.id).unwrap_or_else(Instant::now);
        match classify(error) {
            Verdict::Aside(reason) => {
                self.answered = self.answered.max(sent.serial);
                self.backlog
                    .set_aside(sent.entry, &format!("the broker can never accept it: {reason}"));
            }
            Verdict::Refused(reason) => {
                self.answered = self.answered.max(sent.serial);
                self.reject(sent, reason);
            }
            Verdict::Unanswered => {
                self.backlog.unanswered(sent.entry.id, sent_at);
                self.unanswered(sent);
            }
            Verdict::Disconnected(reason) => {
                self.backlog.unanswered(sent.entry.id, sent_at);
                self.backlog.lanes.put_back(sent.entry);
                self.abandoned = true;
                self.end(reason);
            }
        }
    }

    fn unanswered(&mut self, sent: Sent) {
        let waited = self.options.ack_timeout.as_secs_f32();
        let server_error = self.server_error();
        let server_error = server_error
            .map(|error| format!(" The broker reported: {error}"))
            .unwrap_or_default();
        let hint =
            "check the permissions to publish and to receive replies, and that the stream is not no_ack";
        if self.answered > sent.serial {
            // Later events were acknowledged, so the connection works and only this event has no response.
            self.reject(
                sent,
                format!("no acknowledgement in {waited} s; {hint}.{server_error}"),
            );
        } else {
            self.backlog.lanes.put_back(sent.entry);
            self.abandoned = true;
            self.end(format!(
                "the broker did not respond in {waited} s; {hint}.{server_error}"
            ));
        }
    }

    fn reject(&mut self, sent: Sent, reason: String) {
        self.backlog
            .rejected(sent.entry, &sent.subject, reason, |failures| {
                backoff(failures, REST)
            });
    }

    /// Stops sending on this connection; events in flight may still be acknowledged.
    fn end(&mut self, reason: String) {
        if self.ending.is_none() {
            self.ending = Some(End::Failed {
                reason,
                progress: self.progress,
            });
        }
    }

    fn connection_lost(&mut self) -> End {
        let server_error = self
            .server_error()
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        End::Failed {
            reason: format!("the connection to the broker was lost{server_error}"),
            progress: self.progress,
        }
    }

    fn server_error(&self) -> Option<String> {
        self.connection
            .server_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The events in flight have an unknown outcome.
    fn reset_in_flight(&mut self) {
        self.backlog.lanes.reset_in_flight();
        for (id, sent_at) in self.sent_at.drain() {
            self.backlog.unanswered(id, sent_at);
        }
        self.shared.status.in_flight.store(0, Ordering::Relaxed);
    }
}

/// Exponential backoff from the first to the longest pause, randomly shortened by up to half, so that many outboxes do not
/// reconnect at the same time.
pub(crate) fn backoff(failures: u32, (first, longest): (Duration, Duration)) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let rest = first.saturating_mul(1 << doublings).min(longest);
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    rest.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

/// Sleeps until `at`, or forever without it.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_random() {
        let rest = |failures| backoff(failures, REST);
        for (failures, full) in [
            (1, 250),
            (2, 500),
            (3, 1000),
            (6, 8000),
            (7, 10_000),
            (u32::MAX, 10_000),
        ] {
            let full = Duration::from_millis(full);
            for _ in 0..100 {
                let found = rest(failures);
                assert!(
                    found >= full / 2 && found <= full,
                    "{failures} failures: {found:?}"
                );
            }
        }
        assert_ne!((rest(7), rest(7)), (rest(7), rest(7)));
    }
}
