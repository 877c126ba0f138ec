//! The configuration. Reads the file, the environment and the flags, checks everything, and reports all problems at once.
//! Starts and creates nothing.
//!
//! [`Sources`] is the input, [`HostConfig`] the checked result. The rest of the program sees only the result.

mod compose;
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod layers;
mod rules;
mod settings;
mod show;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use layers::{Flag, SettingOrigin, Sources, variable_name};
pub use show::reference;
pub use value::{is_loopback, redact};

use compose::{Picker, compose, compose_broker};
use settings::SETTINGS;
use value::{RawSetting, Value};

use lantern_trust::signature::Policy;

/// Variable with which systemd passes the directory of a unit with `StateDirectory=`.
const DATA_DIR_VARIABLE: &str = "STATE_DIRECTORY";

const DATA_DIR_DEFAULT: &str = "./lantern-data";

/// The checked configuration of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Directory of the database, the compile cache and the embedded broker's streams.
    pub data_dir: PathBuf,
    /// Directory from which plugins are loaded.
    pub plugin_dir: PathBuf,
    /// Whether `plugin_dir` is the default, which the host creates if it is missing.
    pub plugin_dir_is_default: bool,
    /// Listening address of the API.
    pub listen: SocketAddr,
    /// Valid host names of requests, in addition to those of loopback; in lower case. Not empty if `listen` is not loopback.
    pub hosts: Vec<String>,
    /// Whether operators may query the database with SQL.
    pub sql: bool,
    /// Whether reads require a token on loopback, too.
    pub reads_need_token: bool,
    /// Memory limit of responses that clients have not read yet.
    pub answer_bytes: u64,
    /// Whether plugins must be signed, and the trusted keys.
    pub signatures: Policy,
    /// Time limit of the shutdown.
    pub shutdown_time: Duration,
    /// The broker.
    pub broker: BrokerSettings,
    /// Prefix of the names of the host's durable consumers.
    pub consumer_prefix: String,
    /// Whether the host creates missing streams.
    pub streams_create: bool,
    /// Time between the two observations of a cluster that must agree before a source begins a new epoch.
    pub streams_confirm_after: Duration,
    /// Limits of a batch.
    pub batch: BatchSettings,
    /// Limits of a plugin.
    pub limits: PluginLimits,
    /// Settings of the database.
    pub store: StoreSettings,
    /// This host among those of one PostgreSQL database.
    pub node: NodeSettings,
    /// Settings of the log.
    pub log: LogSettings,
}

/// The broker: embedded or remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerSettings {
    /// The host runs its own `nats-server`.
    Embedded {
        /// Path of `nats-server`; `None` means the one on PATH.
        binary: Option<PathBuf>,
        /// Port on 127.0.0.1; 0 means a free port.
        port: u16,
    },
    /// An external broker.
    Remote(Box<RemoteBroker>),
}

/// An external broker.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteBroker {
    /// Its servers.
    pub servers: Servers,
    /// Credentials.
    pub login: Login,
    /// JetStream domain.
    pub jetstream_domain: Option<String>,
    /// Subject prefix of the JetStream API.
    pub jetstream_api_prefix: Option<String>,
    /// Subject prefix of replies.
    pub inbox_prefix: Option<String>,
    /// TLS settings.
    pub tls: TlsSettings,
}

impl fmt::Debug for RemoteBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = match &self.servers {
            Servers::Urls(urls) => redact(&urls.join(",")),
            Servers::Context(name) => format!("context {name}"),
        };
        f.debug_struct("RemoteBroker")
            .field("servers", &servers)
            .field("login", &self.login)
            .field("jetstream_domain", &self.jetstream_domain)
            .field("jetstream_api_prefix", &self.jetstream_api_prefix)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("tls", &self.tls)
            .finish()
    }
}

/// The servers of a broker.
#[derive(Clone, PartialEq, Eq)]
pub enum Servers {
    /// URLs; at least one. They may contain passwords: [`redact`] them before printing.
    Urls(Vec<String>),
    /// A context of the `nats` command line tool.
    Context(String),
}

