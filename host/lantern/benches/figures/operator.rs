//! Measures the cost of operator actions to a host under load: version swaps, and a rebuild during live ingestion. Runs
//! in one process, with its own broker and the test plugin that has many versions.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lantern_broker::{Broker, Link};
use lantern_lifecycle::{Lifecycle, LifecycleConfig, Parts, RebuildRequest};
use lantern_model::actor::Actor;
use lantern_model::status::Registry;
use lantern_plugin::{Compiler, Digest, Loader};
use lantern_projection as projection;
use lantern_store::Store;
use lantern_telemetry::Metrics;
use tokio_util::sync::CancellationToken;

use crate::events::runtime;
use crate::evolving;
use crate::nats::NatsServer;

/// A host without API or dashboard.
struct Scene {
    server: NatsServer,
    dir: tempfile::TempDir,
    lifecycle: Lifecycle,
    broker: Broker,
    registry: Registry,
    stop: CancellationToken,
}

fn operator() -> Actor {
    Actor::parse("bench")
}

impl Scene {
    async fn start() -> anyhow::Result<Self> {
        let server = NatsServer::start();
        let context = server.jetstream().await;
        context
            .create_stream(async_nats::jetstream::stream::Config {
                name: "EVOLVE".into(),
                subjects: vec!["evolve.>".into()],
                ..Default::default()
            })
            .await?;
        let dir = tempfile::tempdir()?;
        // A small page cache that the warm-up fills. The database grows with each message; a larger cache would grow
        // with it and distort the memory figures.
        let store = lantern_store::StoreConfig {
            cache_bytes: 1 << 20,
            ..lantern_store::StoreConfig::new(dir.path())
        };
        let store = Arc::new(Store::open(store).await?);
        let broker = Broker::connect(lantern_broker::BrokerConfig::remote(server.url())).await?;
        broker.link().wait_for(Link::is_connected).await?;
        let registry = Registry::default();
        let loader = Loader::new(
            lantern_plugin::EngineConfig {
                cache_dir: Some(dir.path().join("cache")),
                ..lantern_plugin::EngineConfig::new(Compiler::InProcess)
            },
            [0; 32],
        )?;
        let plugin_dir = dir.path().join("plugins");
        std::fs::create_dir(&plugin_dir)?;
        let stop = CancellationToken::new();
        let parts = Parts {
            config: LifecycleConfig {
                components_dir: dir.path().join("components"),
                plugin_dir,
                signatures: lantern_trust::signature::Policy::default(),
                projections: projection::ProjectionConfig {
                    messages_max: 16_384,
                    bytes_max: 8 << 20,
                    create_streams: false,
                    consumer_prefix: "lantern".to_owned(),
                    confirm_after: std::time::Duration::from_secs(10),
                    dead_letters_max: 10_000,
                    owner: dir.path().display().to_string(),
                },
            },
            broker: broker.clone(),
            store: Arc::clone(&store),
            loader: Arc::new(loader),
            registry: registry.clone(),
            metrics: Metrics::new(registry.clone(), store.path()),
        };
        let lifecycle = Lifecycle::start(parts, stop.child_token()).await?;
        Ok(Self {
            server,
            dir,
            lifecycle,
            broker,
            registry,
            stop,
        })
    }

    async fn install(&self, letter: u8) -> anyhow::Result<Digest> {
        let installed = self
            .lifecycle
            .install(evolving::version(letter), &operator())
            .await?;
        Ok(installed.digest)
    }

    async fn activate(&self, digest: Digest) -> anyhow::Result<()> {
        self.lifecycle
            .activate("evolving", Some(digest), &operator())
            .await?;
        Ok(())
    }

    fn checkpoint(&self) -> u64 {
        let all = self.registry.snapshot();
        let evolve = all.iter().find(|status| status.source == "evolve");
        evolve.map_or(0, |status| status.checkpoint)
    }

