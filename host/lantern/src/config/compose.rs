//! Creates the typed configuration from resolved values.

use std::path::PathBuf;
use std::time::Duration;

use super::value::Value;
use super::{
    BatchSettings, BrokerSettings, HostConfig, LogSettings, Login, NodeSettings, PluginLimits, Problem,
    RemoteBroker, Resolved, Servers, SettingOrigin, StoreSettings, TlsSettings, keys,
};
use lantern_store::PageSize;
use lantern_trust::signature::{Policy, Rule};

/// Reads typed values. A missing value is a bug of this module and is reported as a problem.
pub(super) struct Picker<'a>(pub(super) &'a Resolved);

impl Picker<'_> {
    fn absent<T>(path: &str) -> Result<T, Problem> {
        Err(Problem::new(
            path,
            &SettingOrigin::Default,
            "has no value",
            "report this: it is a bug in Lantern",
        ))
    }

    fn path(&self, path: &str) -> Option<PathBuf> {
        match self.0.get(path) {
            Some((Value::Path(value), _)) => Some(value.clone()),
            _ => None,
        }
    }

    fn text(&self, path: &str) -> Option<String> {
        match self.0.get(path) {
            Some((Value::Text(value), _)) => Some(value.clone()),
            _ => None,
        }
    }

    fn boolean(&self, path: &str) -> Result<bool, Problem> {
        match self.0.get(path) {
            Some((Value::Boolean(value), _)) => Ok(*value),
            _ => Self::absent(path),
        }
    }

    fn number(&self, path: &str) -> Result<u64, Problem> {
        match self.0.get(path) {
            Some((Value::Count(value) | Value::Size(value), _)) => Ok(*value),
            _ => Self::absent(path),
        }
    }

    /// A count whose range fits 32 bits.
    fn count(&self, path: &str) -> Result<u32, Problem> {
        u32::try_from(self.number(path)?).or_else(|_| Self::absent(path))
    }

    fn time(&self, path: &str) -> Result<Duration, Problem> {
        match self.0.get(path) {
            Some((Value::Time(value), _)) => Ok(*value),
            _ => Self::absent(path),
        }
    }
}

/// Creates the configuration from resolved values.
pub(super) fn compose(resolved: &Resolved) -> Result<HostConfig, Problem> {
    let pick = Picker(resolved);
    let listen = match resolved.get("listen") {
        Some((Value::Address(address), _)) => *address,
        _ => return Picker::absent("listen"),
    };
    let plugin_dir_is_default = resolved
        .get("plugin_dir")
        .is_none_or(|(_, origin)| *origin == SettingOrigin::Default);
    Ok(HostConfig {
        data_dir: pick
            .path("data_dir")
            .map_or_else(|| Picker::absent("data_dir"), Ok)?,
        plugin_dir: pick
            .path("plugin_dir")
            .map_or_else(|| Picker::absent("plugin_dir"), Ok)?,
        plugin_dir_is_default,
        listen,
        hosts: pick
            .text("http.hosts")
            .map_or_else(Vec::new, |hosts| hosts.split(',').map(str::to_owned).collect()),
        sql: pick.boolean("http.sql")?,
        reads_need_token: pick.boolean("http.reads_need_token")?,
        answer_bytes: pick.number("http.answer_memory")?,
        signatures: compose_signatures(resolved, &pick),
        shutdown_time: pick.time("shutdown_time")?,
        broker: compose_broker(&pick)?,
        consumer_prefix: pick
            .text("broker.consumer_prefix")
            .map_or_else(|| Picker::absent("broker.consumer_prefix"), Ok)?,
        streams_create: pick.boolean("streams.create")?,
        streams_confirm_after: pick.time("streams.confirm_after")?,
        batch: BatchSettings {
            messages_max: pick.count("batch.messages_max")?,
            bytes_max: pick.number("batch.bytes_max")?,
        },
        limits: compose_limits(&pick)?,
        store: compose_store(&pick)?,
        node: NodeSettings {
            name: pick.text("node.name"),
            url: pick.text("node.url"),
        },
        log: LogSettings {
            filter: pick
                .text("log.filter")
                .map_or_else(|| Picker::absent("log.filter"), Ok)?,
            json: pick.text("log.format").is_some_and(|value| value == "json"),
        },
    })
}