/// Credentials for the broker. Contains only paths: secrets are read when they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// None, or those in the URL or the context.
    None,
    /// A `.creds` file.
    Credentials(PathBuf),
    /// A file with an nkey seed.
    Nkey(PathBuf),
    /// User name and password, in files.
    Password {
        /// File with the user name.
        user_file: PathBuf,
        /// File with the password.
        password_file: PathBuf,
    },
    /// A token, in a file.
    Token(PathBuf),
}

/// TLS settings of the connection to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// CA certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Start TLS before the server's greeting.
    pub first: bool,
}

/// Limits of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// Maximum number of messages.
    pub messages_max: u32,
    /// Maximum bytes of messages.
    pub bytes_max: u64,
}

/// Limits of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Memory of an instance, in bytes.
    pub memory_bytes: u64,
    /// Time for one message.
    pub message_time: Duration,
    /// Rows of one message.
    pub rows_per_message: u32,
    /// Bytes of the rows of one message.
    pub bytes_per_message: u64,
    /// Size of a component, in bytes.
    pub module_bytes: u64,
    /// Time for compiling.
    pub compile_time: Duration,
    /// Memory for compiling, in bytes.
    pub compile_memory_bytes: u64,
    /// Open dead letters of a plugin.
    pub dead_letters_max: u64,
}

/// Settings of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Whether each commit waits for the disk.
    pub synchronous_full: bool,
    /// Page cache of the writer.
    pub cache_bytes: u64,
    /// Size of the pages of a new database.
    pub page_size: lantern_store::PageSize,
    /// Size of the reserve file, which is deleted when the disk is full; 0 for none.
    pub reserve_bytes: u64,
    /// Least time between two commits of live batches.
    pub commit_delay: Duration,
    /// The PostgreSQL server that has the tables; none for a file.
    pub server: Option<lantern_store::Server>,
}

/// A host among those of one PostgreSQL database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// Its name; none for the name of the machine.
    pub name: Option<String>,
    /// The URL of its API for the other hosts; none for the listening address.
    pub url: Option<String>,
}

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A valid filter.
    pub filter: String,
    /// Whether each line is a JSON object.
    pub json: bool,
}

/// A problem of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the setting; empty for a problem of a whole file.
    pub setting: String,
    /// Origin of the value.
    pub origin: SettingOrigin,
    /// The problem.
    pub message: String,
    /// How to fix it.
    pub fix: String,
}

impl Problem {
    fn new(
        setting: &str,
        origin: &SettingOrigin,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            setting: setting.to_owned(),
            origin: origin.clone(),
            message: message.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting,
            origin,
            message,
            fix,
        } = self;
        match setting.as_str() {
            "" => write!(f, "{origin}: {message}; {fix}"),
            setting => write!(f, "{origin}: {setting}: {message}; {fix}"),
        }
    }
}

type Problems = Vec<Problem>;

/// The configuration is invalid; nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("invalid configuration: {}", count(problems))]
pub struct ConfigError {
    /// All problems: of the file by line, then of the environment, then of the flags.
    pub problems: Vec<Problem>,
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

/// The effective values with their origins.
#[derive(Clone, Debug)]
pub struct Resolved {
    values: BTreeMap<&'static str, (Value, SettingOrigin)>,
}

impl Resolved {
    fn get(&self, path: &str) -> Option<(&Value, &SettingOrigin)> {
        self.values.get(path).map(|(value, origin)| (value, origin))
    }

    /// Origin of the value of a setting; `None` if it has no value.
    pub fn origin(&self, path: &str) -> Option<&SettingOrigin> {
        self.get(path).map(|(_, origin)| origin)
    }

    /// The data directory, also if other settings have problems.
    pub fn data_dir(&self) -> PathBuf {
        match self.get("data_dir") {
            Some((Value::Path(path), _)) => path.clone(),
            _ => PathBuf::from(DATA_DIR_DEFAULT),
        }
    }

