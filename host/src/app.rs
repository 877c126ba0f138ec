//! The whole host: the only place that knows everybody. It builds what the configuration asks for, starts it in the
//! order of dependence, waits, and stops it in the order of the data.

mod health;
mod presence;
mod wiring;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::batch::Timestamp;
use crate::broker::{Broker, Link};
use crate::config::Config;
use crate::http;
use crate::plugin::{Loader, Plugin};
use crate::projection::{self, Projection};
use crate::schema::Table;
use crate::status::Registry;
use crate::store::{AdoptError, Adoption, Reader, Store};
use crate::telemetry::Metrics;
pub use presence::{HOST_FILE, TOKEN_FILE};

use health::{Refused, checks};
use presence::Presence;

/// How often rows that are too old are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Runs the host until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting: the data directory, the database, the address, the broker's configuration, or
/// plugins of which not one can be loaded. Nothing has been pulled then.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    run(config, stop).await
}

/// Runs the host until `stop`.
///
/// # Errors
/// As for [`serve`].
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {} (setting listen, flag --listen)", config.listen))?;
    let address = listener.local_addr().context("ask for the address")?;
    let store = Arc::new(Store::open(wiring::store(&config)).await?);
    let reader = Reader::open(store.path()).await?;
    store.release_before_reopen(reader.clone());
    let owner = store
        .fact("instance", || uuid::Uuid::now_v7().to_string())
        .await?;
    let cache_key = wiring::cache_key(&store).await?;
    let broker = Broker::connect(wiring::broker(&config)?).await?;
    let registry = Registry::default();
    let metrics = Metrics::new(registry.clone(), store.path());
    let loader = Arc::new(Loader::new(wiring::plugins(&config)?, cache_key)?);
    let loaded = load_all(&config.plugin_dir, &loader, &store).await?;
    let access = http::Access::open(Arc::clone(&store), &reader, wiring::http(&config, address)).await?;
    presence::keep_operator_token(&config.data_dir, &access).await?;
    let state = http::State {
        access,
        projections: registry.clone(),
        reader: reader.clone(),
        health: checks(&broker, &store, loaded.refused, metrics.clone()),
        metrics: metrics.clone(),
    };
    let serving = tokio::spawn(http::serve(listener, state, stop.child_token()));

    let projections = projection::Config {
        messages_max: config.batch.messages_max as usize,
        bytes_max: usize::try_from(config.batch.bytes_max).unwrap_or(usize::MAX),
        create_streams: config.streams_create,
        dead_letters_max: config.limits.dead_letters_max,
        owner,
    };
    let mut running = JoinSet::new();
    for plugin in &loaded.plugins {
        for source in 0..plugin.manifest().sources.len() {
            let (projection, status) = Projection::new(
                broker.clone(),
                Arc::clone(&store),
                Arc::clone(plugin),
                source,
                projections.clone(),
                metrics.clone(),
            );
            registry.add(status);
            running.spawn(projection.run(stop.child_token()));
        }
    }
    let counting = tokio::spawn(count_reconnects(broker.clone(), metrics.clone()));
    let expiring = tokio::spawn(expire(
        Arc::clone(&store),
        tables(&loaded.plugins),
        stop.child_token(),
    ));
    let url = presence::url_of(address);
    let presence = Presence::write(&config.data_dir, &url)?;
    announce(&url, store.path(), broker.embedded_url(), loaded.plugins.len());

    stop.cancelled().await;
    presence.remove();
    tracing::info!("stopping: what is in hand is finished and stored");
    // The rest is for the broker: its last acknowledgements, and the end of one of our own.
    let deadline = tokio::time::Instant::now() + config.shutdown_time * 7 / 10;
    let drained = async {
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a projection ended badly");
            }
        }
    };
    if tokio::time::timeout_at(deadline - config.shutdown_time / 4, drained)
        .await
        .is_err()
    {
        tracing::warn!(
            "some projections did not finish in time; they go on from their checkpoints at the next start"
        );
        running.shutdown().await;
    }
    expiring.abort();
    counting.abort();
    drop(tokio::time::timeout_at(deadline, serving).await);
    broker.stop().await;
    drop(tokio::time::timeout_at(deadline, reader.close()).await);
    drop(expiring.await);
    match Arc::try_unwrap(store) {
        Ok(store) => {
            if tokio::time::timeout_at(deadline, store.close()).await.is_err() {
                tracing::warn!("the database was busy until the end; what was answered is safe");
            }
        }
        Err(_) => tracing::warn!("the database is still in use; what was answered is safe"),
    }
    Ok(())
}

