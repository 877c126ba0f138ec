//! The host process. Creates all parts from the configuration, starts them in the order of their dependencies, waits, and
//! stops them in the order of the data flow.

pub mod doctor;
mod health;
mod instance;
mod presence;
mod wiring;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::HostConfig;
use crate::jobs::Jobs;
use lantern_broker::{Broker, BrokerConfig, BrokerLocation};
use lantern_http as http;
use lantern_lifecycle::Lifecycle;
use lantern_model::batch::Timestamp;
use lantern_model::status::Registry;
use lantern_plugin::Loader;
use lantern_store::reader::ReadLimits;
use lantern_store::{LeaseView, Leases, Reader, Store};
use lantern_telemetry::Metrics;
use lantern_trust::identity::{self, Identity};
use lantern_trust::private_files;
pub use presence::{HOST_FILE, TOKEN_FILE};
pub use wiring::remote_broker;

use health::checks;
use presence::HostFile;

/// Runs the host until SIGTERM or SIGINT.
///
/// # Errors
/// When the host cannot start: because of the data directory, the database, the address, the broker's configuration, or
/// because no plugin can be loaded. No message has been read then.
pub async fn serve(config: HostConfig) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    raise_file_limit();
    run(config, stop).await
}

/// Raises the soft limit of open files to the hard limit, because each source has its own connection to the broker, and
/// the soft limit is often 1,024.
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
        tracing::warn!(%error, ?current, "failed to raise the limit of open files");
    }
}

/// Runs the host until `stop`, and prints its address on standard output.
///
/// # Errors
/// As for [`serve`].
pub async fn run(config: HostConfig, stop: CancellationToken) -> anyhow::Result<()> {
    run_with(config, stop, announce).await
}

/// Facts about a started host.
#[derive(Clone, Debug)]
pub struct Started {
    /// URL of the API.
    pub url: String,
    /// The database file, or the address of the database without its password.
    pub database: String,
    /// URL of the embedded broker, if there is one.
    pub broker: Option<String>,
    /// Number of plugins.
    pub plugins: usize,
}

/// Runs the host until `stop`. Calls `on_start` when the API is available.
///
/// # Errors
/// As for [`serve`].
pub async fn run_with(
    config: HostConfig,
    stop: CancellationToken,
    on_start: impl FnOnce(Started),
) -> anyhow::Result<()> {
    let host = Host::start(&config, &stop).await?;
    on_start(host.facts());
    stop.cancelled().await;
    host.shut_down(config.shutdown_time).await;
    Ok(())
}

/// The parts of a running host.
struct Host {
    url: String,
    host_file: HostFile,
    lifecycle: Lifecycle,
    leases: Option<Leases>,
    jobs: Jobs,
    api: JoinHandle<()>,
    api_threads: http::Threads,
    broker: Broker,
    reader: Reader,
    store: Arc<Store>,
}

impl Host {
    /// Starts the parts in the order of their dependencies.
    async fn start(config: &HostConfig, stop: &CancellationToken) -> anyhow::Result<Self> {
        let (listener, address) = listen(config.listen).await?;
        let api_threads = http::Threads::start().context("failed to start the API threads")?;
        let (store, reader) = open_database(config, address, &api_threads).await?;
        let owner = instance::load_identity(&config.data_dir, &store).await?;
        let cache_key = wiring::cache_key(config, &store).await?;
        let broker_config = wiring::broker(config)?;
        let broker_location = broker_config.place.clone();
        let broker = Broker::connect(broker_config).await?;
        let registry = Registry::default();
        let metrics = Metrics::new(registry.clone(), store.path());
        let leases = start_leases(&store).await?;
        let parts = lantern_lifecycle::Parts {
            leases: leases.clone(),
            config: wiring::lifecycle(config, owner),
            broker: broker.clone(),
            store: Arc::clone(&store),
            loader: Arc::new(Loader::new(wiring::plugins(config)?, cache_key)?),
            registry: registry.clone(),
            metrics: metrics.clone(),
        };
        let url = presence::local_url(address);
        let key = private_files::load_or_create_secret(&config.data_dir.join(identity::KEY_FILE))?;
        let access = open_access((config, address), (&store, &reader), leases.as_ref(), stop).await?;
        create_plugin_dir(config)?;
        let lifecycle = Lifecycle::start(parts, stop.child_token()).await?;
        let commits = store.commits();
        let state = http::State {
            access,
            projections: registry.clone(),
            reader: reader.clone(),
            health: checks(&broker, &store, lifecycle.clone(), metrics.clone()),
            metrics: metrics.clone(),
            lifecycle: lifecycle.clone(),
            live: http::Live::start(reader.clone(), commits, registry, stop.child_token()),
            identity: Identity::new(key, url.as_str()),
            started: Timestamp::now(),
        };
        // Before the API answers: a command that follows a successful request finds the host.
        let host_file = HostFile::write(&config.data_dir, &url, &broker_location)?;
        Ok(Self {
            api: api_threads
                .serve(listener, state, stop.child_token())
                .context("failed to start the API")?,
            jobs: Jobs::start(&store, &lifecycle, &broker, &metrics, stop),
            host_file,
            url,
            lifecycle,
            leases,
            api_threads,
            broker,
            reader,
            store,
        })
    }

