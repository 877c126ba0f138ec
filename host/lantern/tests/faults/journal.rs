//! The journal of publishes, and the publisher that fills it while the nemesis acts.
//!
//! The publisher never resends a message without an acknowledgement. It is unknown whether the broker stored it, so it
//! may have one row or none. The next message has the next id.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};

use super::streams::Stream;
use super::verdict::{Fate, Kind, Sent};

/// All messages by id.
#[derive(Clone, Default)]
pub struct Journal {
    entries: Arc<Mutex<BTreeMap<u64, Sent>>>,
    last: Arc<AtomicU64>,
}

impl Journal {
    pub fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Sent>> {
        self.entries.lock().unwrap()
    }

    /// Returns the id of the newest message.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    /// Allocates an id for a message about to be sent.
    pub fn begin(&self, stream: Stream, kind: Kind) -> u64 {
        let id = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        let sent = Sent {
            stream,
            kind,
            sequence: 0,
            fate: Fate::Unacknowledged,
        };
        self.entries().insert(id, sent);
        id
    }

    pub fn acknowledged(&self, id: u64, sequence: u64) {
        let mut entries = self.entries();
        let sent = entries.get_mut(&id).unwrap();
        (sent.sequence, sent.fate) = (sequence, Fate::InStream);
    }

    /// Publishes one message. Returns whether the broker acknowledged it.
    pub async fn publish(
        &self,
        context: &Context,
        stream: Stream,
        kind: Kind,
        payload: impl Fn(u64) -> String,
    ) -> Option<u64> {
        let id = self.begin(stream, kind);
        let sent = context.publish(stream.subject(), payload(id).into()).await;
        let stored = match sent {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        let stored = stored.ok()?;
        self.acknowledged(id, stored.sequence);
        Some(id)
    }
}

/// Connects to one of the broker's servers with short timeouts.
pub async fn context(urls: &str) -> Option<Context> {
    let options = async_nats::ConnectOptions::new().connection_timeout(Duration::from_secs(2));
    let mut context = jetstream::new(options.connect(addresses(urls)).await.ok()?);
    context.set_timeout(Duration::from_secs(2));
    Some(context)
}

fn addresses(urls: &str) -> Vec<async_nats::ServerAddr> {
    urls.split(',').map(|url| url.parse().unwrap()).collect()
}

#[derive(Default)]
struct Control {
    stop: AtomicBool,
    pause: AtomicBool,
    /// No publish is in flight.
    idle: AtomicBool,
}

/// Publishes until it is dropped, with pauses. It starts paused.
pub struct Publisher {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    pub fn start(url: String, journal: Journal) -> Self {
        let control = Arc::new(Control {
            pause: AtomicBool::new(true),
            ..Control::default()
        });
        let thread = std::thread::spawn({
            let control = Arc::clone(&control);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(publish(&url, &journal, &control));
            }
        });
        Self {
            control,
            thread: Some(thread),
        }
    }

    /// Stops publishing; returns when every sent message is acknowledged or timed out.
    pub fn pause(&self) {
        self.control.pause.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.control.idle.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "the publisher does not pause");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn resume(&self) {
        self.control.idle.store(false, Ordering::SeqCst);
        self.control.pause.store(false, Ordering::SeqCst);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Publishes two hundred messages per second: mostly observations, some for the other plugins.
async fn publish(url: &str, journal: &Journal, control: &Control) {
    let connected = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .connect(addresses(url))
        .await;
    let mut context = jetstream::new(connected.unwrap());
    context.set_timeout(Duration::from_millis(500));
    while !control.stop.load(Ordering::SeqCst) {
        if control.pause.load(Ordering::SeqCst) {
            control.idle.store(true, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let batch = (0..8).map(|number| {
            let stream = match number {
                0..=5 => Stream::Obs,
                6 => Stream::Evolve,
                _ => Stream::Evil,
            };
            journal.publish(&context, stream, Kind::Row, move |id| stream.payload(id))
        });
        futures_util::future::join_all(batch).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}
