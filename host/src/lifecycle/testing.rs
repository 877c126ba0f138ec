//! For unit tests of the faces: a lifecycle with nothing in it, whose broker never comes.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Config, Lifecycle, Parts};
use crate::broker::{self, Broker};
use crate::plugin::{self, Compiler, Loader};
use crate::projection;
use crate::signature::Policy;
use crate::status::Registry;
use crate::store::Store;
use crate::telemetry::Metrics;

/// Keeps its components below `dir`.
pub async fn idle(dir: &Path, store: Arc<Store>) -> Lifecycle {
    let plugin_dir = dir.join("plugins");
    std::fs::create_dir_all(&plugin_dir).unwrap();
    let registry = Registry::default();
    let metrics = Metrics::new(registry.clone(), store.path());
    let parts = Parts {
        config: Config {
            components_dir: dir.join("components"),
            plugin_dir,
            signatures: Policy::default(),
            projections: projection::Config {
                messages_max: 1_000,
                bytes_max: 1 << 20,
                create_streams: false,
                consumer_prefix: "lantern".to_owned(),
                confirm_after: std::time::Duration::from_secs(10),
                dead_letters_max: 10_000,
                owner: "test".to_owned(),
            },
        },
        broker: Broker::connect(broker::Config::remote("nats://127.0.0.1:1"))
            .await
            .unwrap(),
        store,
        loader: Arc::new(Loader::new(plugin::Config::new(Compiler::InProcess), [7; 32]).unwrap()),
        registry,
        metrics,
    };
    Lifecycle::start(parts, CancellationToken::new()).await.unwrap()
}
