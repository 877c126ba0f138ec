//! The NATS broker; the only crate that uses async_nats. Owns the client for requests, monitors its connection, and
//! provides messages in stream order, acknowledgements, and facts about streams and consumers. Each subscription has
//! its own connection.
//!
//! The crate does not know rows, plugins or checkpoints. [`Subscription::next`] guarantees that its messages follow the
//! previous ones without a hole; when it cannot guarantee this, it returns an error and the caller opens again at its
//! own checkpoint. The broker's position is never trusted.

mod ack;
mod api;
mod auth;
mod client;
mod config;
mod consumer;
mod core_nats;
mod delete;
mod embedded;
mod ephemeral_read;
mod headers;
mod history;
mod link;
mod monitor;
mod open;
mod open_request;
mod owner;
mod publish;
mod pull;
mod risks;
mod send;
mod sequence;
mod stored;
mod stream;
mod suspects;

/// Parsers of this crate, for the fuzz targets.
#[doc(hidden)]
pub mod fuzzing {
    /// Parses the header bytes that a publisher sent.
    pub fn headers(bytes: &[u8]) -> Vec<(String, String)> {
        super::headers::from_bytes(bytes)
    }
}

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use tokio::sync::watch;
use tracing::warn;

pub use ack::{AckError, AckToken, ConsumerHandle};
pub use api::BrokerError;
pub use auth::CredentialsError;
pub use client::hide_library_panics;
pub use config::{
    BrokerConfig, BrokerLocation, EmbeddedConfig, Remote, Secret, SecretSource, Tls, check_context,
    redacted_url,
};
pub use consumer::ConsumerFacts;
pub use core_nats::{CoreError, CoreEvent, CoreSubscription};
pub use embedded::{EmbeddedError, SYNC_INTERVAL as EMBEDDED_SYNC_INTERVAL, find_server, url_file};
pub use ephemeral_read::EphemeralRead;
pub use link::{Link, Server, ServerVersion};
pub use open_request::{OpenError, OpenRequest, Start};
pub use owner::TakeOver;
pub use publish::{Lines, PublishError, Published, publish};
pub use pull::{PullError, Pulled, Subscription};
pub use risks::{DurabilityRisk, StreamSafety};
pub use send::SendError;
pub use stored::Fingerprint;
pub use stream::{ClusterFacts, ReplicaFacts, Retention, StorageKind, StreamFacts};

use client::{Current, Main};
use embedded::Embedded;
use link::Signals;

/// Oldest supported `nats-server`: the first with several filter subjects and with metadata on a consumer.
const VERSION_MIN: ServerVersion = ServerVersion {
    major: 2,
    minor: 10,
    patch: 0,
};

/// Timeout of one JetStream request. Answers arrive within milliseconds; a broker that needs longer is replaying a
/// large stream from disk or is in trouble, and the caller retries in both cases.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that one subscription of the client buffers; the library drops the excess. A JetStream subscription never
/// requests more than `pull::OUTSTANDING_MAX`; a dedicated task empties a core subscription and counts drops.
const SUBSCRIPTION_CAPACITY: usize = 32 * 1024;

/// A handle to the broker. Cheap to clone; all clones share one connection for requests.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    main: Arc<Main>,
    /// Prefix of the JetStream API subjects.
    api_prefix: String,
    link: watch::Receiver<Link>,
    suspects: Mutex<suspects::Suspects>,
    /// Consumers that this host uses without permission to write its name on them, by stream and consumer.
    unnamed: Mutex<HashSet<(String, String)>>,
    embedded: Option<Embedded>,
    monitor: tokio_util::task::AbortOnDropHandle<()>,
}

impl Broker {
    /// Starts to connect according to `config`, after starting the embedded broker where one is configured. An
    /// unreachable or refusing broker is not an error: the attempts continue (see [`Broker::link`]).
    ///
    /// # Errors
    /// Errors that waiting cannot resolve: an invalid URL, an unreadable context, no `nats-server` to run.
    pub async fn connect(config: BrokerConfig) -> Result<Self, ConnectError> {
        let mut embedded = None;
        if let BrokerLocation::Embedded(settings) = &config.place {
            embedded = Some(Embedded::start(settings.clone()).await?);
        }
        let dialing = Dialing::prepare(config, embedded.as_ref()).await?;
        let signals = Arc::new(Signals::default());
        let urls = dialing.remote.urls.join(", ");
        let api_prefix = api_prefix(&dialing.config);
        let main = Main::dial(dialing, api_prefix.clone(), signals)
            .await
            .map(Arc::new)
            .map_err(|source| ConnectError::Client { source })?;
        let (link, monitor) = monitor::monitor(Arc::clone(&main), urls);
        let monitor = tokio_util::task::AbortOnDropHandle::new(monitor);
        let suspects = Mutex::default();
        Ok(Self {
            inner: Arc::new(Inner {
                main,
                api_prefix,
                link,
                suspects,
                unnamed: Mutex::default(),
                embedded,
                monitor,
            }),
        })
    }

