//! Derives the configuration of each crate from the configuration of the host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::presence;
use crate::config::{self, BrokerSettings, HostConfig, Login, RemoteBroker, Servers};
use lantern_broker::{BrokerLocation, EmbeddedConfig, Remote, SecretSource, Tls};
use lantern_http as http;
use lantern_lifecycle as lifecycle;
use lantern_plugin::Compiler;
use lantern_projection as projection;
use lantern_store::{NodeConfig, Store, Synchronous};
use lantern_trust::forwarded::ForwardKey;
use lantern_trust::private_files;

pub(super) fn store(config: &HostConfig, address: SocketAddr) -> lantern_store::StoreConfig {
    let synchronous = if config.store.synchronous_full {
        Synchronous::Full
    } else {
        Synchronous::Normal
    };
    lantern_store::StoreConfig {
        synchronous,
        cache_bytes: config.store.cache_bytes,
        page_size: config.store.page_size,
        reserve_bytes: config.store.reserve_bytes,
        commit_delay: config.store.commit_delay,
        server: config.store.server.clone(),
        node: config.store.server.is_some().then(|| node(config, address)),
        ..lantern_store::StoreConfig::new(&config.data_dir)
    }
}

/// This host among those of one PostgreSQL database.
fn node(config: &HostConfig, address: SocketAddr) -> NodeConfig {
    let name = config
        .node
        .name
        .clone()
        .unwrap_or_else(|| format!("{}-{}", machine_name(), address.port()));
    let url = config.node.url.clone();
    NodeConfig::new(name, url.unwrap_or_else(|| presence::local_url(address)))
}

/// Forwarding of changes, with the key that all hosts of the database read from it.
pub(super) async fn forwarding(store: &Store) -> anyhow::Result<http::Forwarding> {
    let new = ForwardKey::random().context("the system provides no random numbers")?;
    let key = store.fact("forward_key", move || new).await?;
    let key = ForwardKey::parse(&key).context("the key of forwarded requests in the database is damaged")?;
    Ok(http::Forwarding::new(key))
}

/// The name of the machine, as the kernel reports it.
fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "host".to_owned(),
        name => name.to_owned(),
    }
}

/// The name of the operator token in the data directory. Each of several hosts of a database has its own.
fn local_token(store: &Store) -> String {
    store.directory_id().map_or_else(
        || http::LOCAL_TOKEN.to_owned(),
        |id| format!("{}{id}", http::LOCAL_TOKEN_OF_NODE),
    )
}

/// The address itself is a valid host name in addition to the configured names, because it cannot be spoofed by DNS.
pub(super) fn http(
    config: &HostConfig,
    address: SocketAddr,
    store: &Store,
    forwarding: Option<Arc<http::Forwarding>>,
) -> http::Config {
    let loopback = config::is_loopback(address.ip());
    let mut hosts = config.hosts.clone();
    if !loopback && !address.ip().is_unspecified() {
        hosts.push(address.ip().to_string());
    }
    http::Config {
        loopback,
        hosts,
        sql: config.sql,
        reads_need_token: config.reads_need_token,
        answer_bytes: config.answer_bytes,
        local_token: local_token(store),
        forwarding,
    }
}

pub(super) fn plugins(config: &HostConfig) -> anyhow::Result<lantern_plugin::EngineConfig> {
    let limits = &config.limits;
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let program =
        std::env::current_exe().context("failed to find the program file, which compiles plugins")?;
    let defaults = lantern_plugin::Limits::default();
    Ok(lantern_plugin::EngineConfig {
        limits: lantern_plugin::Limits {
            memory_bytes: bytes(limits.memory_bytes),
            message_time: limits.message_time,
            rows_per_message: limits.rows_per_message as usize,
            bytes_per_message: bytes(limits.bytes_per_message),
            module_bytes: bytes(limits.module_bytes),
            compile_time: limits.compile_time,
            compile_memory_bytes: limits.compile_memory_bytes,
            ..defaults
        },
        cache_dir: Some(config.data_dir.join("cache")),
        compiler: Compiler::Child { program },
    })
}

