//! Tests installing, changing and removing plugins in a running host, against a real broker and a real database:
//! nothing is lost or duplicated, and the ledger records the version of each range.

#![allow(clippy::too_many_lines, reason = "a scenario is one sequence of steps")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    reason = "clippy.toml allows them in tests, but clippy does not take a test's helpers for tests"
)]

#[path = "support/described.rs"]
mod described;
#[path = "support/evolving.rs"]
mod evolving;
#[path = "support/nats.rs"]
mod nats;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/query.rs"]
mod query;
#[path = "support/scripted.rs"]
mod scripted;

#[path = "lifecycle/canary.rs"]
mod canary;
#[path = "lifecycle/consumers.rs"]
mod consumers;
#[path = "lifecycle/deep.rs"]
mod deep;
#[path = "lifecycle/directory.rs"]
mod directory;
#[path = "lifecycle/executions.rs"]
mod executions;
#[path = "lifecycle/forget.rs"]
mod forget;
#[path = "lifecycle/health_gate.rs"]
mod health_gate;
#[path = "lifecycle/interrupts.rs"]
mod interrupts;
#[path = "lifecycle/owners.rs"]
mod owners;
#[path = "lifecycle/portability.rs"]
mod portability;
#[path = "lifecycle/rebuild.rs"]
mod rebuild;
#[path = "lifecycle/rebuild_loss.rs"]
mod rebuild_loss;
#[path = "lifecycle/rebuild_plugins.rs"]
mod rebuild_plugins;
#[path = "lifecycle/rebuild_property.rs"]
mod rebuild_property;
#[path = "lifecycle/rebuild_rollback.rs"]
mod rebuild_rollback;
#[path = "lifecycle/rebuild_schemas.rs"]
mod rebuild_schemas;
#[path = "lifecycle/signatures.rs"]
mod signatures;
#[path = "lifecycle/swap.rs"]
mod swap;
#[path = "lifecycle/trace.rs"]
mod trace;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern_broker::{Broker, Link};
use lantern_lifecycle::{
    InstallError, Installed, Lifecycle, LifecycleConfig, LifecycleError, Parts, Removal,
};
use lantern_model::actor::Actor;
use lantern_model::results::plugins::{PluginSummary, VersionState};
use lantern_model::results::rebuild::RebuildState;
use lantern_model::results::row::RowView;
use lantern_model::status::{ProjectionState, Registry, Status};
use lantern_plugin::{Compiler, Loader};
use lantern_projection as projection;
use lantern_store::{OpenDeadLetterFilter, Store};
use lantern_telemetry::Metrics;
use lantern_trust::signature::Policy;
use nats::NatsServer;
use query::query;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// Longer than any operation takes on a busy machine with two cores.
const LIMIT: Duration = Duration::from_secs(60);

/// A host without API or dashboard, with its own broker.
struct Scene {
    server: NatsServer,
    dir: tempfile::TempDir,
    plugin_dir: tempfile::TempDir,
    /// The address of the database, if it is at a server.
    database: Option<String>,
    /// The signature policy at the next [`Scene::open`].
    signatures: Policy,
    running: Option<Running>,
}

struct Running {
    lifecycle: Lifecycle,
    store: Arc<Store>,
    broker: Broker,
    loader: Arc<Loader>,
    registry: Registry,
    stop: CancellationToken,
}

fn operator() -> Actor {
    Actor::parse("operator")
}

impl Scene {
    /// Starts with an empty plugin directory and the streams of the evolving plugin.
    async fn start() -> Self {
        let server = NatsServer::start();
        let context = server.jetstream().await;
        for (name, subject) in [("EVOLVE", "evolve.>"), ("EVOLVE_MORE", "more.>")] {
            context
                .create_stream(crate::nats::stream(name, subject))
                .await
                .unwrap();
        }
        let mut scene = Self {
            server,
            dir: tempfile::tempdir().unwrap(),
            plugin_dir: tempfile::tempdir().unwrap(),
            database: postgres::new_database().await,
            signatures: Policy::default(),
            running: None,
        };
        scene.open().await;
        scene
    }