    /// The state of the connection, with changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.inner.link.clone()
    }

    /// The URL of the embedded broker, without user and password; `None` for a remote broker.
    pub fn embedded_url(&self) -> Option<&str> {
        self.inner.embedded.as_ref().map(Embedded::url)
    }

    /// Like [`Broker::connect`], but also waits until the broker accepts the connection.
    ///
    /// # Errors
    /// As for [`Broker::connect`]; [`ConnectError::Unreachable`] if the connection does not succeed within `limit`.
    pub async fn connect_within(config: BrokerConfig, limit: Duration) -> Result<Self, ConnectError> {
        let url = config.place.to_string();
        let broker = Self::connect(config).await?;
        let mut link = broker.link();
        let connected = tokio::time::timeout(limit, link.wait_for(Link::is_connected)).await;
        if matches!(connected, Ok(Ok(_))) {
            return Ok(broker);
        }
        let why = match &*broker.link().borrow() {
            Link::Refused { why, .. } => why.clone(),
            Link::Connecting { last_error, .. } => {
                last_error.clone().unwrap_or_else(|| "no response".to_owned())
            }
            Link::Connected(_) => "timeout".to_owned(),
        };
        broker.stop().await;
        Err(ConnectError::Unreachable { url, why })
    }

    /// Flushes pending requests, closes the connection, and stops the embedded broker. Call it when nothing else uses
    /// the broker; it takes at most a second or two.
    pub async fn stop(&self) {
        let client = self.inner.current().client;
        let flush = tokio::time::timeout(Duration::from_millis(500), client.flush());
        if self.inner.link.borrow().is_connected() && !matches!(flush.await, Ok(Ok(()))) {
            warn!("the last requests may not have reached the broker");
        }
        self.inner.monitor.abort();
        // A lost connection needs no draining.
        let _ = tokio::time::timeout(Duration::from_millis(500), client.drain()).await;
        if let Some(embedded) = &self.inner.embedded {
            embedded.stop().await;
        }
    }
}

impl Inner {
    /// The current client for requests.
    fn current(&self) -> Current {
        self.main.current()
    }

    fn dialing(&self) -> &Dialing {
        self.main.dialing()
    }

