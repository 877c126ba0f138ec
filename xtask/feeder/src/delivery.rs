//! The two ways to the broker: through the outbox, for what must not be lost, and directly, for samples.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lantern_outbox::{Broker, Drain, DrainError, DrainOptions, Event, Outbox};
use tokio::{task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

use crate::message::Message;

/// Between two of these the other sources have their turn: each event is written to the disk and synced.
const EVENTS_AT_ONCE: usize = 64;
/// How often it is looked whether the outbox is empty at the end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Owns the outbox, its drain and a connection.
pub struct Delivery {
    client: async_nats::Client,
    outbox: Outbox,
    drain: JoinHandle<Result<(), DrainError>>,
    stop: CancellationToken,
}

impl Delivery {
    /// Connects to `url` and opens the outbox in `folder`. Fails when the broker does not answer or the folder
    /// cannot be made; a broker that goes away later is waited for.
    pub async fn open(url: &str, folder: &Path) -> Result<Self> {
        // Not the address in the error: it may hold a password.
        let broker = Broker::at(url).context("cannot read the address")?;
        let client = broker.connect().await.context("cannot connect to the broker")?;
        let outbox =
            Outbox::open(folder).with_context(|| format!("cannot open the outbox {}", folder.display()))?;
        let stop = CancellationToken::new();
        let drain = tokio::spawn(Drain::new(&outbox, DrainOptions::default()).run(broker, stop.clone()));
        Ok(Self {
            client,
            outbox,
            drain,
            stop,
        })
    }

    /// Puts messages into the outbox; when it returns they will be published, whatever happens to this program.
    /// Fails when the disk does not take them.
    pub fn put(&self, messages: &[Message]) -> Result<()> {
        let events: Vec<Event> = messages
            .iter()
            .map(|message| Event::new(&message.subject, message.payload.clone()))
            .collect();
        for events in events.chunks(EVENTS_AT_ONCE) {
            tokio::task::block_in_place(|| self.outbox.put_all(events))
                .context("cannot put events into the outbox")?;
        }
        Ok(())
    }

    /// Publishes over core NATS: at most once, and not at all while the broker is away.
    pub async fn publish(&self, message: Message) -> Result<()> {
        let subject = message.subject.clone();
        let sent = self.client.publish(message.subject, message.payload.into()).await;
        sent.with_context(|| format!("cannot publish to {subject}"))
    }

    /// Waits until the outbox is empty, for at most `limit`, and stops. Answers how many events still wait; they
    /// are published when the outbox is opened the next time. What could not be published at all is said.
    pub async fn close(self, limit: Duration) -> Result<u64> {
        let until = Instant::now() + limit;
        while !self.outbox.is_empty()? && !self.drain.is_finished() && Instant::now() < until {
            time::sleep(LOOK_EVERY).await;
        }
        self.stop.cancel();
        self.drain.await.context("the drain has panicked")??;
        self.client
            .flush()
            .await
            .context("cannot send the last samples")?;
        let stats = self.outbox.stats()?;
        if stats.aside > 0 {
            let folder = self.outbox.path().join("aside");
            println!(
                "    feeder: {} events cannot be published, see {}",
                stats.aside,
                folder.display()
            );
        }
        if let (Some(error), true) = (&stats.last_error, stats.waiting > 0) {
            println!(
                "    feeder: the last trouble of the outbox was: {}",
                error.message
            );
        }
        Ok(stats.waiting)
    }
}
