//! A running host with the plugin `evolving`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use lantern_broker::{Broker, Link};
use lantern_lifecycle::{Lifecycle, LifecycleConfig, Parts};
use lantern_model::actor::Actor;
use lantern_model::status::Registry;
use lantern_plugin::{Compiler, Digest, Loader};
use lantern_projection as projection;
use lantern_store::Store;
use lantern_telemetry::Metrics;
use tokio_util::sync::CancellationToken;

use crate::evolving;
use crate::nats::NatsServer;

/// A host without API or dashboard.
pub struct Scene {
    pub server: NatsServer,
    pub dir: tempfile::TempDir,
    pub lifecycle: Lifecycle,
    pub broker: Broker,
    pub registry: Registry,
    pub stop: CancellationToken,
}

pub fn operator() -> Actor {
    Actor::parse("bench")
}

impl Scene {
    pub async fn start() -> anyhow::Result<Self> {
        let server = NatsServer::start();
        let stream = async_nats::jetstream::stream::Config {
            name: "EVOLVE".into(),
            subjects: vec!["evolve.>".into()],
            ..Default::default()
        };
        server.jetstream().await.create_stream(stream).await?;
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
            leases: None,
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

    pub async fn install(&self, letter: u8) -> anyhow::Result<Digest> {
        let installed = self
            .lifecycle
            .install(evolving::version(letter), &operator())
            .await?;
        Ok(installed.digest)
    }

    pub async fn activate(&self, digest: Digest) -> anyhow::Result<()> {
        self.lifecycle
            .activate("evolving", Some(digest), &operator())
            .await?;
        Ok(())
    }

    pub fn checkpoint(&self) -> u64 {
        let all = self.registry.snapshot();
        let evolve = all.iter().find(|status| status.source == "evolve");
        evolve.map_or(0, |status| status.checkpoint)
    }

    pub async fn reach(&self, sequence: u64) -> anyhow::Result<()> {
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

    pub fn query(&self, sql: &str) -> anyhow::Result<Vec<i64>> {
        let connection = rusqlite::Connection::open(self.dir.path().join(lantern_store::DATABASE_FILE))?;
        connection.busy_timeout(Duration::from_secs(10))?;
        let mut statement = connection.prepare(sql)?;
        let width = statement.column_count();
        Ok(statement.query_row([], |row| (0..width).map(|column| row.get(column)).collect())?)
    }

    pub async fn end(self) {
        self.lifecycle.stop().await;
        self.stop.cancel();
        self.broker.stop().await;
    }
}