fn compose_store(pick: &Picker<'_>) -> Result<StoreSettings, Problem> {
    Ok(StoreSettings {
        synchronous_full: pick
            .text("store.synchronous")
            .is_some_and(|value| value == "full"),
        cache_bytes: pick.number("store.cache_size")?,
        page_size: pick
            .text("store.page_size")
            .and_then(|name| PageSize::named(&name))
            .map_or_else(|| Picker::absent("store.page_size"), Ok)?,
        reserve_bytes: pick.number("store.reserve_size")?,
        commit_delay: pick.time("store.commit_delay")?,
        server: pick.text("store.url").and_then(|url| url.parse().ok()),
    })
}

fn compose_signatures(resolved: &Resolved, pick: &Picker<'_>) -> Policy {
    Policy {
        rule: match pick.text("plugins.signatures").as_deref() {
            Some("require") => Rule::Require,
            Some("warn") => Rule::Warn,
            _ => Rule::Off,
        },
        keys: keys::read(resolved).0,
    }
}

fn compose_limits(pick: &Picker<'_>) -> Result<PluginLimits, Problem> {
    Ok(PluginLimits {
        memory_bytes: pick.number("limits.memory")?,
        message_time: pick.time("limits.message_time")?,
        rows_per_message: pick.count("limits.rows_per_message")?,
        bytes_per_message: pick.number("limits.bytes_per_message")?,
        module_bytes: pick.number("limits.module_size")?,
        compile_time: pick.time("limits.compile_time")?,
        compile_memory_bytes: pick.number("limits.compile_memory")?,
        dead_letters_max: pick.number("limits.dead_letters_max")?,
    })
}

/// Creates the settings of the broker.
pub(super) fn compose_broker(pick: &Picker<'_>) -> Result<BrokerSettings, Problem> {
    let servers = match (pick.text("broker.url"), pick.text("broker.context")) {
        (Some(urls), _) => Servers::Urls(urls.split(',').map(str::to_owned).collect()),
        (None, Some(context)) => Servers::Context(context),
        (None, None) => {
            let port = pick.number("broker.embedded.port")?;
            return Ok(BrokerSettings::Embedded {
                binary: pick.path("broker.embedded.binary"),
                port: u16::try_from(port).or_else(|_| Picker::absent("broker.embedded.port"))?,
            });
        }
    };
    let files = (
        pick.path("broker.credentials_file"),
        pick.path("broker.user_file")
            .zip(pick.path("broker.password_file")),
        pick.path("broker.token_file"),
        pick.path("broker.nkey_file"),
    );
    let login = match files {
        (Some(file), ..) => Login::Credentials(file),
        (None, Some((user_file, password_file)), ..) => Login::Password {
            user_file,
            password_file,
        },
        (None, None, Some(file), _) => Login::Token(file),
        (None, None, None, Some(file)) => Login::Nkey(file),
        (None, None, None, None) => Login::None,
    };
    Ok(BrokerSettings::Remote(Box::new(RemoteBroker {
        servers,
        login,
        jetstream_domain: pick.text("broker.jetstream_domain"),
        jetstream_api_prefix: pick.text("broker.jetstream_api_prefix"),
        inbox_prefix: pick.text("broker.inbox_prefix"),
        tls: TlsSettings {
            ca: pick.path("broker.tls.ca"),
            identity: pick.path("broker.tls.cert").zip(pick.path("broker.tls.key")),
            first: pick.boolean("broker.tls.first")?,
        },
    })))
}