    fn unnamed(&self) -> std::sync::MutexGuard<'_, HashSet<(String, String)>> {
        self.unnamed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspects(&self) -> std::sync::MutexGuard<'_, suspects::Suspects> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks the TLS files before the first connection: the library reads them at each attempt and reports a missing file
/// like a network failure.
fn check_tls(tls: &Tls) -> Result<(), ConnectError> {
    if tls.cert.is_some() != tls.key.is_some() {
        return Err(ConnectError::HalfCertificate);
    }
    for (what, path) in [
        ("CA certificate", &tls.ca),
        ("certificate", &tls.cert),
        ("private key", &tls.key),
    ] {
        if let Some(path) = path {
            std::fs::File::open(path).map_err(|source| ConnectError::Unreadable {
                what,
                path: path.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Everything that a connection needs.
struct Dialing {
    config: BrokerConfig,
    remote: Arc<Remote>,
    addresses: Vec<ServerAddr>,
}

impl Dialing {
    /// Resolves the settings of a connection: reads a context, and moves logins out of addresses.
    async fn prepare(mut config: BrokerConfig, embedded: Option<&Embedded>) -> Result<Self, ConnectError> {
        let mut remote = match config.place.clone() {
            BrokerLocation::Embedded(_) => embedded.map(Embedded::remote).unwrap_or_default(),
            BrokerLocation::Remote(remote) => remote,
            BrokerLocation::Context { name, folder } => {
                config::read_context(&name, folder.as_deref(), &mut config).await?
            }
        };
        let addresses = config::take_userinfo(&mut remote)?;
        check_tls(&remote.tls)?;
        Ok(Self {
            config,
            remote: Arc::new(remote),
            addresses,
        })
    }

    fn options(&self, signals: &Arc<Signals>) -> ConnectOptions {
        let mut options = self
            .login(signals)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .subscription_capacity(SUBSCRIPTION_CAPACITY);
        let delays = Arc::clone(signals);
        options = options.reconnect_delay_callback(move |attempts| delays.delay(attempts));
        let attempting = Arc::clone(signals);
        options.reconnect_to_server_callback(move |servers, _| {
            attempting.attempt(&servers);
            std::future::ready(None)
        })
    }

    /// Login, TLS and timeouts, which are the same for every kind of connection.
    fn login(&self, signals: &Arc<Signals>) -> ConnectOptions {
        let (remote, failures) = (Arc::clone(&self.remote), Arc::clone(signals));
        let mut options = ConnectOptions::with_auth_callback(move |nonce| {
            let (remote, signals) = (Arc::clone(&remote), Arc::clone(&failures));
            async move {
                auth::authenticate(&remote, &nonce).await.map_err(|error| {
                    signals.credentials_failed(&error);
                    async_nats::AuthError::new("the credentials cannot be read")
                })
            }
        })
        .name(&self.config.client_name)
        .ping_interval(self.config.ping_interval)
        .connection_timeout(Duration::from_secs(5));
        if let Some(prefix) = &self.config.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        let tls = self.remote.tls.clone();
        if let Some(ca) = tls.ca {
            options = options.add_root_certificates(ca).require_tls(true);
        }
        if let (Some(cert), Some(key)) = (tls.cert, tls.key) {
            options = options.add_client_certificate(cert, key).require_tls(true);
        }
        if tls.first { options.tls_first() } else { options }
    }
}

fn api_prefix(config: &BrokerConfig) -> String {
    match (&config.jetstream_api_prefix, &config.jetstream_domain) {
        (Some(prefix), _) => prefix.trim_end_matches('.').to_owned(),
        (None, Some(domain)) => format!("$JS.{domain}.API"),
        (None, None) => "$JS.API".to_owned(),
    }
}

/// A configuration error that makes a connection impossible.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No URL was configured.
    #[error("no broker URL is configured")]
    NoUrl,
    /// A URL cannot be parsed, or names something that is not NATS.
    #[error("the broker URL {url} cannot be used")]
    Url {
        /// The URL without its credentials.
        url: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// NATS over WebSocket.
    #[error("the broker URL {url} is for WebSocket, which Lantern does not support")]
    Websocket {
        /// The URL without its credentials.
        url: String,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("a TLS certificate requires its private key, and a key its certificate")]
    HalfCertificate,
    /// A configured file cannot be read.
    #[error("cannot read the {what} {}", path.display())]
    Unreadable {
        /// Expected content of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A name that cannot belong to a `nats` CLI context.
    #[error("{name:?} cannot be the name of a nats context")]
    ContextName {
        /// The name.
        name: String,
    },
    /// A `nats` CLI context is not JSON of the known form.
    #[error("{} is not a nats context", path.display())]
    ContextFormat {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A `nats` CLI context connects in a way that is not supported.
    #[error("{} uses {setting:?}, which Lantern does not support", path.display())]
    ContextSetting {
        /// The file.
        path: PathBuf,
        /// The setting.
        setting: &'static str,
    },
    /// The client library rejects the settings.
    #[error("the broker settings cannot be used")]
    Client {
        /// The cause.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The broker does not accept the connection in time.
    #[error("failed to connect to the broker {url}: {why}")]
    Unreachable {
        /// The URL without credentials, or the embedded broker.
        url: String,
        /// The last error.
        why: String,
    },
    /// The embedded broker does not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

impl ConnectError {
    /// A remedy for the operator.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoUrl | Self::Url { .. } => Some("write it as nats://host:4222 or tls://host:4222"),
            Self::Websocket { .. } => Some("use the broker's nats:// or tls:// port"),
            Self::ContextSetting { .. } => {
                Some("export the credentials (for nsc: nsc generate creds) and name the file in the context")
            }
            Self::ContextName { .. } => Some("`nats context ls` lists the names"),
            Self::Embedded(error) => error.hint(),
            _ => None,
        }
    }
}
