//! The one table of settings: path, kind, default and a line for people. Checking, `lantern config show` and
//! `lantern config reference` are all driven by it, so that a setting cannot exist in one of them only.

use std::ops::RangeInclusive;
use std::time::Duration;

use lantern_model::settings;

/// What a setting's value has to be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A path; nothing is asked of it.
    Path,
    /// A path to a file that can be read now.
    File,
    /// A path to a directory that is there now, when it is set by hand.
    Directory,
    /// `ADDRESS:PORT`.
    Address,
    /// One or several `nats://` or `tls://` addresses, separated by commas.
    Urls,
    /// One or several names of this host, separated by commas, without ports.
    Hosts,
    /// One or several public keys of minisign, or paths to files that hold one, separated by commas.
    Keys,
    /// One word: letters, digits, `-` and `_`.
    Name,
    /// The beginning of subjects: words with dots between, without wildcards.
    Prefix,
    /// What `tracing_subscriber` takes as a filter.
    LogFilter,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Count {
        /// Smallest value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// Bytes: a number, or text with a unit.
    Size {
        /// Fewest bytes.
        min: u64,
        /// Most bytes.
        max: u64,
    },
    /// Text with a unit.
    Time {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// What holds when nobody sets a value.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    /// Nothing: the setting is absent.
    Unset,
    /// This value, written as it would be in a file.
    Value(&'static str),
    /// This number.
    Number(u64),
    /// So many bytes.
    Bytes(u64),
    /// This span of time.
    Span(Duration),
    /// A value that depends on something else, said in words.
    Derived(&'static str),
}

impl Preset {
    /// The value as it would be written in a file; none where there is no fixed value.
    pub fn written(self) -> Option<String> {
        match self {
            Self::Unset | Self::Derived(_) => None,
            Self::Value(text) => Some(text.to_owned()),
            Self::Number(number) => Some(number.to_string()),
            Self::Bytes(bytes) => Some(settings::ByteSize(bytes).to_string()),
            Self::Span(span) => Some(humantime::format_duration(span).to_string()),
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Dotted path in the file. In the environment: upper case, `LANTERN__` in front, `__` for each dot.
    pub path: &'static str,
    /// What its value has to be.
    pub kind: Kind,
    /// What holds when nobody sets it.
    pub preset: Preset,
    /// A line for people.
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
    Address, Boolean, Choice, Count, Directory, File, Hosts, Keys, LogFilter, Name, Path, Prefix, Size, Urls,
};
use Preset::{Bytes, Derived, Number, Span, Unset, Value};

/// Every setting, in the order in which people are shown them.
pub const SETTINGS: &[Setting] = &[
    setting(
        "data_dir",
        Path,
        Derived("$STATE_DIRECTORY, else ./lantern-data"),
        "Where the database, the compile cache and the embedded broker's streams are kept.",
    ),
    setting(
        "plugin_dir",
        Directory,
        Derived("DATA_DIR/plugins"),
        "Every *.wasm file in it is loaded at start.",
    ),
    setting(
        "listen",
        Address,
        Value("127.0.0.1:7070"),
        "Where the API and the dashboard are served; port 0 takes a free one. Other than on loopback every request \
         needs a token, and http.hosts has to be set.",
    ),
    setting(
        "shutdown_time",
        millis(100, 600_000),
        Value("5s"),
        "How long a stop may take until what is left is cut off. Nothing is lost by it.",
    ),
    setting(
        "http.hosts",
        Hosts,
        Unset,
        "Names by which requests may call the host, such as a proxy's or this machine's on the network. Names and \
         addresses of loopback always may.",
    ),
    setting(
        "http.sql",
        Boolean,
        Value("false"),
        "Whether operators may ask the database in SQL, through the API and its page: reads only, with limits on time \
         and rows.",
    ),
    setting(
        "http.reads_need_token",
        Boolean,
        Value("false"),
        "Whether reads need a token on loopback as well. Set it on a machine whose other users are not to read the tables.",
    ),
    setting(
        "http.answer_memory",
        Size {
            min: 16 * MIB,
            max: 16 * GIB,
        },
        Value("32 MiB"),
        "Most memory for answers that clients have not read yet, all together. One client has at most half of it; a \
         request that finds no room within two seconds is answered with 503.",
    ),
    setting(
        "plugins.signatures",
        Choice(&["off", "warn", "require"]),
        Value("off"),
        "Whether plugins have to be signed with one of plugins.keys: nobody looks, those that are not run with a \
         warning, or they are refused.",
    ),
    setting(
        "plugins.keys",
        Keys,
        Unset,
        "Public keys of minisign whose signatures are good, or paths to their .pub files.",
    ),
    setting(
        "broker.url",
        Urls,
        Unset,
        "The NATS servers. Without it and without a context, the host runs a nats-server of its own.",
    ),
    setting(
        "broker.context",
        Name,
        Unset,
        "A context of the nats command line tool, which names servers and credentials.",
    ),
    setting(
        "broker.credentials_file",
        File,
        Unset,
        "Credentials (.creds) for the NATS servers.",
    ),
    setting(
        "broker.user_file",
        File,
        Unset,
        "A file that holds the user name.",
    ),
    setting(
        "broker.password_file",
        File,
        Unset,
        "A file that holds the password.",
    ),
    setting("broker.token_file", File, Unset, "A file that holds the token."),
    setting("broker.nkey_file", File, Unset, "A file that holds an nkey seed."),
    setting(
        "broker.jetstream_domain",
        Name,
        Unset,
        "The JetStream domain, when it is not the server's own.",
    ),
    setting(
        "broker.jetstream_api_prefix",
        Prefix,
        Unset,
        "The prefix of the JetStream API's subjects, when the account imports it under another name than $JS.API.",
    ),
    setting(
        "broker.inbox_prefix",
        Prefix,
        Unset,
        "The prefix of the subjects of answers, when the account permits only a certain one.",
    ),
    setting(
        "broker.consumer_prefix",
        Name,
        Value("lantern"),
        "What the names of the host's durable consumers begin with. Two hosts that read the same streams into databases \
         of their own need different prefixes.",
    ),
    setting(
        "broker.tls.ca",
        File,
        Unset,
        "Certificates (PEM) that the servers are checked against, instead of the system's.",
    ),
    setting(
        "broker.tls.cert",
        File,
        Unset,
        "The host's own certificate (PEM).",
    ),
    setting(
        "broker.tls.key",
        File,
        Unset,
        "The key (PEM) of the host's own certificate.",
    ),
    setting(
        "broker.tls.first",
        Boolean,
        Value("false"),
        "Begin with TLS, before the server's greeting.",
    ),
    setting(
        "broker.embedded.binary",
        File,
        Derived("nats-server from PATH"),
        "The nats-server that the host starts when no broker is named.",
    ),
    setting(
        "broker.embedded.port",
        Count { min: 0, max: 65_535 },
        Value("0"),
        "Its port on 127.0.0.1. 0 takes a free one; DATA_DIR/broker/nats.url tells which.",
    ),
    setting(
        "streams.create",
        Boolean,
        Derived("true with the embedded broker, else false"),
        "Create a stream that a plugin reads and the broker does not have, instead of waiting for it.",
    ),
    setting(
        "streams.confirm_after",
        millis(100, 600_000),
        Value("10s"),
        "On a cluster, the time between two observations that have to agree before a source begins a new epoch.",
    ),
    setting(
        "batch.messages_max",
        Count { min: 1, max: 65_536 },
        Value("16384"),
        "Most messages that are projected and stored together.",
    ),
    setting(
        "batch.bytes_max",
        Size {
            min: 64 * KIB,
            max: 256 * MIB,
        },
        Value("8 MiB"),
        "Most bytes of messages that are projected and stored together. One larger message goes alone.",
    ),
    setting(
        "limits.memory",
        size(settings::MEMORY_BYTES),
        Bytes(settings::MEMORY_BYTES_DEFAULT),
        "Most memory that a plugin may hold.",
    ),
    setting(
        "limits.message_time",
        time(settings::MESSAGE_TIME),
        Span(settings::MESSAGE_TIME_DEFAULT),
        "Longest time that a plugin may take for one message.",
    ),
    setting(
        "limits.rows_per_message",
        count(settings::ROWS_PER_MESSAGE),
        Number(settings::ROWS_PER_MESSAGE_DEFAULT),
        "Most rows that a plugin may make of one message.",
    ),
    setting(
        "limits.bytes_per_message",
        size(settings::BYTES_PER_MESSAGE),
        Bytes(settings::BYTES_PER_MESSAGE_DEFAULT),
        "Most bytes of rows that a plugin may make of one message.",
    ),
    setting(
        "limits.module_size",
        Size { min: KIB, max: GIB },
        Bytes(settings::MODULE_BYTES_DEFAULT),
        "Largest plugin file.",
    ),
    setting(
        "limits.compile_time",
        millis(100, 600_000),
        Span(settings::COMPILE_TIME_DEFAULT),
        "Longest time that compiling a plugin may take.",
    ),
    setting(
        "limits.compile_memory",
        Size {
            min: 64 * MIB,
            max: 16 * GIB,
        },
        Bytes(settings::COMPILE_MEMORY_BYTES_DEFAULT),
        "Most memory that compiling a plugin may take.",
    ),
    setting(
        "limits.dead_letters_max",
        count(settings::DEAD_LETTERS),
        Value("100000"),
        "Most open dead letters of a source. At the limit it halts, so that none is dropped.",
    ),
    setting(
        "store.synchronous",
        Choice(&["normal", "full"]),
        Value("normal"),
        "Whether each commit waits for the disk. Streams that delete what was acknowledged always do.",
    ),
    setting(
        "store.cache_size",
        Size {
            min: MIB,
            max: 16 * GIB,
        },
        Value("32 MiB"),
        "Page cache of the connection that writes.",
    ),
    setting(
        "store.reserve_size",
        Size { min: 0, max: GIB },
        Value("16 MiB"),
        "A file kept to be given up when the disk is full, so that the host can still write. 0 keeps none.",
    ),
    setting(
        "log.filter",
        LogFilter,
        Value("info,async_nats=off"),
        "What is logged, such as \"info,lantern_broker=debug\".",
    ),
    setting(
        "log.format",
        Choice(&["text", "json"]),
        Value("text"),
        "How it is logged, to standard error.",
    ),
];

/// The setting with this path.
pub fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

/// Whether `path` is a table of the file, such as `broker.tls`.
pub fn is_section(path: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        setting
            .path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The setting that somebody who wrote `path` probably meant.
pub fn nearest(path: &str) -> Option<&'static str> {
    // Below this, suggestions are noise: "color" would become "store.cache_size".
    const ALIKE: f64 = 0.82;
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let own_last = path.rsplit('.').next().unwrap_or(path);
    let likeness = |candidate: &'static str| {
        let whole = strsim::jaro_winkler(candidate, path);
        // The right key in the wrong section, or in none.
        if last(candidate) == own_last {
            whole.max(0.9)
        } else {
            whole
        }
    };
    SETTINGS
        .iter()
        .map(|setting| (likeness(setting.path), setting.path))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_unique_and_no_section_is_a_setting() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(
                SETTINGS[..index].iter().all(|other| other.path != setting.path),
                "{}",
                setting.path
            );
            assert!(!is_section(setting.path), "{}", setting.path);
            assert!(setting.doc.ends_with('.'), "{} needs a sentence", setting.path);
        }
    }

    #[test]
    fn suggestions_are_near_or_absent() {
        assert_eq!(nearest("broker.uri"), Some("broker.url"));
        assert_eq!(nearest("url"), Some("broker.url"));
        assert_eq!(nearest("data-dir"), Some("data_dir"));
        assert_eq!(nearest("limits.memory_max"), Some("limits.memory"));
        assert_eq!(nearest("zebra"), None);
    }
}
