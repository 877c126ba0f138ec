//! What the operator decides. Reads the file, the environment and the flags, checks everything, reports all that
//! is wrong at once, and hands each module its part. Starts nothing and creates nothing.
//!
//! Two types: [`Sources`] is what was written, [`Config`] is what it means. The program sees only the second.

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

pub use layers::{Flag, Origin, Sources, variable_name};
pub use show::reference;
pub use value::{is_loopback, redact};

use settings::SETTINGS;
use value::{Value, Written};

use lantern_trust::signature::{Policy, Rule};

/// The variable in which systemd names the directory of a unit with `StateDirectory=`.
const DATA_DIR_VARIABLE: &str = "STATE_DIRECTORY";

const DATA_DIR_DEFAULT: &str = "./lantern-data";

/// Everything that the host is told, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the database, the compile cache and the embedded broker's streams are kept.
    pub data_dir: PathBuf,
    /// Where plugins are loaded from.
    pub plugin_dir: PathBuf,
    /// Whether the operator named `plugin_dir`, or it is the default and may have to be made.
    pub plugin_dir_is_default: bool,
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Names by which requests may call the host, besides those of loopback; in lower case. Not empty when `listen`
    /// is not loopback.
    pub hosts: Vec<String>,
    /// Whether operators may ask the database in SQL.
    pub sql: bool,
    /// Whether reads need a token on loopback as well.
    pub reads_need_token: bool,
    /// Memory for answers that clients have not read yet.
    pub answer_bytes: u64,
    /// Whether plugins have to be signed, and by whom.
    pub signatures: Policy,
    /// How long a stop may take.
    pub shutdown_time: Duration,
    /// Which broker, and how to reach it.
    pub broker: BrokerSettings,
    /// What the names of the host's durable consumers begin with.
    pub consumer_prefix: String,
    /// Whether missing streams are created.
    pub streams_create: bool,
    /// The time between the two observations of a cluster that have to agree before a source begins a new epoch.
    pub streams_confirm_after: Duration,
    /// How much goes into one batch.
    pub batch: BatchSettings,
    /// What a plugin may use.
    pub limits: LimitSettings,
    /// How the database is written.
    pub store: StoreSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// Which broker, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerSettings {
    /// The host runs its own.
    Embedded {
        /// The `nats-server` to run; none means the one on PATH.
        binary: Option<PathBuf>,
        /// Port on 127.0.0.1; 0 means a free one.
        port: u16,
    },
    /// Somebody else runs it.
    Remote(Box<RemoteBroker>),
}

/// A broker that somebody else runs.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteBroker {
    /// Where it is found.
    pub servers: Servers,
    /// How the host proves who it is.
    pub login: Login,
    /// JetStream domain.
    pub jetstream_domain: Option<String>,
    /// Prefix of the JetStream API's subjects.
    pub jetstream_api_prefix: Option<String>,
    /// Prefix of the subjects of answers.
    pub inbox_prefix: Option<String>,
    /// Transport security.
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

/// Where a broker is found.
#[derive(Clone, PartialEq, Eq)]
pub enum Servers {
    /// Addresses; at least one. They may hold passwords: [`redact`] before showing.
    Urls(Vec<String>),
    /// A context of the `nats` command line tool.
    Context(String),
}

/// How the host proves who it is to the broker. Paths only: secrets are read when they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Not at all, or by what the address or the context holds.
    None,
    /// A `.creds` file.
    Credentials(PathBuf),
    /// A file that holds an nkey seed.
    Nkey(PathBuf),
    /// User name and password, in files.
    Password {
        /// Holds the user name.
        user_file: PathBuf,
        /// Holds the password.
        password_file: PathBuf,
    },
    /// A token, in a file.
    Token(PathBuf),
}

/// Transport security towards the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The host's own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Begin with TLS, before the server's greeting.
    pub first: bool,
}

/// How much goes into one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// Most messages.
    pub messages_max: u32,
    /// Most bytes of messages.
    pub bytes_max: u64,
}

/// What a plugin may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Bytes of memory of an instance.
    pub memory_bytes: u64,
    /// Time for one message.
    pub message_time: Duration,
    /// Rows made of one message.
    pub rows_per_message: u32,
    /// Bytes of rows made of one message.
    pub bytes_per_message: u64,
    /// Bytes of a plugin file.
    pub module_bytes: u64,
    /// Time for compiling.
    pub compile_time: Duration,
    /// Bytes of memory for compiling.
    pub compile_memory_bytes: u64,
    /// Open dead letters of a plugin.
    pub dead_letters_max: u64,
}

/// How the database is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Whether each commit waits for the disk.
    pub synchronous_full: bool,
    /// Page cache of the writing connection.
    pub cache_bytes: u64,
    /// Size of the file that is given up when the disk is full; 0 for none.
    pub reserve_bytes: u64,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A filter that has been checked.
    pub filter: String,
    /// Whether each line is a JSON object.
    pub json: bool,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting's path; empty where a file as a whole is meant.
    pub setting: String,
    /// Who wrote it.
    pub origin: Origin,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: String,
}