    fn facts(&self) -> Started {
        Started {
            url: self.url.clone(),
            database: self.store.location().to_string(),
            broker: self.broker.embedded_url().map(str::to_owned),
            plugins: self.lifecycle.count(),
        }
    }

    /// Stops the parts in the order of the data flow: projections, API, broker, database.
    async fn shut_down(self, time: Duration) {
        self.host_file.remove();
        tracing::info!("stopping: finishing and storing the current batches");
        // The rest of the time is for the broker: the last acknowledgements, and stopping an embedded broker.
        let deadline = Instant::now() + time * 7 / 10;
        if timeout_at(deadline - time / 4, self.lifecycle.stop())
            .await
            .is_err()
        {
            tracing::warn!(
                "some projections did not finish in time; they continue at their checkpoints after the next start"
            );
        }
        drop(self.lifecycle);
        if let Some(leases) = self.leases {
            // The other hosts take the plugins over at once.
            drop(timeout_at(deadline, leases.drain()).await);
        }
        self.jobs.stop().await;
        drop(timeout_at(deadline, self.api).await);
        self.broker.stop().await;
        drop(timeout_at(deadline, self.reader.close()).await);
        close(self.store, deadline).await;
        drop(self.api_threads);
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("failed to listen on {address} (setting listen, flag --listen)"))?;
    let address = listener
        .local_addr()
        .context("failed to get the listening address")?;
    Ok((listener, address))
}

/// Opens the database for writing, and for reading on the threads of the API.
async fn open_database(
    config: &HostConfig,
    address: SocketAddr,
    api_threads: &http::Threads,
) -> anyhow::Result<(Arc<Store>, Reader)> {
    let store = Arc::new(Store::open(wiring::store(config, address)).await?);
    let location = store.location().clone();
    let reader = api_threads
        .spawn(async move { Reader::open_at(&location, ReadLimits::default()).await })
        .await
        .context("failed to open the database for reading")??;
    store.release_before_reopen(reader.clone());
    Ok((store, reader))
}

/// Begins to claim leases of plugins, if the database may have several hosts.
async fn start_leases(store: &Store) -> anyhow::Result<Option<Leases>> {
    let leases = store.start_leases().await;
    leases
        .map_err(anyhow::Error::msg)
        .context("failed to claim leases of plugins")
}

/// Opens the access control, with an operator token in the data directory.
async fn open_access(
    (config, address): (&HostConfig, SocketAddr),
    (store, reader): (&Arc<Store>, &Reader),
    leases: Option<&Leases>,
    stop: &CancellationToken,
) -> anyhow::Result<http::Access> {
    let forwarding = match leases {
        Some(_) => Some(Arc::new(wiring::forwarding(store).await?)),
        None => None,
    };
    let rules = wiring::http(config, address, store, forwarding);
    let access = http::Access::open(Arc::clone(store), reader, rules).await?;
    presence::ensure_operator_token(&config.data_dir, &access).await?;
    if let Some(leases) = leases {
        tokio::spawn(follow_tokens(
            leases.view(),
            reader.clone(),
            access.clone(),
            stop.child_token(),
        ));
    }
    Ok(access)
}