    async fn open(&mut self) {
        let config = lantern_store::StoreConfig {
            server: self.database.as_ref().map(|address| address.parse().unwrap()),
            ..lantern_store::StoreConfig::new(self.dir.path())
        };
        let store = Arc::new(Store::open(config).await.unwrap());
        let owner = store.fact("instance", || "test".to_owned()).await.unwrap();
        let broker = Broker::connect(lantern_broker::BrokerConfig::remote(self.server.url()))
            .await
            .unwrap();
        broker.link().wait_for(Link::is_connected).await.unwrap();
        let registry = Registry::default();
        let loader = Loader::new(
            lantern_plugin::EngineConfig {
                cache_dir: Some(self.dir.path().join("cache")),
                ..lantern_plugin::EngineConfig::new(Compiler::InProcess)
            },
            [7; 32],
        )
        .unwrap();
        let (stop, loader) = (CancellationToken::new(), Arc::new(loader));
        let parts = Parts {
            leases: None,
            config: LifecycleConfig {
                components_dir: self.dir.path().join("components"),
                plugin_dir: self.plugin_dir.path().to_owned(),
                signatures: self.signatures.clone(),
                projections: projection::ProjectionConfig {
                    messages_max: 1_000,
                    bytes_max: 1 << 20,
                    create_streams: false,
                    consumer_prefix: "lantern".to_owned(),
                    confirm_after: Duration::from_secs(10),
                    dead_letters_max: 10_000,
                    owner,
                },
            },
            broker: broker.clone(),
            store: Arc::clone(&store),
            loader: Arc::clone(&loader),
            registry: registry.clone(),
            metrics: Metrics::new(registry.clone(), store.path()),
        };
        let lifecycle = Lifecycle::start(parts, stop.child_token()).await.unwrap();
        self.running = Some(Running {
            lifecycle,
            store,
            broker,
            loader,
            registry,
            stop,
        });
    }

