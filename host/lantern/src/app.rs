//! The whole host: the only place that knows everybody. It builds what the configuration asks for, starts it in the
//! order of dependence, waits, and stops it in the order of the data.

pub mod doctor;
mod health;
mod instance;
mod presence;
mod wiring;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use lantern_broker::{Broker, Link};
use lantern_http as http;
use lantern_lifecycle::Lifecycle;
use lantern_model::batch::Timestamp;
use lantern_model::status::Registry;
use lantern_plugin::Loader;
use lantern_store::{IndexStep, Reader, Store};
use lantern_telemetry::Metrics;
use lantern_trust::identity::{self, Identity};
use lantern_trust::private_files;
pub use presence::{HOST_FILE, TOKEN_FILE};
pub use wiring::remote_broker;

use health::checks;
use presence::Presence;

/// How often rows that are too old are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// How often tables that lack an index are looked for: they come with new versions of plugins.
const INDEX_EVERY: Duration = Duration::from_secs(60);

/// Between one index and the next, so that messages that have waited are stored.
const INDEX_PAUSE: Duration = Duration::from_secs(2);

/// Runs the host until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting: the data directory, the database, the address, the broker's configuration, or
/// plugins of which not one can be loaded. Nothing has been pulled then.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    raise_file_limit();
    run(config, stop).await
}

/// Raises the soft limit of open files to the hard one: each source has a connection to the broker, and the soft limit
/// is often 1,024, for programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?current, "cannot raise the limit of open files");
    }
}

/// Runs the host until `stop`, and says where it is on standard output.
///
/// # Errors
/// As for [`serve`].
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    run_and_tell(config, stop, announce).await
}

/// A host that has started.
#[derive(Clone, Debug)]
pub struct Up {
    /// Where its API is.
    pub url: String,
    /// Its database.
    pub database: PathBuf,
    /// Its own broker, where it has one.
    pub broker: Option<String>,
    /// How many plugins it has.
    pub plugins: usize,
}

/// Runs the host until `stop`. `up` is called when it answers.
///
/// # Errors
/// As for [`serve`].
pub async fn run_and_tell(
    config: Config,
    stop: CancellationToken,
    up: impl FnOnce(Up),
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {} (setting listen, flag --listen)", config.listen))?;
    let address = listener.local_addr().context("ask for the address")?;
    let store = Arc::new(Store::open(wiring::store(&config)).await?);
    let asking = http::Threads::start().context("start the threads of the API")?;
    let path = store.path().to_owned();
    let reader = asking
        .spawn(async move { Reader::open(&path).await })
        .await
        .context("open the database for questions")??;
    store.release_before_reopen(reader.clone());
    let owner = instance::keep(&config.data_dir, &store).await?;
    let cache_key = wiring::cache_key(&config, &store).await?;
    let broker = Broker::connect(wiring::broker(&config)?).await?;
    let registry = Registry::default();
    let metrics = Metrics::new(registry.clone(), store.path());
    let loader = Arc::new(Loader::new(wiring::plugins(&config)?, cache_key)?);
    let parts = lantern_lifecycle::Parts {
        config: wiring::lifecycle(&config, owner),
        broker: broker.clone(),
        store: Arc::clone(&store),
        loader,
        registry: registry.clone(),
        metrics: metrics.clone(),
    };
    let url = presence::url_of(address);
    let key = private_files::load_or_create_secret(&config.data_dir.join(identity::KEY_FILE))?;
    let access = http::Access::open(Arc::clone(&store), &reader, wiring::http(&config, address)).await?;
    presence::keep_operator_token(&config.data_dir, &access).await?;
    make_plugin_dir(&config)?;
    let lifecycle = Lifecycle::start(parts, stop.child_token()).await?;
    let state = http::State {
        access,
        projections: registry.clone(),
        reader: reader.clone(),
        health: checks(&broker, &store, lifecycle.clone(), metrics.clone()),
        metrics: metrics.clone(),
        lifecycle: lifecycle.clone(),
        live: http::Live::start(
            reader.clone(),
            store.commits(),
            registry.clone(),
            stop.child_token(),
        ),
        identity: Identity::new(key, url.as_str()),
        started: Timestamp::now(),
    };
    let serving = asking
        .serve(listener, state, stop.child_token())
        .context("hand the address to the API")?;
    let counting = tokio::spawn(count_reconnects(broker.clone(), metrics.clone()));
    let expiring = tokio::spawn(expire(Arc::clone(&store), lifecycle.clone(), stop.child_token()));
    let indexing = tokio::spawn(keep_indexes(Arc::clone(&store), stop.child_token()));
    let presence = Presence::write(&config.data_dir, &url)?;
    up(Up {
        url,
        database: store.path().to_owned(),
        broker: broker.embedded_url().map(str::to_owned),
        plugins: lifecycle.count().await,
    });

    stop.cancelled().await;
    presence.remove();
    tracing::info!("stopping: what is in hand is finished and stored");
    // The rest is for the broker: its last acknowledgements, and the end of one of our own.
    let deadline = tokio::time::Instant::now() + config.shutdown_time * 7 / 10;
    if tokio::time::timeout_at(deadline - config.shutdown_time / 4, lifecycle.stop())
        .await
        .is_err()
    {
        tracing::warn!(
            "some projections did not finish in time; they go on from their checkpoints at the next start"
        );
    }
    drop(lifecycle);
    expiring.abort();
    counting.abort();
    indexing.abort();
    drop(tokio::time::timeout_at(deadline, serving).await);
    broker.stop().await;
    drop(tokio::time::timeout_at(deadline, reader.close()).await);
    drop(expiring.await);
    drop(indexing.await);
    close(store, deadline).await;
    drop(asking);
    Ok(())
}

