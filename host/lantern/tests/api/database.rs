//! Shared fixtures: a database as the host creates it, with the table of one plugin, and the API over it.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lantern_broker::Broker;
use lantern_http::{Access, Check, Live, State};
use lantern_lifecycle::{Lifecycle, Parts};
use lantern_model::batch::Timestamp;
use lantern_model::status::{self, Registry, Status};
use lantern_plugin::{Compiler, Loader};
use lantern_projection as projection;
use lantern_store::{Reader, Store};
use lantern_telemetry::Metrics;
use lantern_trust::signature::Policy;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

/// A data directory with a database, as the host leaves it.
pub struct Database {
    pub dir: tempfile::TempDir,
    pub path: PathBuf,
    /// The signature policy of [`Database::state_at`].
    pub signatures: Policy,
    store: OnceCell<Arc<Store>>,
}

/// The table that [`Database::new`] creates has one column of each type.
const DESCRIPTION: &str = r#"{
  "doc": "Things.", "primary_key": ["id"], "indexes": [{"columns": ["at"], "unique": false}],
  "retention_days": 30, "hints": {"title": "Things"},
  "columns": [
    {"name": "id", "type": "integer", "nullable": false, "role": null, "unit": null, "doc": "", "hints": {}},
    {"name": "at", "type": "timestamp", "nullable": true, "role": "time", "unit": null, "doc": "", "hints": {}},
    {"name": "ok", "type": "boolean", "nullable": true, "role": "facet", "unit": null, "doc": "", "hints": {}},
    {"name": "used", "type": "real", "nullable": true, "role": "measure", "unit": "By", "doc": "", "hints": {}},
    {"name": "order", "type": "text", "nullable": true, "role": null, "unit": null, "doc": "", "hints": {}},
    {"name": "body", "type": "blob", "nullable": true, "role": null, "unit": null, "doc": "", "hints": {}},
    {"name": "extra", "type": "json", "nullable": true, "role": null, "unit": null, "doc": "", "hints": {}}
  ]}"#;

