//! The projection itself, in this process: from a filled stream to committed rows, with the plugin as a component or as
//! native code.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lantern_broker::{Broker, Link};
use lantern_model::status::Registry;
use lantern_plugin::{Limits, Plugin, Projector};
use lantern_projection::{DesiredState, LoadedVersion, Placement, Projection, ProjectionConfig, Purpose};
use lantern_store::{Server, Store, StoreConfig};
use lantern_telemetry::Metrics;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cpu::CpuTimes;
use crate::events::runtime;
use crate::native::{Guest, plugin};
use crate::nats::NatsServer;
use crate::raw::Run;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    Wasm,
    Native,
}

/// Measures until the checkpoint reaches the last of `count` messages. The tables are in a file, or in a database of a
/// PostgreSQL server.
pub fn run(
    server: &NatsServer,
    count: usize,
    decoder: Decoder,
    database: Option<Server>,
) -> anyhow::Result<Run> {
    let plugin = plugin()?;
    let dir = tempfile::tempdir()?;
    runtime()?.block_on(async {
        // The consumer of another run has another owner; the host would observe it for a while before a takeover.
        let context = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
        let stream = context.get_stream("OBS_EVENTS").await?;
        drop(stream.delete_consumer("lantern-obs-events-obs").await);
        let store = StoreConfig {
            server: database,
            ..StoreConfig::new(dir.path())
        };
        let store = Arc::new(Store::open(store).await?);
        let broker = Broker::connect(lantern_broker::BrokerConfig::remote(server.url())).await?;
        broker.link().wait_for(Link::is_connected).await?;
        let metrics = Metrics::new(Registry::default(), store.path());
        let desired = watch::Sender::new(DesiredState {
            version: Arc::new(version(&plugin, decoder)),
            settings: Arc::default(),
            paused: None,
            placement: Placement::ONLY_HOST,
        });
        let (projection, mut status) = Projection::new(
            broker.clone(),
            Arc::clone(&store),
            desired.subscribe(),
            "obs",
            Purpose::Live,
            config(dir.path()),
            metrics,
        );
        let stop = CancellationToken::new();
        let (began, before) = (Instant::now(), CpuTimes::now(server.pid())?);
        let running = tokio::spawn(projection.run(stop.clone()));
        let reached = status.wait_for(|status| status.checkpoint >= count as u64);
        tokio::time::timeout(Duration::from_secs(300), reached)
            .await
            .context("it does not come to the end")??;
        let rate = count as f64 / began.elapsed().as_secs_f64();
        let cpu = CpuTimes::now(server.pid())?.per_row_since(before, count);
        let rows = status.borrow().rows;
        if rows != count as u64 {
            bail!("{rows} rows of {count} messages");
        }
        stop.cancel();
        running.await?;
        broker.stop().await;
        if let Ok(store) = Arc::try_unwrap(store) {
            store.close().await;
        }
        let file = dir.path().join(lantern_store::DATABASE_FILE);
        let size = std::fs::metadata(file).map_or(0, |file| file.len());
        Ok(Run {
            rate,
            cpu_per_row: cpu.writer,
            pipeline: cpu,
            bytes_per_row: size as f64 / count as f64,
        })
    })
}

fn config(dir: &Path) -> ProjectionConfig {
    ProjectionConfig {
        messages_max: 16_384,
        bytes_max: 8 << 20,
        create_streams: false,
        consumer_prefix: "lantern".to_owned(),
        confirm_after: Duration::from_secs(10),
        dead_letters_max: 1,
        owner: dir.display().to_string(),
    }
}

/// The version of the plugin, as WebAssembly or as native code.
fn version(plugin: &Arc<Plugin>, decoder: Decoder) -> LoadedVersion {
    let version = LoadedVersion::new(Arc::clone(plugin));
    if decoder != Decoder::Native {
        return version;
    }
    let manifest = Arc::clone(plugin.manifest());
    version.decoding_with(Box::new(move || {
        Projector::native(Arc::clone(&manifest), Limits::default(), Box::new(Guest))
    }))
}