    async fn reach(&self, sequence: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.checkpoint() < sequence {
            if Instant::now() > deadline {
                bail!(
                    "checkpoint {} of {sequence}: {:?}",
                    self.checkpoint(),
                    self.registry.snapshot()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn query(&self, sql: &str) -> anyhow::Result<Vec<i64>> {
        let connection = rusqlite::Connection::open(self.dir.path().join(lantern_store::DATABASE_FILE))?;
        connection.busy_timeout(Duration::from_secs(10))?;
        let mut statement = connection.prepare(sql)?;
        let width = statement.column_count();
        Ok(statement.query_row([], |row| (0..width).map(|column| row.get(column)).collect())?)
    }

    async fn end(self) {
        self.lifecycle.stop().await;
        self.stop.cancel();
        self.broker.stop().await;
    }
}

/// Publishes numbers at a fixed rate and measures the time until each is in the database.
struct Load {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    sent: Arc<Mutex<VecDeque<(u64, Instant)>>>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Load {
    /// `first` is the number and the sequence of the first message.
    async fn start(server: &NatsServer, rate: u64, first: u64) -> Self {
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

    async fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.published.load(Ordering::Relaxed))
    }
}

/// Latencies, and the longest time between two commits.
struct Seen {
    /// Histogram of latencies in steps of ten microseconds; the last bucket counts all slower messages. A list would
    /// grow with each message and look like a memory leak of the host.
    counts: Vec<u32>,
    longest_pause: Duration,
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
    fn percentile(&self, hundredths: u64) -> f64 {
        let all: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += u64::from(*count);
            below * 100 > all * hundredths
        });
        at.unwrap_or(0) as f64 / 100.0
    }
}

fn print_both(before: &Seen, during: &Seen) {
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
async fn watch<T>(
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

/// Returns resident memory in MiB, open files and threads of this process.
fn resources() -> anyhow::Result<(f64, usize, usize)> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split_whitespace().nth(1).context("statm")?.parse()?;
    let count = |path: &str| anyhow::Ok(std::fs::read_dir(Path::new(path))?.count());
    Ok((
        pages * 4096.0 / 1_048_576.0,
        count("/proc/self/fd")?,
        count("/proc/self/task")?,
    ))
}

/// Swaps between two versions under a load of 5,000 messages per second.
pub fn swaps(swaps: usize) -> anyhow::Result<()> {
    const RATE: u64 = 5_000;
    runtime()?.block_on(async {
        let scene = Scene::start().await?;
        let versions = [scene.install(b'a').await?, scene.install(b'i').await?];
        scene.activate(versions[0]).await?;
        let load = Load::start(&scene.server, RATE, 1).await;
        let swap = async |count: usize| {
            for round in 1..=count {
                scene.activate(versions[round % 2]).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        let warm_up = swaps / 4;
        let (_, ()) = watch(&scene, &load, swap(warm_up)).await?;
        let before = resources()?;
        let (seen, ()) = watch(&scene, &load, swap(swaps)).await?;
        let after = resources()?;
        let published = load.end().await?;
        scene.reach(published).await?;
        let rows = scene.query("SELECT count(*), count(DISTINCT n) FROM evolved")?;
        // Join by range; a ledger lookup for each row would take longer than the swaps.
        let astray = scene.query(
            "SELECT coalesce(sum((SELECT count(*) FROM evolved e
                 WHERE e._origin = l.origin AND e._sequence BETWEEN l.first_sequence AND l.last_sequence
                 AND e.note <> CASE p.version WHEN '1.0.0' THEN 'a' ELSE 'i' END)), 0), sum(l.rows), count(*)
             FROM _lantern_ledger l JOIN _lantern_plugin p ON p.id = l.plugin_version",
        )?;
        println!("swaps: {swaps} between two versions at {RATE} messages/s, {published} messages");
        println!(
            "  lost {}, duplicated {}; the ledger has {} ranges with {} rows, {} of them made by the other version",
            published as i64 - rows[1],
            rows[0] - rows[1],
            astray[2],
            astray[1],
            astray[0]
        );
        println!(
            "  longest pause between commits {:.1} ms, publish to commit p50 {:.2} ms, p99 {:.2} ms",
            seen.longest_pause.as_secs_f64() * 1e3,
            seen.percentile(50),
            seen.percentile(99)
        );
        println!(
            "  after {} swaps and after {} more: {:.1} and {:.1} MiB resident ({:+.1} %), {} and {} files, {} and {} threads",
            warm_up,
            swaps,
            before.0,
            after.0,
            (after.0 / before.0 - 1.0) * 100.0,
            before.1,
            after.1,
            before.2,
            after.2
        );
        scene.end().await;
        Ok(())
    })
}

/// Measures how misbehaving guests affect the commits of a well-behaved plugin at 2,000 messages per second.
pub fn hostile() -> anyhow::Result<()> {
    const RATE: u64 = 2_000;
    const WORDS: [&str; 9] = [
        "loop",
        "recurse",
        "grow",
        "copy",
        "trap",
        "too-many-rows",
        "huge-text",
        "log-flood",
        "deep-json",
    ];
    runtime()?.block_on(async {
        let scene = Scene::start().await?;
        let context = scene.server.jetstream().await;
        context
            .create_stream(async_nats::jetstream::stream::Config {
                name: "EVIL".into(),
                subjects: vec!["evil.>".into()],
                ..Default::default()
            })
            .await?;
        let version = scene.install(b'a').await?;
        scene.activate(version).await?;
        let misbehaving = evolving::build("misbehaving");
        let load = Load::start(&scene.server, RATE, 1).await;
        let rest = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(())
        };
        let (before, ()) = watch(&scene, &load, rest).await?;
        let evil = async {
            let mut refused = 0;
            for bytes in [
                Vec::new(),
                b"junk".to_vec(),
                misbehaving[..misbehaving.len() / 2].to_vec(),
                misbehaving[..8].to_vec(),
            ] {
                refused += usize::from(scene.lifecycle.install(bytes, &operator()).await.is_err());
            }
            let installed = scene.lifecycle.install(misbehaving.clone(), &operator()).await?;
            scene
                .lifecycle
                .activate("misbehaving", Some(installed.digest), &operator())
                .await?;
            for word in WORDS {
                context.publish("evil.x", word.into()).await?.await?;
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            let handled = || {
                let all = scene.registry.snapshot();
                all.iter()
                    .any(|status| status.source == "evil" && status.checkpoint == WORDS.len() as u64)
            };
            while !handled() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok((refused, handled()))
        };
        let (during, (refused, handled)) = watch(&scene, &load, evil).await?;
        let published = load.end().await?;
        scene.reach(published).await?;
        let dead = scene.query("SELECT count(*) FROM _lantern_dead_letter")?;
        println!("hostile guests beside a plugin at {RATE} messages/s");
        println!(
            "  {refused} of 4 files refused; {} evil messages {}, {} of them dead letters",
            WORDS.len(),
            if handled { "handled" } else { "NOT ALL HANDLED" },
            dead[0]
        );
        print_both(&before, &during);
        scene.end().await;
        Ok(())
    })
}

/// Rebuilds `rows` rows while 2,000 messages per second arrive.
pub fn rebuild(rows: u64) -> anyhow::Result<()> {
    const RATE: u64 = 2_000;
    runtime()?.block_on(async {
        let scene = Scene::start().await?;
        let version = scene.install(b'a').await?;
        scene.activate(version).await?;
        let context = scene.server.jetstream().await;
        let mut acks = VecDeque::new();
        for number in 1..=rows {
            acks.push_back(context.publish("evolve.x", number.to_string().into()).await?);
            if acks.len() > 1_000
                && let Some(ack) = acks.pop_front()
            {
                ack.await?;
            }
        }
        for ack in acks {
            ack.await?;
        }
        scene.reach(rows).await?;
        let load = Load::start(&scene.server, RATE, rows + 1).await;
        let rest = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(())
        };
        let (before, ()) = watch(&scene, &load, rest).await?;
        let digest_of =
            "SELECT count(*), sum(n * 31 + _sequence), min(_sequence = n) FROM evolved WHERE n <= ";
        let dump = scene.query(&format!("{digest_of}{rows}"))?;
        let began = Instant::now();
        let rebuild = async {
            let id = scene
                .lifecycle
                .rebuild("evolving", RebuildRequest::default(), &operator())
                .await?;
            loop {
                let all = scene.lifecycle.rebuilds().await?;
                let view = all
                    .into_iter()
                    .find(|view| view.id == id)
                    .context("the rebuild")?;
                match view.state.as_str() {
                    "running" => tokio::time::sleep(Duration::from_millis(50)).await,
                    "done" => return Ok(()),
                    other => bail!("the rebuild is {other}: {view:?}"),
                }
            }
        };
        let (during, ()) = watch(&scene, &load, rebuild).await?;
        let took = began.elapsed().as_secs_f64();
        let published = load.end().await?;
        scene.reach(published).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let equal = scene.query(&format!("{digest_of}{rows}"))? == dump;
        let all = scene.query("SELECT count(*), count(DISTINCT n) FROM evolved")?;
        println!("rebuild: {rows} rows while {RATE} messages/s come in");
        println!(
            "  {:.0} rows/s in {took:.1} s, the rows from before are {}, lost {}, duplicated {}",
            rows as f64 / took,
            if equal { "equal" } else { "DIFFERENT" },
            published as i64 - all[1],
            all[0] - all[1]
        );
        print_both(&before, &during);
        scene.end().await;
        Ok(())
    })
}