impl Problem {
    fn new(setting: &str, origin: &Origin, message: impl Into<String>, fix: impl Into<String>) -> Self {
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

/// The configuration cannot be used; nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {}", counted(problems))]
pub struct ConfigError {
    /// All that is wrong: line by line of the file, then the environment, then the flags.
    pub problems: Vec<Problem>,
}

fn counted(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

/// The values that hold, and who wrote them.
#[derive(Clone, Debug)]
pub struct Resolved {
    values: BTreeMap<&'static str, (Value, Origin)>,
}

impl Resolved {
    fn get(&self, path: &str) -> Option<(&Value, &Origin)> {
        self.values.get(path).map(|(value, origin)| (value, origin))
    }

    /// Where the value of a setting comes from; none where it has no value.
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.get(path).map(|(_, origin)| origin)
    }

    /// Where the database and all else is kept; known also when other settings have problems.
    pub fn data_dir(&self) -> PathBuf {
        match self.get("data_dir") {
            Some((Value::Path(path), _)) => path.clone(),
            _ => PathBuf::from(DATA_DIR_DEFAULT),
        }
    }

    /// Whether the data directory was set by a flag, a variable or a file, and is not the default.
    pub fn data_dir_is_named(&self) -> bool {
        let origin = self.get("data_dir").map(|(_, origin)| origin);
        origin.is_some_and(|origin| *origin != Origin::Default)
    }

    /// Each setting with its value and origin, as a TOML file with comments. Passwords are left out.
    pub fn show(&self) -> String {
        show::show(self)
    }
}

/// Reads and checks everything. The values that could be read are there also when the rest has problems, so
/// that `lantern config show` can show them.
pub fn resolve(sources: &Sources) -> (Resolved, Result<Config, ConfigError>) {
    let mut problems = Problems::new();
    let mut resolved = Resolved {
        values: BTreeMap::new(),
    };
    for setting in SETTINGS {
        if let Some(text) = setting.preset.written() {
            // A test parses every preset, so that none is dropped here.
            if let Ok(value) = Value::parse(setting.kind, &Written::Bare(text), Path::new("")) {
                resolved.values.insert(setting.path, (value, Origin::Default));
            }
        }
    }
    for layers::Entry {
        setting,
        written,
        origin,
    } in layers::read(sources, &mut problems)
    {
        let base = match &origin {
            Origin::File { path, .. } => path.parent().unwrap_or(Path::new("")),
            _ => Path::new(""),
        };
        match Value::parse(setting.kind, &written, base) {
            Ok(value) => {
                resolved.values.insert(setting.path, (value, origin));
            }
            Err(misfit) => {
                problems.push(Problem::new(setting.path, &origin, misfit.message, misfit.fix));
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
            problems.sort_by_key(|problem| problem.origin.place());
            Err(ConfigError { problems })
        }
    };
    (resolved, config)
}

/// The broker that the settings name, whatever the other settings are; none when the host is to run its own.
///
/// # Errors
/// All that is wrong with the settings of the broker.
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

/// Fills in the defaults that depend on something else.
fn derive(sources: &Sources, resolved: &mut Resolved) {
    // systemd separates several directories by colons; the first is the unit's own.
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
        .or_insert((plugin_dir, Origin::Default));
    resolved
        .values
        .entry("streams.create")
        .or_insert((Value::Boolean(embedded), Origin::Default));
}

/// Picks typed values out of what was resolved. A missing one is a mistake of this module and is reported.
struct Picker<'a>(&'a Resolved);

impl Picker<'_> {
    fn absent<T>(path: &str) -> Result<T, Problem> {
        Err(Problem::new(
            path,
            &Origin::Default,
            "has no value",
            "report this: it is a mistake in Lantern",
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

    /// A count whose range in the table of settings fits 32 bits.
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

fn compose(resolved: &Resolved) -> Result<Config, Problem> {
    let pick = Picker(resolved);
    let listen = match resolved.get("listen") {
        Some((Value::Address(address), _)) => *address,
        _ => return Picker::absent("listen"),
    };
    let plugin_dir_is_default = resolved
        .get("plugin_dir")
        .is_none_or(|(_, origin)| *origin == Origin::Default);
    Ok(Config {
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
        signatures: Policy {
            rule: match pick.text("plugins.signatures").as_deref() {
                Some("require") => Rule::Require,
                Some("warn") => Rule::Warn,
                _ => Rule::Off,
            },
            keys: keys::read(resolved).0,
        },
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
        limits: LimitSettings {
            memory_bytes: pick.number("limits.memory")?,
            message_time: pick.time("limits.message_time")?,
            rows_per_message: pick.count("limits.rows_per_message")?,
            bytes_per_message: pick.number("limits.bytes_per_message")?,
            module_bytes: pick.number("limits.module_size")?,
            compile_time: pick.time("limits.compile_time")?,
            compile_memory_bytes: pick.number("limits.compile_memory")?,
            dead_letters_max: pick.number("limits.dead_letters_max")?,
        },
        store: StoreSettings {
            synchronous_full: pick.text("store.synchronous").is_some_and(|word| word == "full"),
            cache_bytes: pick.number("store.cache_size")?,
            reserve_bytes: pick.number("store.reserve_size")?,
        },
        log: LogSettings {
            filter: pick
                .text("log.filter")
                .map_or_else(|| Picker::absent("log.filter"), Ok)?,
            json: pick.text("log.format").is_some_and(|word| word == "json"),
        },
    })
}

fn compose_broker(pick: &Picker<'_>) -> Result<BrokerSettings, Problem> {
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

#[cfg(test)]
mod tests;
