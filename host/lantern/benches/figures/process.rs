//! Measures the real program from outside: latency, time to ready, memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream;
use rusqlite::{Connection, OpenFlags};

use crate::events::{self, Events, runtime};
use crate::host::{Host, plugin_folder, plugins};
use crate::nats::NatsServer;
use crate::report;

/// Sorted latencies in milliseconds.
pub struct Latencies(Vec<f64>);

impl Latencies {
    pub fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// Returns the latency at this quantile.
    pub fn at(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }
}

pub fn latency(rate: u64, seconds: u64) -> anyhow::Result<()> {
    let latencies = measured(rate, seconds, |_| Ok(()))?;
    println!(
        "latency: publish to visible row at {rate} messages/s for {seconds} s: p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms",
        latencies.at(0.5),
        latencies.at(0.99),
        latencies.at(1.0)
    );
    report::line(
        &format!("publish to visible row at {rate} messages/s, p50 / p99 (`-- latency`)"),
        format!("{:.2} / {:.2} ms", latencies.at(0.5), latencies.at(0.99)),
    );
    Ok(())
}

/// Publishes at a constant rate and records when another database connection can see each row. Keeps the value that
/// `meanwhile` returns until the end.
pub fn measured<T>(
    rate: u64,
    seconds: u64,
    meanwhile: impl FnOnce(&Host) -> anyhow::Result<T>,
) -> anyhow::Result<Latencies> {
    let server = NatsServer::start();
    let folder = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir()?;
    let host = Host::start(dir.path(), &server.url(), folder.path());
    let count = rate * seconds;
    let path = dir.path().join("lantern.db");
    latencies_of(&server, &host, rate, count, meanwhile, move || {
        watch(&path, 0, count)
    })
}

/// As [`measured`], for a running host, with a function that returns when each row became visible.
pub fn latencies_of<T>(
    server: &NatsServer,
    host: &Host,
    rate: u64,
    count: u64,
    meanwhile: impl FnOnce(&Host) -> anyhow::Result<T>,
    watch: impl FnOnce() -> anyhow::Result<Vec<Instant>> + Send + 'static,
) -> anyhow::Result<Latencies> {
    host.wait("running", Duration::from_secs(30), |host| {
        host.projection("obs")["state"] == "running"
    });
    let kept = meanwhile(host)?;
    let seen = std::thread::spawn(watch);
    let sent = runtime()?.block_on(publish_evenly(&server.url(), rate, count))?;
    let seen = seen
        .join()
        .map_err(|_| anyhow::anyhow!("the watching thread panicked"))??;
    drop(kept);
    let latencies = sent
        .iter()
        .zip(&seen)
        .map(|(sent, seen)| seen.duration_since(*sent).as_secs_f64() * 1_000.0);
    Ok(Latencies::new(latencies.collect()))
}

/// Publishes `count` messages at a constant rate. Returns the time of each; index 0 is sequence 1.
pub async fn publish_evenly(url: &str, rate: u64, count: u64) -> anyhow::Result<Vec<Instant>> {
    let client = async_nats::connect(url).await?;
    let context = jetstream::new(client.clone());
    let events = events::load(None, usize::try_from(count)?)?;
    let began = tokio::time::Instant::now();
    let mut sent = Vec::with_capacity(events.messages.len());
    for (number, (subject, payload)) in events.messages.into_iter().enumerate() {
        tokio::time::sleep_until(began + Duration::from_micros(number as u64 * 1_000_000 / rate)).await;
        sent.push(Instant::now());
        // Do not wait for the acknowledgement; the measurement ends with the row.
        drop(context.publish(subject, payload.into()).await?);
    }
    // The client may still buffer the last messages, and it is dropped on return.
    client.flush().await?;
    Ok(sent)
}

/// Returns the time when each of the `count` rows after sequence `after` became visible.
pub fn watch(path: &Path, after: u64, count: u64) -> anyhow::Result<Vec<Instant>> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    let mut statement = connection
        .prepare("SELECT coalesce((SELECT _sequence FROM obs_events ORDER BY rowid DESC LIMIT 1), 0)")?;
    let mut seen = Vec::with_capacity(usize::try_from(count)?);
    let deadline = Instant::now() + Duration::from_secs(300);
    while (seen.len() as u64) < count && Instant::now() < deadline {
        let last: i64 = statement.query_row([], |row| row.get(0))?;
        let now = Instant::now();
        while (after + seen.len() as u64).cast_signed() < last {
            seen.push(now);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(seen)
}

/// Measures start to ready with all plugins and a warm cache, and resident memory when idle and while the host reads a
/// filled stream.
pub fn start_and_memory(count: usize) -> anyhow::Result<()> {
    let server = NatsServer::start();
    let dir = tempfile::tempdir()?;
    let started = || {
        let began = Instant::now();
        let host = Host::start(dir.path(), &server.url(), &plugins());
        while host.get("/readyz").map_or(0, |(status, _)| status) != 200 {
            std::thread::sleep(Duration::from_millis(2));
        }
        (host, began.elapsed())
    };
    let (host, cold) = started();
    host.terminate();
    let mut warm: Vec<Duration> = Vec::new();
    for _ in 0..5 {
        let (host, took) = started();
        warm.push(took);
        host.terminate();
    }
    warm.sort();
    println!(
        "start to ready with 5 plugins: {} ms cold, {} ms with a warm cache (median of 5)",
        cold.as_millis(),
        warm[2].as_millis()
    );
    report::line(
        "start to ready with 5 plugins, compile cache cold / warm (`-- process`)",
        format!("{} / {} ms", cold.as_millis(), warm[2].as_millis()),
    );

    let (host, _) = started();
    std::thread::sleep(Duration::from_secs(3));
    let idle = resident(host.pid())?;
    let events: Events = events::load(None, count)?;
    let publishing = std::thread::spawn({
        let url = server.url();
        move || events::publish_into(&url, &events)
    });
    let mut peak = Memory::default();
    while host.projection("obs")["checkpoint"].as_u64().unwrap_or(0) < count as u64 {
        peak = peak.max(resident(host.pid())?);
        std::thread::sleep(Duration::from_millis(50));
    }
    publishing
        .join()
        .map_err(|_| anyhow::anyhow!("the publisher panicked"))??;
    println!(
        "resident memory with 5 plugins: idle {:.0} MiB ({:.0} MiB of it not file pages), at full rate {:.0} MiB ({:.0} MiB)",
        idle.all, idle.anonymous, peak.all, peak.anonymous
    );
    report::line(
        "resident memory with 5 plugins, idle / at full rate (`-- process`)",
        format!("{:.0} / {:.0} MiB", idle.all, peak.all),
    );
    Ok(())
}

#[derive(Clone, Copy, Default)]
pub struct Memory {
    pub all: f64,
    anonymous: f64,
}

impl Memory {
    fn max(self, other: Self) -> Self {
        Self {
            all: self.all.max(other.all),
            anonymous: self.anonymous.max(other.anonymous),
        }
    }
}

pub fn resident(pid: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .context("no such line in /proc")?;
        let kib: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib / 1024.0)
    };
    Ok(Memory {
        all: field("VmRSS:")?,
        anonymous: field("RssAnon:")?,
    })
}
