//! One connection's worth of draining: sends events in order, keeps a window of them unanswered, settles each answer.
//!
//! A session ends with its connection. The client library would reconnect by itself and then send what it still
//! held in its queue, behind the back of older events that went down with the old connection: the stream would
//! get them in the wrong order. So the library is kept from reconnecting, the connection lives in a runtime that
//! dies with the session, and the next session starts again at the oldest event. What the broker had already
//! stored it recognises by the message id.

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
use crate::drain::{Broker, DrainOptions};
use crate::entry::{Entry, EntryId};
use crate::event::{Event, MESSAGE_ID_HEADER};
use crate::outbox::Shared;
use crate::status::{DrainState, chain};
use crate::verdict::{Verdict, judge};

/// How long answers are awaited after the drain was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long making a connection may take, all servers together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// After this many sends the connection gets a turn on the session's thread.
const SENDS_PER_TURN: usize = 16;
/// First and longest rest of a refused subject. Ten seconds is how late a stream that was just made is noticed at
/// worst, and one publish each ten seconds is nothing for a broker to refuse.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Why a session ended.
pub(crate) enum End {
    /// The drain was told to stop.
    Stopped,
    /// Something went wrong, in one line. `progress` says whether an event was acknowledged before.
    Failed { reason: String, progress: bool },
}

/// What the connection's callbacks tell the session.
#[derive(Clone, Default)]
struct Line {
    /// Set once the session has its client: from then on a reconnect is the end.
    established: Arc<OnceLock<()>>,
    lost: CancellationToken,
    said_by_server: Arc<Mutex<Option<String>>>,
}

/// An event in flight.
struct Sent {
    entry: Entry,
    subject: String,
    size_bytes: usize,
    /// Position among all that this session sent.
    serial: u64,
}

type Answer = (Sent, Result<PublishAck, PublishError>);

struct Session<'a> {
    shared: &'a Shared,
    options: &'a DrainOptions,
    backlog: &'a mut Backlog,
    context: async_nats::jetstream::Context,
    line: Line,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    in_flight_bytes: usize,
    /// When each event in flight was sent.
    sent_at: HashMap<EntryId, Instant>,
    serial: u64,
    /// The latest event that got an answer.
    answered: u64,
    progress: bool,
    /// Set when nothing more is to be sent on this connection.
    ending: Option<End>,
    /// Set when it is no use to wait for the answers to what is in flight.
    abandoned: bool,
    scan_at: Instant,
}

/// Connects and drains until the connection is lost or `stop` is cancelled. Everything that is spawned here
/// belongs to the caller's runtime, which must end with the session.
pub(crate) async fn run(
    shared: &Shared,
    options: &DrainOptions,
    broker: &Broker,
    backlog: &mut Backlog,
    stop: &CancellationToken,
) -> End {
    let line = Line::default();
    let connected = tokio::select! {
        () = stop.cancelled() => return End::Stopped,
        connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(broker, &line)) => connected,
    };
    let client = match connected {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return failed(format!("cannot connect to the broker: {}", chain(&error))),
        Err(_) => return failed("cannot connect to the broker: it does not answer".to_owned()),
    };
    // Nothing was sent before this, so a reconnect that is under way right now does no harm.
    let _ = line.established.set(());
    shared.status.drain(DrainState::Connected);
    tracing::info!(outbox = %shared.directory.path().display(), waiting = backlog.listed(), "the outbox is connected");
    let context = ContextBuilder::new()
        .timeout(options.ack_timeout)
        // The session keeps the window itself; the library's own must never be the smaller one.
        .max_ack_inflight(options.window + 1)
        .build(client);
    let mut session = Session {
        shared,
        options,
        backlog,
        context,
        line,
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
    session.land();
    end
}

fn failed(reason: String) -> End {
    End::Failed {
        reason,
        progress: false,
    }
}

