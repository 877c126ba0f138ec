//! The broker: the only module that names async_nats. Owns the host's client for requests, watches its connection,
//! and hands out messages in stream order, acknowledgements, and facts about streams and consumers. Each subscription
//! has its own connection.
//!
//! It knows nothing of rows, plugins or checkpoints. What it promises is that whatever [`Subscription::next`]
//! hands out follows without a hole on what it handed out before; when it cannot promise that any more, it says so
//! and the caller opens again at its own checkpoint. The broker's idea of the position is never trusted.

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
mod open;
mod owner;
mod publish;
mod pull;
mod send;
mod sequence;
mod stored;
mod stream;
mod suspects;

/// The parsers of this module, for the fuzz targets.
#[doc(hidden)]
pub mod fuzzing {
    /// The headers in the bytes that a publisher sent.
    pub fn headers(bytes: &[u8]) -> Vec<(String, String)> {
        super::headers::from_bytes(bytes)
    }
}

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, ServerAddr};
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
pub use core_nats::{CoreError, CoreSubscription};
pub use embedded::{EmbeddedError, find_server, url_file};
pub use ephemeral_read::EphemeralRead;
pub use link::{Link, Server, ServerVersion};
pub use open::{OpenError, OpenRequest, Start};
pub use owner::TakeOver;
pub use publish::{Lines, PublishError, Published, publish};
pub use pull::{PullError, Pulled, Subscription};
pub use send::SendError;
pub use stored::Fingerprint;
pub use stream::{ClusterFacts, Retention, StorageKind, StreamFacts, StreamSafety};

use client::{Current, Main};
use embedded::Embedded;
use link::Signals;

/// The oldest `nats-server` that has what we need: several filter subjects and metadata on a consumer.
const VERSION_MIN: ServerVersion = ServerVersion {
    major: 2,
    minor: 10,
    patch: 0,
};

/// How long one JetStream request may take. Answers come within milliseconds; a broker that needs longer is
/// replaying a large stream from disk or is in trouble, and either way the caller comes back.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that one subscription of the client holds; what comes on top is dropped by the library. A JetStream
/// subscription never asks for more than `pull::OUTSTANDING_MAX`; a core subscription is emptied by a task that does
/// nothing else, and counts what is dropped all the same.
const SUBSCRIPTION_CAPACITY: usize = 32 * 1024;

/// A handle on the broker. Cheap to clone; all clones share one connection for requests.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    main: Arc<Main>,
    /// What JetStream's own subjects begin with.
    api_prefix: String,
    link: watch::Receiver<Link>,
    suspects: Mutex<suspects::Suspects>,
    /// Consumers that we use and may not write our name on, by stream and consumer.
    unnamed: Mutex<HashSet<(String, String)>>,
    embedded: Option<Embedded>,
    monitor: tokio_util::task::AbortOnDropHandle<()>,
}

impl Broker {
    /// Begins to connect as `config` says, and starts the embedded broker first where there is one. A broker that
    /// is not there yet, or that refuses us, is no error: the attempts go on until it is (see [`Broker::link`]).
    ///
    /// # Errors
    ///
    /// What no waiting can mend: a URL that is none, a context that cannot be read, no `nats-server` to run.
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
        let (link, monitor) = link::watch_over(Arc::clone(&main), urls);
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

    /// The state of the connection, as it is now and as it changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.inner.link.clone()
    }

    /// The URL of the broker that the host runs itself, without user and password; none when it runs elsewhere.
    pub fn embedded_url(&self) -> Option<&str> {
        self.inner.embedded.as_ref().map(Embedded::url)
    }

    /// Sends what is still to be sent, ends the connection, and then stops the embedded broker. To be called when
    /// nothing else uses the broker any more; takes a second or two at most.
    pub async fn stop(&self) {
        let client = self.inner.current().client;
        let flush = tokio::time::timeout(Duration::from_millis(500), client.flush());
        if self.inner.link.borrow().is_connected() && !matches!(flush.await, Ok(Ok(()))) {
            warn!("the last requests may not have reached the broker");
        }
        self.inner.monitor.abort();
        // A connection that is already gone needs no draining.
        let _ = tokio::time::timeout(Duration::from_millis(500), client.drain()).await;
        if let Some(embedded) = &self.inner.embedded {
            embedded.stop().await;
        }
    }
}

impl Inner {
    /// The client for requests, as it is at the moment.
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

/// Files that TLS needs are read by the library at each attempt, where a missing one would look like a broken
/// network; so they are looked at once before.
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

/// All that it takes to make a connection.
struct Dialing {
    config: BrokerConfig,
    remote: Arc<Remote>,
    addresses: Vec<ServerAddr>,
}

impl Dialing {
    /// Collects what a connection takes: reads a context, and moves logins out of addresses.
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

    /// Makes a client that begins to connect, for one reader; its state is not watched.
    async fn dial(&self) -> Result<Client, async_nats::ConnectError> {
        let options = self
            .options(&Arc::new(Signals::default()))
            .retry_on_initial_connect();
        options.connect(self.addresses.as_slice()).await
    }

    fn options(&self, signals: &Arc<Signals>) -> ConnectOptions {
        let mut options = self
            .login(signals)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .subscription_capacity(SUBSCRIPTION_CAPACITY);
        let delaying = Arc::clone(signals);
        options = options.reconnect_delay_callback(move |attempts| delaying.delay(attempts));
        let looking = Arc::clone(signals);
        options.reconnect_to_server_callback(move |servers, _| {
            looking.attempt(&servers);
            std::future::ready(None)
        })
    }

    /// Who we are, and how to reach the broker: what is the same for every kind of connection.
    fn login(&self, signals: &Arc<Signals>) -> ConnectOptions {
        let (remote, answering) = (Arc::clone(&self.remote), Arc::clone(signals));
        let mut options = ConnectOptions::with_auth_callback(move |nonce| {
            let (remote, signals) = (Arc::clone(&remote), Arc::clone(&answering));
            async move {
                auth::answer(&remote, &nonce).await.map_err(|error| {
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

/// Why there can be no connection, whatever happens on the network.
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
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// NATS over WebSocket.
    #[error("the broker URL {url} is for WebSocket, which Lantern does not speak")]
    Websocket {
        /// The URL without its credentials.
        url: String,
    },
    /// A certificate without its key, or the other way round.
    #[error("a TLS certificate needs its private key, and a key its certificate")]
    HalfCertificate,
    /// A configured file cannot be read.
    #[error("cannot read the {what} {}", path.display())]
    Unreadable {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The name of a `nats` CLI context is none.
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
        /// Why.
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
    /// The client refuses its settings.
    #[error("the broker settings cannot be used")]
    Client {
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The broker that the host should run itself does not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

impl ConnectError {
    /// What the operator can do about it.
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