impl Database {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lantern.db");
        make(dir.path());
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE things (
                     id INTEGER NOT NULL, at INTEGER, ok INTEGER, used REAL, \"order\" TEXT, body BLOB, extra TEXT,
                     _origin INTEGER NOT NULL, _sequence INTEGER NOT NULL, _row INTEGER NOT NULL,
                     PRIMARY KEY (id)
                 ) STRICT;
                 INSERT INTO _lantern_plugin (id, name, version, digest, contract, loaded_at)
                     VALUES (1, 'things', '0.1.0', 'sha256:aa', '0.1.0', 0);
                 INSERT INTO _lantern_origin (id, plugin, source, epoch, stream, stream_created_ns, begins_after,
                     reason, began_at) VALUES (1, 'things', 'events', 1, 'THINGS', 5, 0, 'first start', 0);
                 INSERT INTO _lantern_origin (id, plugin, source, epoch, stream, stream_created_ns, begins_after,
                     reason, began_at) VALUES (2, 'other', 'input', 3, NULL, NULL, 0, 'restored', 0);",
            )
            .unwrap();
        connection
            .execute(
                "INSERT INTO _lantern_table (name, plugin, description, updates) VALUES ('things', 'things', ?1, 0)",
                [DESCRIPTION],
            )
            .unwrap();
        Self {
            dir,
            path,
            signatures: Policy::default(),
            store: OnceCell::new(),
        }
    }

    /// Opens a writable connection.
    pub fn writer(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(&self.path).unwrap();
        connection
            .busy_timeout(std::time::Duration::from_secs(10))
            .unwrap();
        connection
    }

    /// Returns the API's state over this database, with a healthy host and no projections.
    pub async fn state(&self) -> State {
        self.state_at(lantern_http::Config::loopback()).await
    }

    /// Like [`Database::state`], for a host that listens on another address.
    pub async fn state_at(&self, config: lantern_http::Config) -> State {
        let projections = Registry::default();
        let reader = Reader::open(&self.path).await.unwrap();
        let store = self
            .store
            .get_or_init(async || Arc::new(open(self.dir.path()).await));
        let store = Arc::clone(store.await);
        let metrics = Metrics::new(projections.clone(), Some(&self.path));
        State {
            live: Live::start(
                reader.clone(),
                store.commits(),
                projections.clone(),
                CancellationToken::new(),
            ),
            projections: projections.clone(),
            access: Access::open(Arc::clone(&store), &reader, config).await.unwrap(),
            reader,
            health: Arc::new(|| vec![check("broker", true), check("database", true)]),
            metrics: metrics.clone(),
            lifecycle: self.lifecycle(store, projections, metrics).await,
            identity: lantern_trust::identity::Identity::new([7; 32], "http://127.0.0.1:7070"),
            started: Timestamp(1_700_000_000_000_000),
        }
    }

    /// Commits a change through the store, so that tails read rows that a test inserted directly.
    pub async fn wake(&self) {
        if let Some(store) = self.store.get() {
            // The store saves a fact only once, and a call without changes is not a commit.
            let forget = "DELETE FROM _lantern_host WHERE key = 'woken'";
            self.writer().execute(forget, []).unwrap();
            store.fact("woken", String::new).await.unwrap();
        }
    }

    /// Creates a lifecycle over this database whose plugins can be installed and swapped; their projections wait for a
    /// broker that never connects.
    async fn lifecycle(&self, store: Arc<Store>, registry: Registry, metrics: Metrics) -> Lifecycle {
        let plugin_dir = self.dir.path().join("plugins");
        std::fs::create_dir_all(&plugin_dir).unwrap();
        let plugin = lantern_plugin::EngineConfig {
            cache_dir: Some(self.dir.path().join("cache")),
            ..lantern_plugin::EngineConfig::new(Compiler::InProcess)
        };
        let parts = Parts {
            leases: None,
            config: lantern_lifecycle::LifecycleConfig {
                components_dir: self.dir.path().join("components"),
                plugin_dir,
                signatures: self.signatures.clone(),
                projections: projection::ProjectionConfig {
                    messages_max: 1_000,
                    bytes_max: 1 << 20,
                    create_streams: false,
                    consumer_prefix: "lantern".to_owned(),
                    confirm_after: std::time::Duration::from_secs(10),
                    dead_letters_max: 10_000,
                    owner: "test".to_owned(),
                },
            },
            broker: Broker::connect(lantern_broker::BrokerConfig::remote("nats://127.0.0.1:1"))
                .await
                .unwrap(),
            store,
            loader: Arc::new(Loader::new(plugin, [7; 32]).unwrap()),
            registry,
            metrics,
        };
        Lifecycle::start(parts, CancellationToken::new()).await.unwrap()
    }
}

async fn open(dir: &Path) -> Store {
    let config = lantern_store::StoreConfig {
        reserve_bytes: 0,
        ..lantern_store::StoreConfig::new(dir)
    };
    Store::open(config).await.unwrap()
}

/// Creates the host's own tables. Runs on a separate thread because the tests are already asynchronous.
fn make(dir: &Path) {
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async { open(dir).await.close().await });
        });
        made.join().unwrap();
    });
}

pub fn check(name: &str, ok: bool) -> Check {
    Check {
        name: name.into(),
        ok,
        detail: "as the test says".into(),
    }
}

/// Returns the status of a running projection.
pub fn running() -> Status {
    Status {
        node: None,
        plugin: "things".into(),
        version: "0.1.0".into(),
        digest: "sha256:aa".into(),
        source: "events".into(),
        stream: Some("THINGS".into()),
        state: status::ProjectionState::Running,
        state_since_ms: 0,
        paused: None,
        epoch: 1,
        checkpoint: 10,
        last_sequence: Some(12),
        lag: Some(2),
        messages: 10,
        rows: 9,
        inserted: 7,
        updated: 1,
        present: 1,
        dead_letters: 1,
        missing: 0,
        last_error: None,
        last_error_at_ms: None,
        stalled_since_ms: None,
        warnings: Vec::new(),
        replicas: Vec::new(),
    }
}

/// Adds a projection; the returned sender changes its status.
pub fn add(projections: &Registry, status: Status) -> watch::Sender<Status> {
    let (sender, receiver) = watch::channel(status);
    projections.add(receiver);
    sender
}