pub(super) fn lifecycle(config: &HostConfig, owner: String) -> lifecycle::LifecycleConfig {
    lifecycle::LifecycleConfig {
        components_dir: config.data_dir.join("components"),
        plugin_dir: config.plugin_dir.clone(),
        signatures: config.signatures.clone(),
        projections: projection::ProjectionConfig {
            messages_max: config.batch.messages_max as usize,
            bytes_max: usize::try_from(config.batch.bytes_max).unwrap_or(usize::MAX),
            create_streams: config.streams_create,
            confirm_after: config.streams_confirm_after,
            dead_letters_max: config.limits.dead_letters_max,
            owner,
            consumer_prefix: config.consumer_prefix.clone(),
        },
    }
}

pub(super) fn broker(config: &HostConfig) -> anyhow::Result<lantern_broker::BrokerConfig> {
    Ok(match &config.broker {
        BrokerSettings::Embedded { binary, port } => {
            lantern_broker::BrokerConfig::new(BrokerLocation::Embedded(EmbeddedConfig {
                binary: binary.clone(),
                dir: absolute(config.data_dir.join("broker"))?,
                port: (*port != 0).then_some(*port),
            }))
        }
        BrokerSettings::Remote(remote) => remote_broker(remote)?,
    })
}

/// Connection settings of an external broker.
///
/// # Errors
/// If the file with the user name cannot be read.
pub fn remote_broker(remote: &RemoteBroker) -> anyhow::Result<lantern_broker::BrokerConfig> {
    Ok(lantern_broker::BrokerConfig {
        jetstream_domain: remote.jetstream_domain.clone(),
        jetstream_api_prefix: remote.jetstream_api_prefix.clone(),
        inbox_prefix: remote.inbox_prefix.clone(),
        ..lantern_broker::BrokerConfig::new(place(remote)?)
    })
}

/// Absolute, because nats-server runs in another working directory.
fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("failed to resolve {}", path.display()))
}

fn place(settings: &RemoteBroker) -> anyhow::Result<BrokerLocation> {
    let urls = match &settings.servers {
        Servers::Urls(urls) => urls.clone(),
        Servers::Context(name) => {
            return Ok(BrokerLocation::Context {
                name: name.clone(),
                folder: None,
            });
        }
    };
    let mut remote = Remote {
        urls,
        ..Remote::default()
    };
    match &settings.login {
        Login::None => {}
        Login::Credentials(file) => remote.credentials_file = Some(file.clone()),
        Login::Nkey(file) => remote.nkey_file = Some(file.clone()),
        Login::Password {
            user_file,
            password_file,
        } => {
            let user = std::fs::read_to_string(user_file)
                .with_context(|| format!("failed to read broker.user_file {}", user_file.display()))?;
            remote.user = Some(user.trim().to_owned());
            remote.password = Some(SecretSource::File(password_file.clone()));
        }
        Login::Token(file) => remote.token = Some(SecretSource::File(file.clone())),
    }
    let (cert, key) = settings.tls.identity.clone().unzip();
    remote.tls = Tls {
        ca: settings.tls.ca.clone(),
        cert,
        key,
        first: settings.tls.first,
    };
    Ok(BrokerLocation::Remote(remote))
}

/// File in the data directory with the key of the compile cache.
const CACHE_KEY_FILE: &str = "cache.key";

/// The key that seals the compile cache, created once for each data directory, so that the host does not run code that
/// another user puts into the cache. It is in a separate file, because readers of the database must not learn it.
pub(super) async fn cache_key(config: &HostConfig, store: &Store) -> anyhow::Result<[u8; 32]> {
    let key = private_files::load_or_create_secret(&config.data_dir.join(CACHE_KEY_FILE))?;
    // Earlier versions kept a key in the database. The host compiles those components again.
    store.remove_fact("cache_key").await?;
    Ok(key)
}