async fn connect(broker: &Broker, line: &Line) -> Result<async_nats::Client, async_nats::ConnectError> {
    let (reconnects, events) = (line.clone(), line.clone());
    let options = broker
        .options
        .clone()
        // Called before each attempt. Once the session runs, an attempt means that the connection is gone; it
        // sleeps until the runtime takes it away.
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
                let said = error.to_string();
                *events
                    .said_by_server
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(said);
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
                self.end(format!("cannot work in the outbox: {error}"));
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
                    // Take all that is there before filling the window again.
                    while let Some(Some(answer)) = self.answers.next().now_or_never() {
                        self.settle(answer);
                    }
                }
                // The answers that arrived before are taken first: each is an event not to be sent again.
                () = self.line.lost.cancelled() => return self.lost(),
                () = stop.cancelled(), if stop_at.is_none() => {}
                () = sleep_until(stop_at) => return End::Stopped,
                () = self.shared.put.notified(), if self.ending.is_none() => self.scan_at = Instant::now(),
                () = sleep_until(wake_at), if self.ending.is_none() => {}
            }
        }
    }

    /// Sends until the window is full or nothing may be sent.
    async fn fill(&mut self) -> io::Result<()> {
        let mut turn = 0;
        while self.ending.is_none() && !self.line.lost.is_cancelled() && self.has_room() {
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
            turn += 1;
            if turn % SENDS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.answers.len() < self.options.window && self.in_flight_bytes < self.options.window_bytes
    }

    /// When there may be something to send although no answer comes. `None`: only an answer makes room.
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
                .map_or(scan_at, |rested| rested.min(scan_at)),
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
                self.backlog.acked(sent.entry, ack.duplicate);
            }
            Err(error) => self.fail(sent, &error),
        }
    }

    fn fail(&mut self, sent: Sent, error: &PublishError) {
        let sent_at = self.sent_at.remove(&sent.entry.id).unwrap_or_else(Instant::now);
        match judge(error) {
            Verdict::Aside(reason) => {
                self.answered = self.answered.max(sent.serial);
                self.backlog
                    .set_aside(sent.entry, &format!("the broker cannot take it: {reason}"));
            }
            Verdict::Refused(reason) => {
                self.answered = self.answered.max(sent.serial);
                self.refused(sent, reason);
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
        let said = self.said_by_server();
        let said = said
            .map(|said| format!(" The broker said: {said}"))
            .unwrap_or_default();
        let why = "may this user publish it and receive answers, is the stream no_ack?";
        if self.answered > sent.serial {
            // Later ones were answered, so the connection is sound and the broker keeps silent about this one.
            self.refused(sent, format!("no acknowledgement in {waited} s; {why}{said}"));
        } else {
            self.backlog.lanes.put_back(sent.entry);
            self.abandoned = true;
            self.end(format!("the broker did not answer in {waited} s; {why}{said}"));
        }
    }

    fn refused(&mut self, sent: Sent, reason: String) {
        self.backlog
            .refused(sent.entry, &sent.subject, reason, |failures| {
                backoff(failures, REST)
            });
    }

    /// Nothing more is sent on this connection; what is in flight may still be answered.
    fn end(&mut self, reason: String) {
        if self.ending.is_none() {
            self.ending = Some(End::Failed {
                reason,
                progress: self.progress,
            });
        }
    }

    fn lost(&mut self) -> End {
        let said = self
            .said_by_server()
            .map(|said| format!(": {said}"))
            .unwrap_or_default();
        End::Failed {
            reason: format!("the connection to the broker was lost{said}"),
            progress: self.progress,
        }
    }

    fn said_by_server(&self) -> Option<String> {
        self.line
            .said_by_server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What is in flight now has an unknown outcome.
    fn land(&mut self) {
        self.backlog.lanes.land();
        for (id, sent_at) in self.sent_at.drain() {
            self.backlog.unanswered(id, sent_at);
        }
        self.shared.status.in_flight.store(0, Ordering::Relaxed);
    }
}

/// A rest that doubles with each failure in a row, from the first to the longest, of which a random part between
/// half and all is taken, so that many outboxes do not come back at the same moment.
pub(crate) fn backoff(failures: u32, (first, longest): (Duration, Duration)) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let rest = first.saturating_mul(1 << doublings).min(longest);
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    rest.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

/// Waits for that moment, or for ever when there is none.
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
    fn rests_double_up_to_the_longest_and_differ() {
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
