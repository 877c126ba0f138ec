//! The two paths to the broker: through the outbox for events that must not be lost, and directly for samples.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lantern_outbox::{Broker, Drain, DrainError, DrainOptions, Event, Outbox};
use tokio::{task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

use crate::message::Message;

/// Batch size. Each event is synced to the disk, and other sources run between batches.
const EVENTS_PER_BATCH: usize = 64;
/// Poll interval of the outbox while closing.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Owns the outbox, its drain and a connection.
pub struct Delivery {
    client: async_nats::Client,
    outbox: Outbox,
    drain: JoinHandle<Result<(), DrainError>>,
    stop: CancellationToken,
}

impl Delivery {
    /// Connects to `url` and opens the outbox in `folder`. Fails if the broker is unreachable or the folder cannot be created.
    /// Later disconnects are retried.
    pub async fn open(url: &str, folder: &Path) -> Result<Self> {
        // The error omits the address, which may contain a password.
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

    /// Puts messages into the outbox. When it returns, they will be published even if this program is killed. Fails if they
    /// cannot be written to the disk.
    pub fn put(&self, messages: &[Message]) -> Result<()> {
        let events: Vec<Event> = messages
            .iter()
            .map(|message| Event::new(&message.subject, message.payload.clone()))
            .collect();
        for events in events.chunks(EVENTS_PER_BATCH) {
            tokio::task::block_in_place(|| self.outbox.put_all(events))
                .context("cannot put events into the outbox")?;
        }
        Ok(())
    }

    /// Publishes over core NATS: at most once, and not at all while disconnected.
    pub async fn publish(&self, message: Message) -> Result<()> {
        let subject = message.subject.clone();
        let sent = self.client.publish(message.subject, message.payload.into()).await;
        sent.with_context(|| format!("cannot publish to {subject}"))
    }

    /// Waits until the outbox is empty, for at most `limit`, and stops. Returns the number of pending events; they are
    /// published when the outbox is opened again. Prints events that cannot be published.
    pub async fn close(self, limit: Duration) -> Result<u64> {
        let until = Instant::now() + limit;
        while !self.outbox.is_empty()? && !self.drain.is_finished() && Instant::now() < until {
            time::sleep(POLL_EVERY).await;
        }
        self.stop.cancel();
        self.drain.await.context("the drain panicked")??;
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
            println!("    feeder: last error of the outbox: {}", error.message);
        }
        Ok(stats.waiting)
    }
}