    /// Stops gracefully; [`Scene::open`] starts again from the same directories.
    async fn close(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        running.lifecycle.stop().await;
        running.stop.cancel();
        running.broker.stop().await;
        let Running { lifecycle, store, .. } = running;
        drop(lifecycle);
        let deadline = Instant::now() + LIMIT;
        let mut store = store;
        let store = loop {
            match Arc::try_unwrap(store) {
                Ok(store) => break store,
                Err(shared) => {
                    assert!(Instant::now() < deadline, "the store is still in use");
                    store = shared;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        store.close().await;
    }

    fn lifecycle(&self) -> &Lifecycle {
        &self.running.as_ref().unwrap().lifecycle
    }

    fn store(&self) -> &Store {
        &self.running.as_ref().unwrap().store
    }

    /// Installs and activates the version with this letter.
    async fn swap(&self, letter: u8) -> Result<Installed, LifecycleError> {
        let installed = self
            .lifecycle()
            .install(evolving::version(letter), &operator())
            .await?;
        self.lifecycle()
            .activate("evolving", Some(installed.digest), &operator())
            .await
    }

    /// A host whose version with this letter has projected the messages 1 to `count`.
    async fn running(letter: u8, count: u64) -> Self {
        let scene = Self::start().await;
        scene.swap(letter).await.unwrap();
        scene.project(1..=count).await;
        scene
    }

    /// Publishes numbers, and waits until the host has projected them; the numbers are the sequences.
    async fn project(&self, numbers: RangeInclusive<u64>) {
        let last = *numbers.end();
        self.publish(numbers).await;
        self.wait_for_checkpoint(last).await;
    }

    async fn show(&self) -> PluginSummary {
        self.lifecycle().show("evolving").await.unwrap()
    }

    async fn pause(&self, reason: &str) {
        let (lifecycle, by) = (self.lifecycle(), operator());
        lifecycle.pause("evolving", reason, &by).await.unwrap();
    }

    async fn resume(&self) {
        self.lifecycle().resume("evolving", &operator()).await.unwrap();
    }

    async fn rollback(&self) -> Installed {
        self.lifecycle().rollback("evolving", &operator()).await.unwrap()
    }

    async fn remove(&self, drop_tables: bool) -> Removal {
        let (lifecycle, by) = (self.lifecycle(), operator());
        lifecycle.remove("evolving", drop_tables, &by).await.unwrap()
    }

    async fn discard(&self, filter: OpenDeadLetterFilter) -> u64 {
        let (lifecycle, by) = (self.lifecycle(), operator());
        lifecycle.discard_dead_letters(filter, &by).await.unwrap()
    }

    fn status(&self, source: &str) -> Option<Status> {
        let all = self.running.as_ref().unwrap().registry.snapshot();
        all.into_iter().find(|status| status.source == source)
    }

    /// Publishes to `evolve.x` and waits until the broker has stored every message.
    async fn publish<T: ToString>(&self, messages: impl IntoIterator<Item = T>) {
        self.publish_to("evolve.x", messages).await;
    }

    async fn publish_to<T: ToString>(&self, subject: &str, messages: impl IntoIterator<Item = T>) {
        let context = self.server.jetstream().await;
        let mut acks = Vec::new();
        for message in messages {
            let ack = context
                .publish(subject.to_owned(), message.to_string().into())
                .await
                .unwrap();
            acks.push(ack);
            if acks.len() == 200 {
                for ack in acks.drain(..) {
                    ack.await.unwrap();
                }
            }
        }
        for ack in acks {
            ack.await.unwrap();
        }
    }

    async fn wait(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !condition(self) {
            assert!(
                Instant::now() < deadline,
                "not within {LIMIT:?}: {what}; {:?}",
                self.running.as_ref().unwrap().registry.snapshot()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn wait_for_no_failure(&self) {
        self.wait("no load failure", |scene| {
            scene.lifecycle().load_failures().is_empty()
        })
        .await;
    }

    /// Waits until a query returns one row with this text.
    async fn wait_for_result(&self, what: &str, sql: &str, row: &str) {
        self.wait(what, |scene| scene.query(sql) == [row]).await;
    }

    /// Waits until the plugin directory was scanned completely as many more times. A scan that is running does not
    /// count, because it may have passed a file that was just placed.
    async fn wait_for_scans(&self, count: u64) {
        let mut scans = self.lifecycle().directory_scans();
        let target = *scans.borrow() + 1 + count;
        let scanned = scans.wait_for(|scans| *scans >= target);
        let scanned = tokio::time::timeout(LIMIT, scanned).await;
        scanned.expect("the plugin directory is not scanned").unwrap();
    }

    /// Waits until no retry, health gate or rebuild runs.
    async fn wait_until_quiet(&self) {
        self.wait("no background task", |scene| {
            scene.lifecycle().background_tasks() == 0
        })
        .await;
    }

    async fn wait_for_checkpoint(&self, sequence: u64) {
        self.wait(&format!("checkpoint {sequence}"), |scene| {
            scene
                .status("evolve")
                .is_some_and(|status| status.checkpoint >= sequence)
        })
        .await;
    }

    async fn wait_for_state(&self, state: ProjectionState) {
        self.wait(&format!("{state:?}"), |scene| {
            scene.status("evolve").is_some_and(|status| status.state == state)
        })
        .await;
    }

    /// A host with the streams and the active plugin `executions`.
    async fn with_executions() -> Self {
        let scene = Self::start().await;
        let context = scene.server.jetstream().await;
        for (name, subject) in [("EVENTS", "events.>"), ("RESULTS", "results.>")] {
            context
                .create_stream(crate::nats::stream(name, subject))
                .await
                .unwrap();
        }
        let lifecycle = scene.lifecycle();
        let component = evolving::build("executions");
        let installed = lifecycle.install(component, &operator()).await.unwrap();
        lifecycle
            .activate("executions", Some(installed.digest), &operator())
            .await
            .unwrap();
        scene
    }

    fn query(&self, sql: &str) -> Vec<String> {
        match &self.database {
            Some(address) => postgres::query(address, sql),
            None => query(self.dir.path(), sql),
        }
    }

    #[track_caller]
    fn sound(&self) {
        let report = match &self.database {
            Some(address) => postgres::check(address),
            None => lantern_store::check::check(&self.dir.path().join(lantern_store::DATABASE_FILE)).unwrap(),
        };
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
}

/// Asserts that an API response matches its schema in the document.
fn described(name: &str, answer: &impl Serialize) {
    described::Described::kept().is(name, &serde_json::to_value(answer).unwrap());
}

/// Returns a column of a row.
fn column(row: &RowView, name: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(row.json()).unwrap()[name].clone()
}
