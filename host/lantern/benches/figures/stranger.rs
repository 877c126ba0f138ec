//! Measures how much an unauthenticated client disturbs ingestion, memory and liveness: expensive filters, tails,
//! clients that do not read, and more connections than the host accepts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::events::{self, Events, runtime};
use crate::host::{Host, plugin_folder};
use crate::nats::NatsServer;
use crate::process::{Latencies, resident, watch};
use crate::report;

/// Messages per second during the measurement.
const RATE: usize = 2_000;
/// Duration of each phase in seconds.
const SECONDS: usize = 15;
/// Phases without and with the stranger.
const ROUNDS: usize = 3;
/// Rows before the measurement.
const FILLED: usize = 100_000;
/// Rows with a text of a megabyte, which is expensive to search and to send.
const LARGE: usize = 6;
/// More connections than the host accepts.
const CONNECTIONS: usize = 768;

/// Runs the figure.
pub fn stranger() -> anyhow::Result<()> {
    let server = NatsServer::start();
    let folder = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir()?;
    let host = Host::start(dir.path(), &server.url(), folder.path());
    let mut events = events::load(None, FILLED + 2 * ROUNDS * RATE * SECONDS)?
        .messages
        .into_iter();
    let mut messages: Vec<_> = events.by_ref().take(FILLED).collect();
    messages.extend((0..LARGE).map(large));
    let origin = "a generator".to_owned();
    events::publish_into(&server.url(), &Events { origin, messages })?;
    let mut stored = (FILLED + LARGE) as u64;
    host.wait("the first rows", Duration::from_secs(120), |host| {
        host.projection("obs")["checkpoint"] == stored
    });
    let address = host.url().trim_start_matches("http://").to_owned();
    let (position, published) = runtime()?.block_on(tail_position(&address, &server.url()))?;
    stored += published;
    println!(
        "stranger: filters, tails, clients that do not read and {CONNECTIONS} connections against a host with {stored} rows \
         that ingests {RATE} messages/s; the client stands for another machine and has the lowest priority"
    );
    let (mut p99, mut memory) = ([Vec::new(), Vec::new()], [0.0_f64; 2]);
    let mut alive = Vec::new();
    for round in 1..=ROUNDS {
        for with in [false, true] {
            let attack = with.then(|| Attack::start(&address, &position)).transpose()?;
            let messages: Vec<_> = events.by_ref().take(RATE * SECONDS).collect();
            let watched = Watched::start(&host);
            let latencies = ingest(&server, dir.path(), stored, messages)?;
            let (peak, livez) = watched.stop()?;
            drop(attack);
            stored += (RATE * SECONDS) as u64;
            println!(
                "  round {round}, {}: publish to visible row p50 / p99 {:.2} / {:.2} ms; memory {peak:.0} MiB; \
                 /livez p50 / max {:.1} / {:.1} ms",
                if with { "with the stranger" } else { "alone" },
                latencies.at(0.5),
                latencies.at(0.99),
                livez.at(0.5),
                livez.at(1.0)
            );
            p99[usize::from(with)].push(latencies.at(0.99));
            memory[usize::from(with)] = memory[usize::from(with)].max(peak);
            if with {
                alive.push(livez.at(1.0));
            }
        }
    }
    report(p99, memory[1] - memory[0], Latencies::new(alive).at(1.0));
    Ok(())
}

/// Prints and reports the p99 of the rounds without and with the client, the growth of memory in MiB, and the slowest answer
/// of `/livez` in milliseconds.
fn report(p99: [Vec<f64>; 2], growth: f64, alive: f64) {
    let [alone, with] = p99.map(|all| Latencies::new(all).at(0.5));
    println!(
        "  p99, median of {ROUNDS} rounds: {alone:.2} ms alone, {with:.2} ms with the stranger ({:.2}, goal below 1.50); \
         memory grows by {:.0} MiB (goal below 64); slowest /livez {:.0} ms (goal below 100)",
        with / alone,
        growth,
        alive
    );
    report::line(
        &format!(
            "a client without a token ({CONNECTIONS} connections, filters, tails, clients that do not read) at {RATE} \
             messages/s: p99 without and with it; memory; slowest /livez (`-- stranger`)"
        ),
        format!("{alone:.1} and {with:.1} ms; +{:.0} MiB; {:.0} ms", growth, alive),
    );
}

/// An event with a text that consists of one letter.
fn large(number: usize) -> (String, Vec<u8>) {
    let event = json!({
        "pc_id": "pc-large", "at": "2026-05-28T10:41:00Z", "kind": "large", "source": "winlog:Security",
        "event_record_id": format!("large-{number}"), "payload": {"text": "a".repeat(1_000_000)},
    });
    ("obs.pc-large".to_owned(), event.to_string().into_bytes())
}

/// Publishes at a constant rate after `stored` messages; returns the times from publish to visible row.
fn ingest(
    server: &NatsServer,
    dir: &Path,
    stored: u64,
    messages: Vec<(String, Vec<u8>)>,
) -> anyhow::Result<Latencies> {
    let count = messages.len() as u64;
    let path = dir.join("lantern.db");
    let seen = std::thread::spawn(move || watch(&path, stored, count));
    let sent = runtime()?.block_on(async {
        let client = async_nats::connect(server.url()).await?;
        let context = jetstream::new(client.clone());
        let began = tokio::time::Instant::now();
        let mut sent = Vec::with_capacity(messages.len());
        for (number, (subject, payload)) in messages.into_iter().enumerate() {
            let due = Duration::from_micros(number as u64 * 1_000_000 / RATE as u64);
            tokio::time::sleep_until(began + due).await;
            sent.push(Instant::now());
            // Do not wait for the acknowledgement; the measurement ends with the row.
            drop(context.publish(subject, payload.into()).await?);
        }
        client.flush().await?;
        anyhow::Ok(sent)
    })?;
    let seen = seen
        .join()
        .map_err(|_| anyhow::anyhow!("the watching thread panicked"))??;
    let latencies = sent
        .iter()
        .zip(&seen)
        .map(|(sent, seen)| seen.duration_since(*sent).as_secs_f64() * 1_000.0);
    Ok(Latencies::new(latencies.collect()))
}

