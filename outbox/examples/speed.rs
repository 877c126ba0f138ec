//! Measures the throughput of an outbox: events put and drained per second.
//!
//! `cargo run --release -p lantern-outbox --example speed -- nats://127.0.0.1:4222 100000 [DIR]` creates a memory
//! stream `OUTBOX_SPEED` on that broker, puts that many events of 200 bytes, drains them, and deletes the stream.

use std::error::Error;
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, stream};
use lantern_outbox::{Broker, Drain, DrainOptions, Event, Outbox};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    let count: usize = arguments.next().map_or(Ok(100_000), |count| count.parse())?;
    let parent = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent)?;
    let context = jetstream::new(async_nats::connect(&url).await?);
    let config = stream::Config {
        name: "OUTBOX_SPEED".to_owned(),
        subjects: vec!["outbox.speed.>".to_owned()],
        storage: stream::StorageType::Memory,
        ..Default::default()
    };
    context.create_stream(config).await?;
    let outbox = Outbox::open(dir.path())?;

    let payload = vec![b'x'; 200];
    let events: Vec<Event> = (0..count)
        .map(|n| Event::new(format!("outbox.speed.{}", n % 10), payload.clone()))
        .collect();
    let single = 200.min(count);
    rate("put, one at a time", single, || {
        events[..single]
            .iter()
            .try_for_each(|event| outbox.put(event).map(|_| ()))
    })?;
    rate("put, 1,000 at a time", count - single, || {
        events[single..]
            .chunks(1000)
            .try_for_each(|chunk| outbox.put_all(chunk).map(|_| ()))
    })?;
    rate("list", count, || outbox.len().map(|_| ()))?;

    let stop = CancellationToken::new();
    let begin = Instant::now();
    let broker = Broker::new(url, ConnectOptions::new())?;
    let drain = tokio::spawn(Drain::new(&outbox, DrainOptions::default()).run(broker, stop.clone()));
    while outbox.published() < count as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "{:<24} {:>9.0} events/s",
        "drain",
        count as f64 / begin.elapsed().as_secs_f64()
    );
    stop.cancel();
    drain.await??;
    context.delete_stream("OUTBOX_SPEED").await?;
    Ok(())
}

fn rate<E>(name: &str, count: usize, work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let begin = Instant::now();
    work()?;
    println!(
        "{name:<24} {:>9.0} events/s",
        count as f64 / begin.elapsed().as_secs_f64()
    );
    Ok(())
}