fn watch_signals(stop: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

/// Counts the connections to the broker that follow a lost one.
async fn count_reconnects(broker: Broker, metrics: Metrics) {
    let mut link = broker.link();
    let mut known = None;
    loop {
        if let Link::Connected(server) = &*link.borrow_and_update() {
            if known.is_some_and(|known| known != server.generation) {
                metrics.broker_reconnected();
            }
            known = Some(server.generation);
        }
        if link.changed().await.is_err() {
            return;
        }
    }
}

/// What programs that start the host wait for: one line on standard output.
fn announce(url: &str, database: &Path, broker: Option<&str>, plugins: usize) {
    let broker = broker.map(|url| format!(", broker {url}")).unwrap_or_default();
    let line = format!(
        "lantern is up: {url}, database {}{broker}, {plugins} plugins",
        database.display()
    );
    // Standard output may be closed; the host does not depend on being heard.
    drop(writeln!(std::io::stdout(), "{line}"));
    tracing::info!("{line}");
}

struct Loaded {
    plugins: Vec<Arc<Plugin>>,
    refused: Vec<Refused>,
}

/// Loads every `*.wasm` of the plugin directory. One that cannot be loaded is reported and does not keep the others
/// from running; when not one can, there is nothing to run.
async fn load_all(dir: &Path, loader: &Arc<Loader>, store: &Store) -> anyhow::Result<Loaded> {
    let mut files = list(dir).with_context(|| format!("read the plugin directory {}", dir.display()))?;
    files.sort();
    let mut loading = JoinSet::new();
    for (number, file) in files.iter().cloned().enumerate() {
        let loader = Arc::clone(loader);
        loading.spawn_blocking(move || (number, load(&file, &loader)));
    }
    let mut results = loading.join_all().await;
    results.sort_by_key(|(number, _)| *number);
    let mut loaded = Loaded {
        plugins: Vec::new(),
        refused: Vec::new(),
    };
    for (number, result) in results {
        let outcome = match result {
            Ok(plugin) => adopt(&plugin, &loaded.plugins, store).await?.map(|()| plugin),
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok(plugin) => loaded.plugins.push(plugin),
            Err(reason) => {
                let file = files[number].display().to_string();
                tracing::error!(file, reason, "a plugin is refused");
                loaded.refused.push(Refused { file, reason });
            }
        }
    }
    if loaded.plugins.is_empty() && !loaded.refused.is_empty() {
        let reasons: Vec<String> = loaded
            .refused
            .iter()
            .map(|refused| format!("{}: {}", refused.file, refused.reason))
            .collect();
        anyhow::bail!(
            "no plugin in {} can be loaded: {}",
            dir.display(),
            reasons.join("; ")
        );
    }
    if files.is_empty() {
        tracing::warn!(dir = %dir.display(), "there are no plugins (*.wasm) in the plugin directory; nothing is projected");
    }
    Ok(loaded)
}

fn list(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let authority = cap_std::ambient_authority();
    let opened = cap_std::fs::Dir::open_ambient_dir(dir, authority)?;
    let mut files = Vec::new();
    for entry in opened.entries()? {
        let name = entry?.file_name();
        if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            files.push(dir.join(name));
        }
    }
    Ok(files)
}

fn load(file: &Path, loader: &Loader) -> Result<Arc<Plugin>, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("it cannot be read: {error}"))?;
    loader.load(&bytes).map_err(|error| {
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{:#}{hint}", anyhow::Error::new(error))
    })
}

/// Makes the plugin's tables. The inner result says why the plugin is refused, the outer that the database is away.
async fn adopt(
    plugin: &Arc<Plugin>,
    others: &[Arc<Plugin>],
    store: &Store,
) -> anyhow::Result<Result<(), String>> {
    let name = &plugin.manifest().name;
    if others.iter().any(|other| other.manifest().name == *name) {
        return Ok(Err(format!(
            "another file has brought a plugin named {name} already"
        )));
    }
    let adoption = Adoption {
        manifest: Arc::clone(plugin.manifest()),
        digest: plugin.digest().to_string(),
        contract: plugin.facts().contract.to_string(),
        at: Timestamp::now(),
    };
    match store.adopt(adoption).await {
        Ok(_) => Ok(Ok(())),
        Err(error @ AdoptError::Refused(_)) => Ok(Err(error.to_string())),
        Err(error) => Err(error).with_context(|| format!("make the tables of plugin {name}")),
    }
}

fn tables(plugins: &[Arc<Plugin>]) -> Vec<Table> {
    let all = plugins.iter().flat_map(|plugin| plugin.manifest().tables.clone());
    all.filter(|table| table.retention_days.is_some()).collect()
}

/// Removes rows that are older than their tables keep them, a few at a time, so that nothing waits behind it.
async fn expire(store: Arc<Store>, tables: Vec<Table>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EXPIRE_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for table in &tables {
            loop {
                match store.expire(table.clone(), Timestamp::now()).await {
                    Ok(0) => break,
                    Ok(rows) => tracing::debug!(table = %table.name, rows, "removed rows that were too old"),
                    Err(error) => {
                        tracing::warn!(table = %table.name, %error, "old rows could not be removed; tried again");
                        break;
                    }
                }
                if stop.is_cancelled() {
                    return;
                }
            }
        }
    }
}
