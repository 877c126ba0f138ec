//! The table of settings: path, kind, default and description. Validation, `lantern config show` and
//! `lantern config reference` all use it.

use std::ops::RangeInclusive;
use std::time::Duration;

use lantern_model::settings;
use lantern_store::PageSize;

/// Type and valid range of a setting's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A path that need not exist.
    Path,
    /// Path of an existing, readable file.
    File,
    /// Path of a directory, which must exist unless it is the default.
    Directory,
    /// `ADDRESS:PORT`.
    Address,
    /// One or more `nats://` or `tls://` URLs, separated by commas.
    Urls,
    /// The address of a database of a PostgreSQL server.
    Database,
    /// An `http://` or `https://` URL without a path.
    ApiUrl,
    /// One or more names of this host, separated by commas, without ports.
    Hosts,
    /// One or more minisign public keys, or paths of files with one, separated by commas.
    Keys,
    /// One word: letters, digits, `-` and `_`.
    Name,
    /// A subject prefix: tokens separated by dots, without wildcards.
    Prefix,
    /// A filter of `tracing_subscriber`.
    LogFilter,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Count {
        /// Minimum.
        min: u64,
        /// Maximum.
        max: u64,
    },
    /// A number of bytes, or text with a unit.
    Size {
        /// Minimum.
        min: u64,
        /// Maximum.
        max: u64,
    },
    /// A duration with a unit.
    Time {
        /// Minimum.
        min: Duration,
        /// Maximum.
        max: Duration,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// Default of a setting.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    /// No value.
    Unset,
    /// A value, as in a file.
    Value(&'static str),
    /// A number.
    Number(u64),
    /// A number of bytes.
    Bytes(u64),
    /// A duration.
    Span(Duration),
    /// A value that depends on other settings, with its description.
    Derived(&'static str),
}

impl Preset {
    /// The value as in a file; `None` without a fixed value.
    pub fn text(self) -> Option<String> {
        match self {
            Self::Unset | Self::Derived(_) => None,
            Self::Value(text) => Some(text.to_owned()),
            Self::Number(number) => Some(number.to_string()),
            Self::Bytes(bytes) => Some(settings::ByteSize(bytes).to_string()),
            Self::Span(span) => Some(humantime::format_duration(span).to_string()),
        }
    }
}

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Dotted path in the file. In the environment: upper case, with the prefix `LANTERN__` and `__` for each dot.
    pub path: &'static str,
    /// Type and range of the value.
    pub kind: Kind,
    /// Default.
    pub preset: Preset,
    /// Description.
    pub doc: &'static str,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn setting(path: &'static str, kind: Kind, preset: Preset, doc: &'static str) -> Setting {
    Setting {
        path,
        kind,
        preset,
        doc,
    }
}

const fn size(bounds: RangeInclusive<u64>) -> Kind {
    Kind::Size {
        min: *bounds.start(),
        max: *bounds.end(),
    }
}

const fn count(bounds: RangeInclusive<u64>) -> Kind {
    Kind::Count {
        min: *bounds.start(),
        max: *bounds.end(),
    }
}

const fn time(bounds: RangeInclusive<Duration>) -> Kind {
    Kind::Time {
        min: *bounds.start(),
        max: *bounds.end(),
    }
}

const fn millis(min: u64, max: u64) -> Kind {
    Kind::Time {
        min: Duration::from_millis(min),
        max: Duration::from_millis(max),
    }
}

use Kind::{
    Address, ApiUrl, Boolean, Choice, Count, Database, Directory, File, Hosts, Keys, LogFilter, Name, Path,
    Prefix, Size, Urls,
};
use Preset::{Bytes, Derived, Number, Span, Unset, Value};

/// All settings, in the order of the reference.
pub const SETTINGS: &[Setting] = &[
    setting(
        "data_dir",
        Path,
        Derived("$STATE_DIRECTORY, else ./lantern-data"),
        "Directory of the database, the compile cache and the embedded broker's streams.",
    ),
    setting(
        "plugin_dir",
        Directory,
        Derived("DATA_DIR/plugins"),
        "Directory of plugins. The host loads every *.wasm file in it at startup.",
    ),
    setting(
        "listen",
        Address,
        Value("127.0.0.1:7070"),
        "Address of the API and the dashboard; port 0 selects a free port. Outside loopback, every request requires a \
         token, and http.hosts must be set.",
    ),
    setting(
        "shutdown_time",
        millis(100, 600_000),
        Value("5s"),
        "Time limit of the shutdown, after which remaining work is aborted. No message is lost.",
    ),
    setting(
        "http.hosts",
        Hosts,
        Unset,
        "Host names that requests may use, such as the name of a proxy or of this machine. Names and addresses of \
         loopback are always valid.",
    ),
    setting(
        "http.sql",
        Boolean,
        Value("false"),
        "Whether operators may query the database with SQL through API and dashboard: read-only, with limits on time \
         and rows.",
    ),
    setting(
        "http.reads_need_token",
        Boolean,
        Value("false"),
        "Whether reads on loopback require a token, too. Set it if other users of the machine must not read the tables.",
    ),
    setting(
        "http.answer_memory",
        Size {
            min: 16 * MIB,
            max: 16 * GIB,
        },
        Value("32 MiB"),
        "Total memory limit of responses that clients have not read yet. One client may use at most half of it; a \
         request that gets no memory within two seconds fails with status 503.",
    ),
    setting(
        "plugins.signatures",
        Choice(&["off", "warn", "require"]),
        Value("off"),
        "Whether plugins must be signed with one of plugins.keys: off does not check, warn logs a warning, require \
         rejects other components.",
    ),
    setting(
        "plugins.keys",
        Keys,
        Unset,
        "Trusted minisign public keys, or paths of their .pub files.",
    ),
    setting(
        "broker.url",
        Urls,
        Unset,
        "URL of the NATS servers. Without it and broker.context, the host runs an embedded nats-server.",
    ),
    setting(
        "broker.context",
        Name,
        Unset,
        "Context of the nats command line tool, with servers and credentials.",
    ),
    setting(
        "broker.credentials_file",
        File,
        Unset,
        "Credentials file (.creds) for the NATS servers.",
    ),
    setting("broker.user_file", File, Unset, "File with the user name."),
    setting("broker.password_file", File, Unset, "File with the password."),
    setting("broker.token_file", File, Unset, "File with the token."),
    setting("broker.nkey_file", File, Unset, "File with an nkey seed."),
    setting(
        "broker.jetstream_domain",
        Name,
        Unset,
        "JetStream domain, if it differs from the domain of the server.",
    ),
    setting(
        "broker.jetstream_api_prefix",
        Prefix,
        Unset,
        "Subject prefix of the JetStream API, if the account imports it under another name than $JS.API.",
    ),
    setting(
        "broker.inbox_prefix",
        Prefix,
        Unset,
        "Subject prefix of replies, if the account permits only a certain prefix.",
    ),
    setting(
        "broker.consumer_prefix",
        Name,
        Value("lantern"),
        "Prefix of the names of the host's durable consumers. Two hosts that read the same streams into separate \
         databases need different prefixes.",
    ),
    setting(
        "broker.tls.ca",
        File,
        Unset,
        "CA certificates (PEM) that verify the servers, instead of the system's.",
    ),
    setting("broker.tls.cert", File, Unset, "Client certificate (PEM)."),
    setting(
        "broker.tls.key",
        File,
        Unset,
        "Key (PEM) of the client certificate.",
    ),
    setting(
        "broker.tls.first",
        Boolean,
        Value("false"),
        "Whether to start TLS before the server's greeting.",
    ),
    setting(
        "broker.embedded.binary",
        File,
        Derived("nats-server from PATH"),
        "Path of the nats-server for the embedded broker.",
    ),
    setting(
        "broker.embedded.port",
        Count { min: 0, max: 65_535 },
        Value("0"),
        "Port of the embedded broker on 127.0.0.1. 0 selects a free port; DATA_DIR/broker/nats.url contains the URL.",
    ),
    setting(
        "streams.create",
        Boolean,
        Derived("true with the embedded broker, else false"),
        "Whether the host creates missing streams that a plugin reads, instead of waiting for them.",
    ),
    setting(
        "streams.confirm_after",
        millis(100, 600_000),
        Value("10s"),
        "On a cluster, time between two observations that must agree before a source begins a new epoch.",
    ),
    setting(
        "batch.messages_max",
        Count { min: 1, max: 65_536 },
        Value("16384"),
        "Maximum number of messages in a batch.",
    ),
    setting(
        "batch.bytes_max",
        Size {
            min: 64 * KIB,
            max: 256 * MIB,
        },
        Value("8 MiB"),
        "Maximum bytes of messages in a batch. A larger message forms its own batch.",
    ),
    setting(
        "limits.memory",
        size(settings::MEMORY_BYTES),
        Bytes(settings::MEMORY_BYTES_DEFAULT),
        "Memory limit of a plugin.",
    ),
    setting(
        "limits.message_time",
        time(settings::MESSAGE_TIME),
        Span(settings::MESSAGE_TIME_DEFAULT),
        "Time limit of a plugin for one message.",
    ),
    setting(
        "limits.rows_per_message",
        count(settings::ROWS_PER_MESSAGE),
        Number(settings::ROWS_PER_MESSAGE_DEFAULT),
        "Maximum number of rows for one message.",
    ),
    setting(
        "limits.bytes_per_message",
        size(settings::BYTES_PER_MESSAGE),
        Bytes(settings::BYTES_PER_MESSAGE_DEFAULT),
        "Maximum bytes of rows for one message.",
    ),
    setting(
        "limits.module_size",
        Size { min: KIB, max: GIB },
        Bytes(settings::MODULE_BYTES_DEFAULT),
        "Maximum size of a component.",
    ),
    setting(
        "limits.compile_time",
        millis(100, 600_000),
        Span(settings::COMPILE_TIME_DEFAULT),
        "Time limit for compiling a component.",
    ),
    setting(
        "limits.compile_memory",
        Size {
            min: 64 * MIB,
            max: 16 * GIB,
        },
        Bytes(settings::COMPILE_MEMORY_BYTES_DEFAULT),
        "Memory limit for compiling a component.",
    ),
    setting(
        "limits.dead_letters_max",
        count(settings::DEAD_LETTERS),
        Value("100000"),
        "Maximum number of open dead letters of a source. At the limit the source stops, so that no message is lost.",
    ),
    setting(
        "store.synchronous",
        Choice(&["normal", "full"]),
        Value("normal"),
        "Whether each commit waits for the disk. Commits of streams that delete acknowledged messages always do.",
    ),
    setting(
        "store.cache_size",
        Size {
            min: MIB,
            max: 16 * GIB,
        },
        Value("32 MiB"),
        "Page cache of the writer connection.",
    ),
    setting(
        "store.page_size",
        Choice(&PageSize::NAMES),
        Value(PageSize::DEFAULT.name()),
        "Size of the pages of a new database; an existing one keeps its own. A commit writes each changed page as a whole, so \
         smaller pages write less to the disk, and cost CPU time at full rate.",
    ),
    setting(
        "store.reserve_size",
        Size { min: 0, max: GIB },
        Value("16 MiB"),
        "Size of a reserve file that the host deletes when the disk is full, so that it can still write. 0 disables it.",
    ),
    setting(
        "store.url",
        Database,
        Unset,
        "Address of the PostgreSQL database that has the tables. Without it, they are in a file of SQLite in the data directory.",
    ),
    setting(
        "store.commit_delay",
        millis(0, 1_000),
        Span(lantern_store::StoreConfig::COMMIT_DELAY),
        "Least time between two commits: messages that arrive earlier share the next one. With 2ms the host writes 30 % \
         less to the disk at 1,000 messages/s, and rows become visible 1 ms later.",
    ),
    setting(
        "node.name",
        Name,
        Derived("the name of the machine and the port"),
        "Name of this host among those of one PostgreSQL database.",
    ),
    setting(
        "node.url",
        ApiUrl,
        Derived("the listening address"),
        "URL at which the other hosts reach the API of this host.",
    ),
    setting(
        "log.filter",
        LogFilter,
        Value("info,async_nats=off"),
        "Log filter, such as \"info,lantern_broker=debug\".",
    ),
    setting(
        "log.format",
        Choice(&["text", "json"]),
        Value("text"),
        "Format of the log on standard error.",
    ),
];

/// The setting with this path.
pub fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

/// Whether `path` is a section, such as `broker.tls`.
pub fn is_section(path: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        setting
            .path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The setting whose path is most similar to `path`, as a suggestion.
pub fn nearest(path: &str) -> Option<&'static str> {
    // Below this similarity, suggestions are useless, such as "store.cache_size" for "color".
    const SIMILARITY_MIN: f64 = 0.82;
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let own_last = path.rsplit('.').next().unwrap_or(path);
    let similarity = |candidate: &'static str| {
        let whole = strsim::jaro_winkler(candidate, path);
        // The right key in the wrong section, or without section.
        if last(candidate) == own_last {
            whole.max(0.9)
        } else {
            whole
        }
    };
    SETTINGS
        .iter()
        .map(|setting| (similarity(setting.path), setting.path))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        // Of equally similar ones the first, which is the more usual one.
        .reduce(|best, other| if other.0 > best.0 { other } else { best })
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests;