/// Samples the memory of the host and the response time of `/livez` ten times per second.
struct Watched {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<(f64, Latencies)>>,
}

impl Watched {
    fn start(host: &Host) -> Self {
        let (pid, address) = (host.pid(), host.url().trim_start_matches("http://").to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut peak, mut livez) = (0.0_f64, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                peak = peak.max(resident(pid)?.all);
                let began = Instant::now();
                let answer = ask(&address).context("/livez did not answer")?;
                livez.push(began.elapsed().as_secs_f64() * 1_000.0);
                anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "/livez answered {answer:?}");
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok((peak, Latencies::new(livez)))
        });
        Self { stop, thread }
    }

    fn stop(self) -> anyhow::Result<(f64, Latencies)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the sampling thread panicked"))?
    }
}

/// Sends GET /livez on a new connection.
fn ask(address: &str) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The clients of the stranger; they stop on drop.
struct Attack {
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Attack {
    fn start(address: &str, position: &str) -> anyhow::Result<Self> {
        let (address, position) = (address.to_owned(), position.to_owned());
        let (up, ready) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            // The threads that the runtime starts inherit the priority.
            rustix::process::setpriority_process(None, 19)?;
            runtime()?.block_on(async {
                for (path, clients, reads, holds) in requests(&position) {
                    for _ in 0..clients {
                        tokio::spawn(repeat(address.clone(), path.clone(), reads, holds));
                    }
                }
                // Give every client the time for its first request.
                tokio::time::sleep(Duration::from_secs(2)).await;
                up.send(())?;
                drop(stopped.await);
                anyhow::Ok(())
            })
        });
        ready.recv().context("the stranger did not come up")?;
        Ok(Self { _stop: stop })
    }
}

/// Returns the position of a tail, from which the stranger's tails catch up on each connection, and the number of messages
/// that it published for it.
async fn tail_position(address: &str, url: &str) -> anyhow::Result<(String, u64)> {
    let context = jetstream::new(async_nats::connect(url).await?);
    let mut published = 0;
    let tail = first_position(address);
    tokio::pin!(tail);
    loop {
        tokio::select! {
            position = &mut tail => return Ok((position?, published)),
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                let (subject, payload) = large(LARGE + published as usize);
                context.publish(subject, payload.into()).await?.await?;
                published += 1;
            }
        }
    }
}

async fn first_position(address: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /api/v1/tables/obs_events/tail HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut text, mut part) = (String::new(), vec![0; 4096]);
    loop {
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut part)).await??;
        text.push_str(&String::from_utf8_lossy(&part[..read]));
        let position = text
            .split_once("\nid:")
            .and_then(|(_, rest)| rest.split_once('\n'));
        if let Some((position, _)) = position {
            return Ok(position.trim().to_owned());
        }
        anyhow::ensure!(read > 0, "the tail ended: {text}");
    }
}

/// Request, number of clients, whether they read the response, and how long they keep the connection. An incomplete request is
/// marked by an empty path.
fn requests(position: &str) -> Vec<(String, usize, bool, Duration)> {
    let table = "/api/v1/tables/obs_events";
    let hostile = format!("payload!~{}b", "a".repeat(1_000));
    let filters = |count: usize| vec![format!("filter={hostile}"); count].join("&");
    let second = Duration::from_secs(1);
    vec![
        (format!("{table}/count?{}", filters(3)), 4, true, 15 * second),
        (
            format!("{table}/rows?filter=payload~absent&limit=1000"),
            4,
            true,
            15 * second,
        ),
        (
            format!("{table}/facets?columns=kind,source"),
            2,
            true,
            15 * second,
        ),
        (
            format!("{table}/tail?after={position}&{}", filters(10)),
            40,
            true,
            second,
        ),
        (
            format!("{table}/rows?filter=kind=large&limit=1000"),
            60,
            false,
            5 * second,
        ),
        (format!("{table}/export?format=jsonl"), 60, false, 5 * second),
        (String::new(), CONNECTIONS - 170, false, 3 * second),
    ]
}

/// Connects and sends the request again and again.
async fn repeat(address: String, path: String, reads: bool, holds: Duration) {
    loop {
        let _ = tokio::time::timeout(holds, request(&address, &path, reads)).await;
    }
}

async fn request(address: &str, path: &str, reads: bool) -> std::io::Result<()> {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        // The host does not accept more; do not spend the processor on retries.
        tokio::time::sleep(Duration::from_millis(50)).await;
        return Ok(());
    };
    let text = match path {
        "" => "GET /livez HTTP/1.1\r\nX".to_owned(),
        path => format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    };
    stream.write_all(text.as_bytes()).await?;
    let mut part = vec![0; 64 << 10];
    if !reads {
        std::future::pending::<()>().await;
    }
    while stream.read(&mut part).await? > 0 {}
    Ok(())
}