    /// Whether a flag, a variable or a file sets the data directory.
    pub fn data_dir_is_named(&self) -> bool {
        let origin = self.get("data_dir").map(|(_, origin)| origin);
        origin.is_some_and(|origin| *origin != SettingOrigin::Default)
    }

    /// Renders each setting with its value and origin, as a TOML file with comments, without passwords.
    pub fn show(&self) -> String {
        show::show(self)
    }
}

/// Reads and checks everything. Returns the readable values also if there are problems, for `lantern config show`.
pub fn resolve(sources: &Sources) -> (Resolved, Result<HostConfig, ConfigError>) {
    let mut problems = Problems::new();
    let mut resolved = Resolved {
        values: BTreeMap::new(),
    };
    for setting in SETTINGS {
        if let Some(text) = setting.preset.text() {
            // A test parses every preset, so none is dropped here.
            if let Ok(value) = Value::parse(setting.kind, &RawSetting::Bare(text), Path::new("")) {
                resolved
                    .values
                    .insert(setting.path, (value, SettingOrigin::Default));
            }
        }
    }
    for layers::Entry { setting, raw, origin } in layers::read(sources, &mut problems) {
        let base = match &origin {
            SettingOrigin::File { path, .. } => path.parent().unwrap_or(Path::new("")),
            _ => Path::new(""),
        };
        match Value::parse(setting.kind, &raw, base) {
            Ok(value) => {
                resolved.values.insert(setting.path, (value, origin));
            }
            Err(error) => {
                problems.push(Problem::new(setting.path, &origin, error.message, error.fix));
            }
        }
    }
    derive(sources, &mut resolved);
    rules::check(&resolved, &mut problems);
    let config = match (problems.is_empty(), compose(&resolved)) {
        (true, Ok(config)) => Ok(config),
        (true, Err(problem)) => Err(ConfigError {
            problems: vec![problem],
        }),
        (false, _) => {
            problems.sort_by_key(|problem| problem.origin.sort_key());
            Err(ConfigError { problems })
        }
    };
    (resolved, config)
}

/// Resolves only the settings of the broker; `None` if the host runs an embedded broker.
///
/// # Errors
/// All problems of the settings of the broker.
pub fn resolve_broker(sources: &Sources) -> Result<Option<RemoteBroker>, ConfigError> {
    let (resolved, config) = resolve(sources);
    let problems = config.err().map(|error| error.problems).unwrap_or_default();
    let is_about_brokers = |problem: &Problem| {
        problem.setting.is_empty() || problem.setting == "broker" || problem.setting.starts_with("broker.")
    };
    let problems: Problems = problems.into_iter().filter(is_about_brokers).collect();
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    match compose_broker(&Picker(&resolved)) {
        Ok(BrokerSettings::Remote(remote)) => Ok(Some(*remote)),
        Ok(BrokerSettings::Embedded { .. }) => Ok(None),
        Err(problem) => Err(ConfigError {
            problems: vec![problem],
        }),
    }
}

/// Fills in the defaults that depend on other settings or the environment.
fn derive(sources: &Sources, resolved: &mut Resolved) {
    // systemd separates several directories by colons; the first one is used.
    let state = sources
        .variable(DATA_DIR_VARIABLE)
        .and_then(|dirs| dirs.split(':').next());
    let state = state.filter(|dir| !dir.is_empty());
    let data_dir = match resolved.get("data_dir") {
        Some((Value::Path(path), _)) => path.clone(),
        _ => {
            let path = PathBuf::from(state.unwrap_or(DATA_DIR_DEFAULT));
            let origin = show::data_dir_origin(state.is_some());
            resolved
                .values
                .insert("data_dir", (Value::Path(path.clone()), origin));
            path
        }
    };
    let embedded = resolved.get("broker.url").is_none() && resolved.get("broker.context").is_none();
    let plugin_dir = Value::Path(data_dir.join("plugins"));
    resolved
        .values
        .entry("plugin_dir")
        .or_insert((plugin_dir, SettingOrigin::Default));
    resolved
        .values
        .entry("streams.create")
        .or_insert((Value::Boolean(embedded), SettingOrigin::Default));
}

#[cfg(test)]
mod tests;