/// Reads the tokens again when another host of the database has changed them.
async fn follow_tokens(
    mut view: tokio::sync::watch::Receiver<LeaseView>,
    reader: Reader,
    access: http::Access,
    stop: CancellationToken,
) {
    let mut known = String::new();
    loop {
        let tokens = view.borrow_and_update().tokens.clone();
        if tokens != known {
            match access.reload(&reader).await {
                Ok(()) => known = tokens,
                Err(error) => tracing::warn!(%error, "failed to read the tokens again"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

/// Creates the default plugin directory. A directory in the configuration must exist, because its name may be mistyped.
fn create_plugin_dir(config: &HostConfig) -> anyhow::Result<()> {
    if config.plugin_dir_is_default {
        let dir = &config.plugin_dir;
        std::fs::create_dir_all(dir)
            .with_context(|| format!("failed to create the plugin directory {}", dir.display()))?;
    }
    Ok(())
}

/// Connect timeout of a check.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A deep check with the broker whose messages it used.
pub struct DeepCheck {
    /// The broker, without its login.
    pub broker: String,
    /// The findings.
    pub report: lantern_lifecycle::DeepReport,
}

/// Compares the rows of a database with the rows of its messages: of all messages, or of about `sample` messages of each
/// plugin. The host may be running.
///
/// # Errors
/// If the broker is unknown or unreachable, or the database or a component cannot be read.
pub async fn check_deep(config: &HostConfig, sample: Option<u64>) -> anyhow::Result<DeepCheck> {
    let (broker, description) = connect_configured(config).await?;
    // No cache: the host's cache is sealed with another key.
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
    Ok(DeepCheck {
        broker: description,
        report: report?,
    })
}

/// Connects to the broker of the configuration, and returns it with its description. Without a configured broker it uses
/// the broker of the running host, or starts the host's embedded broker, which stops with the connection. It never
/// creates an embedded broker for a host that has none.
async fn connect_configured(config: &HostConfig) -> anyhow::Result<(Broker, String)> {
    let settings = wiring::broker(config)?;
    let description = settings.place.to_string();
    let BrokerLocation::Embedded(embedded) = &settings.place else {
        return Ok((Broker::connect_within(settings, CONNECT_TIME).await?, description));
    };
    if let Some(broker) = presence::external_broker(&config.data_dir) {
        let found = Broker::connect_within(BrokerConfig::remote(&broker), CONNECT_TIME).await;
        let found = found.with_context(|| {
            format!(
                "the running host uses the broker {broker}; if it requires a login or TLS settings, give --config FILE of \
                 the host, or --nats URL"
            )
        })?;
        return Ok((found, broker));
    }
    let dir = &embedded.dir;
    if let Ok(url) = std::fs::read_to_string(dir.join("nats.url"))
        && let Ok(broker) = Broker::connect_within(BrokerConfig::remote(url.trim()), CONNECT_TIME).await
    {
        return Ok((broker, description));
    }
    anyhow::ensure!(
        dir.join("jetstream").is_dir(),
        "no broker is configured, and the host with the data directory {} has no embedded broker; give --nats URL, or \
         --config FILE of the host",
        config.data_dir.display()
    );
    Ok((Broker::connect_within(settings, CONNECT_TIME).await?, description))
}

/// Closes the database. All other owners have ended by now.
async fn close(store: Arc<Store>, deadline: Instant) {
    match Arc::try_unwrap(store) {
        Ok(store) => {
            if timeout_at(deadline, store.close()).await.is_err() {
                tracing::warn!("timeout while closing the database; committed data is safe");
            }
        }
        Err(_) => tracing::warn!("the database is still in use; committed data is safe"),
    }
}

fn watch_signals(stop: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to watch for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("failed to watch for SIGHUP")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                // By default, SIGHUP would kill the process without a clean shutdown.
                _ = hangup.recv() => {
                    tracing::info!("ignored SIGHUP: the host cannot reload its configuration; restart it instead");
                }
            }
        }
        stop.cancel();
    });
    Ok(())
}

/// Prints one line on standard output, for programs that start the host.
fn announce(started: Started) {
    let Started {
        url,
        database,
        broker,
        plugins,
    } = started;
    let broker = broker.map(|url| format!(", broker {url}")).unwrap_or_default();
    let line = format!(
        "lantern is up: {url}, database {}{broker}, {plugins} plugins",
        database
    );
    // Standard output may be closed.
    drop(writeln!(std::io::stdout(), "{line}"));
    tracing::info!("{line}");
}
