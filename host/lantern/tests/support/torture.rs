//! Kills the host or the broker with SIGKILL repeatedly during publishing, then counts what arrived. Events carry no
//! id, so that no unique key hides a row that is stored twice.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;

use super::host::{Host, check, plugin_folder};
use super::nats::NatsServer;
use super::query::query;

/// The counts of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub published: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub problems: String,
}

/// Publishes events until it is stopped. Resends each event until the broker acknowledges it, with an id that lets the
/// broker drop duplicates, so each number is in the stream exactly once.
pub struct Publisher {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    pub fn start(url: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let published = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (stop, published) = (Arc::clone(&stop), Arc::clone(&published));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(publish(&url, &stop, &published));
            }
        });
        Self {
            stop,
            published,
            thread: Some(thread),
        }
    }

    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
        self.published()
    }
}

async fn publish(url: &str, stop: &AtomicBool, published: &AtomicU64) {
    const WINDOW: u64 = 64;
    let client = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .connect(url)
        .await
        .unwrap();
    let mut context = jetstream::new(client);
    context.set_timeout(Duration::from_millis(500));
    let mut next = 0;
    while !stop.load(Ordering::Acquire) {
        let mut waiting: Vec<u64> = (next..next + WINDOW).collect();
        while !waiting.is_empty() {
            let mut acks = Vec::new();
            for &number in &waiting {
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Msg-Id", number.to_string());
                let payload = format!(
                    r#"{{"pc_id":"pc","at":"2026-11-20T00:00:00Z","kind":"k","source":"s","payload":{{"n":{number}}}}}"#
                );
                acks.push((
                    number,
                    context
                        .publish_with_headers("obs.pc", headers, payload.into())
                        .await,
                ));
            }
            let mut again = Vec::new();
            for (number, ack) in acks {
                let stored = match ack {
                    Ok(ack) => ack.await.is_ok(),
                    Err(_) => false,
                };
                if !stored {
                    again.push(number);
                }
            }
            if !again.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            waiting = again;
        }
        next += WINDOW;
        published.store(next, Ordering::Release);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A seeded random number generator, good enough to choose points in time.
pub struct Moments(u64);

impl Moments {
    pub fn seeded() -> Self {
        let seed = std::env::var("LANTERN_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap()
                    .as_micros() as u64
                    | 1
            });
        println!("LANTERN_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn pause(&mut self, from_ms: u64, to_ms: u64) {
        std::thread::sleep(Duration::from_millis(from_ms + self.next() % (to_ms - from_ms)));
    }

    /// Returns a random bit.
    pub fn coin(&mut self) -> bool {
        // The low bits of this generator are its weakest.
        self.next() >> 63 == 1
    }
}

/// Kills the host `rounds` times.
pub fn kill_host(rounds: usize) -> Outcome {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let mut moments = Moments::seeded();
    Host::start(dir.path(), &server.url(), plugins.path()).wait(
        "a stream",
        Duration::from_secs(30),
        |host| host.projection("obs")["state"] == "running",
    );
    let publisher = Publisher::start(server.url());
    for _ in 0..rounds {
        let host = Host::start(dir.path(), &server.url(), plugins.path());
        moments.pause(50, 500);
        host.kill();
    }
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    settle(publisher, &host, dir.path())
}

/// Kills the host `rounds` times during a rebuild: the rebuild resumes after each start, and a new one starts when it
/// has ended. Returns what arrived, and the number of completed rebuilds.
pub fn kill_rebuilding(rounds: usize) -> (Outcome, u64) {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let mut moments = Moments::seeded();
    let publisher = Publisher::start(server.url());
    // Slow enough that most rebuilds are killed midway.
    let rebuild = |rate: u64| {
        Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args([
                "rebuild",
                "obs-events",
                "--detach",
                "--keep-old",
                "0",
                "--rate",
                &rate.to_string(),
                "--data-dir",
            ])
            .arg(dir.path())
            .output()
            .unwrap()
    };
    let running = |host: &Host| host.projection("obs")["state"] == "running";
    let rebuilding = |host: &Host| {
        let all = host.json("/api/v1/rebuilds");
        all.as_array()
            .unwrap()
            .iter()
            .any(|one| one["state"] == "running")
    };
    for round in 0..rounds {
        let host = Host::start(dir.path(), &server.url(), plugins.path());
        host.wait("a stream", Duration::from_secs(30), running);
        if !rebuilding(&host) {
            let begun = rebuild(5_000 + 5_000 * (round as u64 % 5));
            let errors = String::from_utf8_lossy(&begun.stderr);
            assert!(begun.status.success(), "{errors}");
        }
        moments.pause(50, 900);
        host.kill();
    }
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    host.wait("the last rebuild's end", Duration::from_secs(120), |host| {
        !rebuilding(host)
    });
    let mut outcome = settle(publisher, &host, dir.path());
    let left = query(
        dir.path(),
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND instr(name, '#')",
    );
    outcome.problems += &left.join(", ");
    let done = query(
        dir.path(),
        "SELECT count(*) FROM _lantern_rebuild WHERE state = 'done'",
    );
    (outcome, done[0].parse().unwrap())
}

/// Kills the broker `rounds` times.
pub fn kill_broker(rounds: usize) -> Outcome {
    // Use synchronized writes, so that the broker keeps what it confirmed. Losses without them are the broker's, not
    // Lantern's.
    let mut server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let mut moments = Moments::seeded();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    host.wait("a stream", Duration::from_secs(30), |host| {
        host.projection("obs")["state"] == "running"
    });
    let publisher = Publisher::start(server.url());
    for _ in 0..rounds {
        moments.pause(300, 900);
        server.kill();
        moments.pause(50, 600);
        server.restart();
    }
    settle(publisher, &host, dir.path())
}

/// Waits until everything published has arrived, and counts it.
pub fn settle(publisher: Publisher, host: &Host, dir: &Path) -> Outcome {
    let enough = publisher.published() + 200;
    while publisher.published() < enough {
        std::thread::sleep(Duration::from_millis(50));
    }
    let published = publisher.stop();
    host.wait("all rows", Duration::from_secs(60), |host| {
        host.projection("obs")["checkpoint"].as_u64().unwrap_or(0) >= published
    });
    let counts = query(
        dir,
        "SELECT count(*), count(DISTINCT json_extract(payload, '$.n')) FROM obs_events",
    );
    let mut counts = counts[0].split('|').map(|count| count.parse::<u64>().unwrap());
    let (rows, distinct) = (counts.next().unwrap(), counts.next().unwrap());
    let (code, text) = check(dir);
    Outcome {
        published,
        lost: published - distinct.min(published),
        duplicated: rows - distinct,
        problems: if code == 0 { String::new() } else { text },
    }
}