/// The default plugin directory is made when it is missing. One that the operator named has to exist: its name may be
/// mistyped.
fn make_plugin_dir(config: &Config) -> anyhow::Result<()> {
    if config.plugin_dir_is_default {
        let dir = &config.plugin_dir;
        std::fs::create_dir_all(dir)
            .with_context(|| format!("make the plugin directory {}", dir.display()))?;
    }
    Ok(())
}

/// How long a broker may take to accept the connection of a check.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Compares the rows of a database with those that its messages give: of all messages, or of about `sample` of each
/// plugin. The host may run meanwhile.
///
/// # Errors
/// The broker cannot be reached, or the database or a component cannot be read.
pub async fn check_deep(
    config: &Config,
    sample: Option<u64>,
) -> anyhow::Result<lantern_lifecycle::DeepReport> {
    let broker = broker_of(config).await?;
    // What is compiled for this is kept nowhere: the host's cache is sealed with another key.
    let plugins = lantern_plugin::EngineConfig {
        cache_dir: None,
        ..wiring::plugins(config)?
    };
    let parts = lantern_lifecycle::DeepParts {
        database: config.data_dir.join(lantern_store::DATABASE_FILE),
        components_dir: config.data_dir.join("components"),
        broker: broker.clone(),
        loader: Arc::new(Loader::new(plugins, [0; 32])?),
    };
    let report = lantern_lifecycle::check_deep(&parts, sample).await;
    broker.stop().await;
    Ok(report?)
}

/// A connection to the broker of the configuration. An embedded broker that a running host has started is used as it is;
/// otherwise it is started, and stopped with the connection.
async fn broker_of(config: &Config) -> anyhow::Result<Broker> {
    let settings = wiring::broker(config)?;
    if matches!(settings.place, lantern_broker::BrokerLocation::Embedded(_)) {
        let file = config.data_dir.join("broker").join("nats.url");
        if let Ok(url) = std::fs::read_to_string(&file)
            && let Ok(broker) = connected(lantern_broker::BrokerConfig::remote(url.trim())).await
        {
            return Ok(broker);
        }
    }
    connected(settings).await
}

async fn connected(settings: lantern_broker::BrokerConfig) -> anyhow::Result<Broker> {
    let broker = Broker::connect(settings).await?;
    let mut link = broker.link();
    let wait = tokio::time::timeout(CONNECT_TIME, link.wait_for(Link::is_connected)).await;
    if matches!(wait, Ok(Ok(_))) {
        return Ok(broker);
    }
    let why = match &*broker.link().borrow() {
        Link::Refused { why, .. } => why.clone(),
        Link::Connecting { last_error, .. } => last_error.clone().unwrap_or_else(|| "no answer".to_owned()),
        Link::Connected(_) => "it took too long".to_owned(),
    };
    broker.stop().await;
    Err(anyhow::anyhow!("the broker cannot be reached: {why}"))
}

/// Everybody who works has ended by now, so the database has one owner left.
async fn close(store: Arc<Store>, deadline: tokio::time::Instant) {
    match Arc::try_unwrap(store) {
        Ok(store) => {
            if tokio::time::timeout_at(deadline, store.close()).await.is_err() {
                tracing::warn!("the database was busy until the end; what was answered is safe");
            }
        }
        Err(_) => tracing::warn!("the database is still in use; what was answered is safe"),
    }
}

fn watch_signals(stop: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("watch for SIGHUP")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                // By default it would kill the process without a stop in order.
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP is ignored: the configuration cannot be reloaded; restart the host instead");
                }
            }
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
fn announce(up: Up) {
    let Up {
        url,
        database,
        broker,
        plugins,
    } = up;
    let broker = broker.map(|url| format!(", broker {url}")).unwrap_or_default();
    let line = format!(
        "lantern is up: {url}, database {}{broker}, {plugins} plugins",
        database.display()
    );
    // Standard output may be closed; the host does not depend on being heard.
    drop(writeln!(std::io::stdout(), "{line}"));
    tracing::info!("{line}");
}

/// Removes rows that are older than their tables keep them, a few at a time, so that nothing waits behind it.
async fn expire(store: Arc<Store>, lifecycle: Lifecycle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EXPIRE_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        lifecycle.remove_old_tables();
        for table in &lifecycle.expiring_tables().await {
            loop {
                match store.maintenance().expire(table.clone(), Timestamp::now()).await {
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

/// Gives tables the indexes that they lack, one at a time and with pauses in which others have their turn.
async fn keep_indexes(store: Arc<Store>, stop: CancellationToken) {
    let mut told = Vec::new();
    loop {
        let pause = match store.maintenance().add_missing_index().await {
            Ok(IndexStep::Made { table, columns, took }) => {
                let columns = columns.join(", ");
                let took_ms = took.as_millis();
                tracing::info!(
                    table,
                    columns,
                    took_ms,
                    "made an index; nothing else was stored meanwhile"
                );
                INDEX_PAUSE
            }
            Ok(IndexStep::Left(tables)) => {
                for table in tables.iter().filter(|table| !told.contains(*table)) {
                    tracing::warn!(
                        table,
                        "the table lacks indexes for its facets and is too large to be given them now: questions about \
                         it are slow until `lantern rebuild` of its plugin"
                    );
                }
                told = tables;
                INDEX_EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "indexes could not be looked at; tried again");
                INDEX_EVERY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
