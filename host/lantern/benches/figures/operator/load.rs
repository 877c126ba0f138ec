//! The load on the host during an operation, and the latencies that it has.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::scene::Scene;
use crate::nats::NatsServer;

/// Publishes numbers at a fixed rate and measures the time until each is in the database.
pub struct Load {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    sent: Arc<Mutex<VecDeque<(u64, Instant)>>>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Load {
    /// `first` is the number and the sequence of the first message.
    pub async fn start(server: &NatsServer, rate: u64, first: u64) -> Self {
        let (stop, published) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(first - 1)),
        );
        let sent: Arc<Mutex<VecDeque<(u64, Instant)>>> = Arc::default();
        let client = server.client().await;
        let task = tokio::spawn({
            let (stop, published, sent) = (Arc::clone(&stop), Arc::clone(&published), Arc::clone(&sent));
            async move {
                let began = Instant::now();
                let mut number = first;
                while !stop.load(Ordering::Relaxed) {
                    let due = (began.elapsed().as_secs_f64() * rate as f64) as u64 + first;
                    while number <= due {
                        sent.lock().unwrap().push_back((number, Instant::now()));
                        client.publish("evolve.x", number.to_string().into()).await?;
                        published.store(number, Ordering::Relaxed);
                        number += 1;
                    }
                    client.flush().await?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                client.flush().await?;
                Ok(())
            }
        });
        Self {
            stop,
            published,
            sent,
            task,
        }
    }

    pub async fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.published.load(Ordering::Relaxed))
    }
}

/// Latencies, and the longest time between two commits.
pub struct Seen {
    /// Histogram of latencies in steps of ten microseconds; the last bucket counts all slower messages. A list would
    /// grow with each message and look like a memory leak of the host.
    counts: Vec<u32>,
    pub longest_pause: Duration,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            counts: vec![0; 200_000],
            longest_pause: Duration::ZERO,
        }
    }
}

impl Seen {
    fn took(&mut self, latency: Duration) {
        let last = self.counts.len() - 1;
        self.counts[(latency.as_micros() as usize / 10).min(last)] += 1;
    }

    /// Returns a percentile in milliseconds.
    pub fn percentile(&self, hundredths: u64) -> f64 {
        let all: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += u64::from(*count);
            below * 100 > all * hundredths
        });
        at.unwrap_or(0) as f64 / 100.0
    }
}

pub fn print_both(before: &Seen, during: &Seen) {
    println!(
        "  publish to commit p50 / p99: before {:.2} / {:.2} ms, during {:.2} / {:.2} ms; longest pause {:.0} and {:.0} ms",
        before.percentile(50),
        before.percentile(99),
        during.percentile(50),
        during.percentile(99),
        before.longest_pause.as_secs_f64() * 1e3,
        during.longest_pause.as_secs_f64() * 1e3
    );
}

/// Polls the checkpoint while `act` runs.
pub async fn watch<T>(
    scene: &Scene,
    load: &Load,
    act: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(Seen, T)> {
    let done = AtomicBool::new(false);
    let sent = Arc::clone(&load.sent);
    let watching = async {
        let mut seen = Seen::default();
        let (mut at, mut since) = (scene.checkpoint(), Instant::now());
        while !done.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_micros(200)).await;
            let (now, checkpoint) = (Instant::now(), scene.checkpoint());
            if checkpoint != at {
                seen.longest_pause = seen.longest_pause.max(now - since);
                (at, since) = (checkpoint, now);
                let mut sent = sent.lock().unwrap();
                while sent.front().is_some_and(|(sequence, _)| *sequence <= checkpoint) {
                    if let Some((_, published)) = sent.pop_front() {
                        seen.took(now - published);
                    }
                }
            }
        }
        seen
    };
    let acting = async {
        let result = act.await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let (seen, result) = tokio::join!(watching, acting);
    Ok((seen, result?))
}

/// Resident memory of this process in MiB, open files and threads.
pub type Resources = (f64, usize, usize);

/// Returns resident memory in MiB, open files and threads of this process.
pub fn resources() -> anyhow::Result<Resources> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split_whitespace().nth(1).context("statm")?.parse()?;
    let count = |path: &str| anyhow::Ok(std::fs::read_dir(Path::new(path))?.count());
    Ok((
        pages * 4096.0 / 1_048_576.0,
        count("/proc/self/fd")?,
        count("/proc/self/task")?,
    ))
}
