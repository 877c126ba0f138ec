//! Values of settings: parsed from raw values, and rendered as TOML.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::settings::Kind;
use lantern_model::batch::clean_text;
use lantern_model::settings::{ByteSize, parse_size};
use lantern_trust::signature::is_secret;

/// Length of a public key in base64.
const KEY_CHARACTERS: usize = 56;

/// A raw value, before validation.
#[derive(Clone, Debug, PartialEq)]
pub enum RawSetting {
    /// Text in a file.
    Text(String),
    /// A whole number in a file.
    Integer(i64),
    /// `true` or `false` in a file.
    Boolean(bool),
    /// Text of a flag or a variable, which may represent any kind.
    Bare(String),
    /// A type that no setting has, with its name.
    Other(&'static str),
}

/// A valid value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Words, names, URLs of brokers.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
    /// A path, relative to the working directory of the process.
    Path(PathBuf),
    /// A listening address.
    Address(SocketAddr),
    /// A boolean.
    Boolean(bool),
    /// A whole number.
    Count(u64),
    /// A number of bytes.
    Size(u64),
    /// A duration.
    Time(Duration),
}

/// Why a raw value is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    /// The problem.
    pub message: String,
    /// How to fix it.
    pub fix: String,
}

fn invalid<T>(message: impl Into<String>, fix: impl Into<String>) -> Result<T, InvalidValue> {
    Err(InvalidValue {
        message: message.into(),
        fix: fix.into(),
    })
}

impl Value {
    /// Parses a raw value of this kind. Relative paths begin at `base`. Does not access the disk.
    pub fn parse(kind: Kind, raw: &RawSetting, base: &Path) -> Result<Self, InvalidValue> {
        match (kind, raw) {
            (_, RawSetting::Other(what)) => invalid(format!("unsupported type: {what}"), expected(kind)),
            (Kind::Boolean, RawSetting::Boolean(yes)) => Ok(Self::Boolean(*yes)),
            (Kind::Boolean, RawSetting::Bare(text)) => match text.as_str() {
                "true" => Ok(Self::Boolean(true)),
                "false" => Ok(Self::Boolean(false)),
                other => invalid(format!("not a boolean: {}", quote(other)), expected(kind)),
            },
            (Kind::Count { min, max }, RawSetting::Integer(number)) => u64::try_from(*number)
                .ok()
                .filter(|number| (min..=max).contains(number))
                .map_or_else(
                    || invalid(format!("out of range: {number}"), expected(kind)),
                    |number| Ok(Self::Count(number)),
                ),
            (Kind::Count { .. }, RawSetting::Bare(text)) => match text.parse() {
                Ok(number) => Self::parse(kind, &RawSetting::Integer(number), base),
                Err(_) => invalid(format!("not a whole number: {}", quote(text)), expected(kind)),
            },
            (Kind::Size { min, max }, RawSetting::Integer(bytes)) => match u64::try_from(*bytes) {
                Ok(bytes) if (min..=max).contains(&bytes) => Ok(Self::Size(bytes)),
                _ => invalid(format!("out of range: {bytes} bytes"), expected(kind)),
            },
            (_, RawSetting::Integer(_)) => invalid("unexpected number", expected(kind)),
            (_, RawSetting::Boolean(_)) => invalid("unexpected boolean", expected(kind)),
            (Kind::Boolean | Kind::Count { .. }, RawSetting::Text(text)) => {
                invalid(format!("unexpected text: {}", quote(text)), expected(kind))
            }
            (_, RawSetting::Text(text) | RawSetting::Bare(text)) => Self::parse_text(kind, text, base),
        }
    }

    fn parse_text(kind: Kind, text: &str, base: &Path) -> Result<Self, InvalidValue> {
        match kind {
            Kind::Path | Kind::File | Kind::Directory if text.is_empty() || text.contains('\0') => {
                invalid(format!("not a path: {}", quote(text)), expected(kind))
            }
            Kind::Path | Kind::File | Kind::Directory => Ok(Self::Path(base.join(text))),
            Kind::Address => parse_address(kind, text),
            Kind::Urls => parse_urls(kind, text),
            Kind::Database => match text.parse::<lantern_store::Server>() {
                Ok(_) => Ok(Self::Text(text.to_owned())),
                // The reason of the parser may contain parts of the text.
                Err(error) => invalid(
                    format!("not the address of a database: {}", error.kind()),
                    expected(kind),
                ),
            },
            Kind::ApiUrl if is_api_url(text) => Ok(Self::Text(text.trim_end_matches('/').to_owned())),
            Kind::ApiUrl => invalid(format!("not a URL: {}", quote(text)), expected(kind)),
            Kind::Hosts => parse_hosts(kind, text),
            Kind::Keys => match split_keys(text, base) {
                Some(entries) => Ok(Self::List(entries)),
                None => invalid(
                    "contains a secret key, which must be known only to its owner",
                    expected(kind),
                ),
            },
            Kind::Name if is_name(text) => Ok(Self::Text(text.to_owned())),
            Kind::Name => invalid(format!("not a name: {}", quote(text)), expected(kind)),
            Kind::Prefix if is_prefix(text) => Ok(Self::Text(text.trim_end_matches('.').to_owned())),
            Kind::Prefix => invalid(format!("not a subject prefix: {}", quote(text)), expected(kind)),
            Kind::LogFilter => match lantern_telemetry::check_filter(text) {
                Ok(()) => Ok(Self::Text(text.to_owned())),
                Err(why) => invalid(
                    format!("not a log filter: {} ({why})", quote(text)),
                    expected(kind),
                ),
            },
            Kind::Choice(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::Choice(_) => invalid(format!("unknown value: {}", quote(text)), expected(kind)),
            Kind::Size { min, max } => match parse_size(text) {
                Some(bytes) if (min..=max).contains(&bytes) => Ok(Self::Size(bytes)),
                Some(_) => invalid(format!("out of range: {}", quote(text)), expected(kind)),
                None => invalid(format!("not a size: {}", quote(text)), expected(kind)),
            },
            Kind::Time { min, max } => match humantime::parse_duration(text) {
                Ok(time) if (min..=max).contains(&time) => Ok(Self::Time(time)),
                Ok(_) => invalid(format!("out of range: {}", quote(text)), expected(kind)),
                Err(_) => invalid(format!("not a duration: {}", quote(text)), expected(kind)),
            },
            // The caller handles text for these kinds.
            Kind::Boolean | Kind::Count { .. } => invalid("unexpected text", expected(kind)),
        }
    }
}

/// Describes a valid value of this kind, as advice.
pub fn expected(kind: Kind) -> String {
    match kind {
        Kind::Path => "use a path in quotes".into(),
        Kind::File => "use the path of a readable file".into(),
        Kind::Directory => "use the path of a directory".into(),
        Kind::Address => "use ADDRESS:PORT, such as 127.0.0.1:7070".into(),
        Kind::Urls => "use nats://HOST:PORT or tls://HOST:PORT, separated by commas".into(),
        Kind::Database => "use postgres://USER:PASSWORD@HOST/DATABASE".into(),
        Kind::ApiUrl => "use http://HOST:PORT or https://HOST".into(),
        Kind::Hosts => {
            "use names or addresses without ports, separated by commas, such as lantern.example.org".into()
        }
        Kind::Keys => {
            "use the second line of a minisign .pub file, or the path of the file; separate several by commas"
                .into()
        }
        Kind::Name => "use letters, digits, - and _ only".into(),
        Kind::Prefix => {
            "use tokens separated by dots, without blanks and wildcards, such as JS.hub.API".into()
        }
        Kind::LogFilter => "use a level (error, warn, info, debug, trace) or MODULE=LEVEL pairs".into(),
        Kind::Boolean => "use true or false, without quotes in a file".into(),
        Kind::Count { min, max } => {
            format!("use a whole number from {min} to {max}, without quotes in a file")
        }
        Kind::Size { min, max } => {
            format!(
                "use a size from {} to {}, such as \"64 MiB\"",
                ByteSize(min),
                ByteSize(max)
            )
        }
        Kind::Time { min, max } => format!(
            "use a duration from {} to {}, such as \"500ms\" or \"5s\"",
            humantime::format_duration(min),
            humantime::format_duration(max)
        ),
        Kind::Choice(words) => format!("use one of {}", words.join(", ")),
    }
}

/// Renders TOML, without passwords in broker URLs.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A JSON string is also a TOML string.
            Self::Text(text) => write!(f, "{}", serde_json::Value::String(redact(text))),
            Self::List(entries) => write!(f, "{}", serde_json::Value::String(entries.join(", "))),
            Self::Path(path) => write!(f, "{}", serde_json::Value::String(path.display().to_string())),
            Self::Address(address) => write!(f, "\"{address}\""),
            Self::Boolean(yes) => write!(f, "{yes}"),
            Self::Count(number) => write!(f, "{number}"),
            Self::Size(bytes) => write!(f, "\"{}\"", ByteSize(*bytes)),
            Self::Time(time) => write!(f, "\"{}\"", humantime::format_duration(*time)),
        }
    }
}

/// Replaces the text before the `@` of each URL, which is a password or a token.
pub fn redact(text: &str) -> String {
    // Its hosts are separated by commas, and its query may contain a password.
    if text.starts_with("postgres") {
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let shown = address.rsplit_once('@').map_or(address, |(_, rest)| rest);
        let shown = shown.rsplit_once("://").map_or(shown, |(_, rest)| rest);
        let query = if query.is_empty() { "" } else { "?***" };
        return format!("postgres://***@{shown}{query}");
    }
    let one = |address: &str| match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        (_, None) => address.to_owned(),
    };
    text.split(',').map(one).collect::<Vec<_>>().join(",")
}

/// Quotes a raw value for a message: shortened, escaped and without secrets.
pub fn quote(text: &str) -> String {
    format!("{:?}", clean_text(&redact(text), 80))
}

/// Whether a text is an address of an API: a scheme, a host and perhaps a port, without credentials and path.
fn is_api_url(text: &str) -> bool {
    let Some(rest) = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
    else {
        return false;
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    !host.is_empty() && host.bytes().all(is_plain)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn is_prefix(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_good = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>');
    text.len() <= 255
        && text
            .split('.')
            .all(|word| !word.is_empty() && word.chars().all(is_good))
}

fn parse_address(kind: Kind, text: &str) -> Result<Value, InvalidValue> {
    // "localhost" is not resolved, because its address may change.
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    match literal.parse::<SocketAddr>() {
        Ok(address) => Ok(Value::Address(address)),
        Err(_) => invalid(
            format!("not an address with a port: {}", quote(text)),
            expected(kind),
        ),
    }
}

/// Whether only this machine can connect to the address.
pub fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.is_loopback()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|mapped| mapped.is_loopback())
        }
    }
}

fn parse_urls(kind: Kind, text: &str) -> Result<Value, InvalidValue> {
    for address in text.split(',') {
        let address = address.trim();
        let whole = if address.contains("://") {
            address.to_owned()
        } else {
            format!("nats://{address}")
        };
        let good = url::Url::parse(&whole).is_ok_and(|url| {
            matches!(url.scheme(), "nats" | "tls")
                && url.host_str().is_some_and(|host| !host.is_empty())
                && matches!(url.path(), "" | "/")
                // Query and fragment would end the authority before an `@`: `redact` and the client would then see different hosts.
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if !good {
            // The split cuts a password with a comma, and this part has no `@` that would mark it.
            let cut = text.contains('@') && !address.contains('@');
            let address = if cut { "***".to_owned() } else { quote(address) };
            return invalid(format!("not the URL of a NATS server: {address}"), expected(kind));
        }
    }
    Ok(Value::Text(
        text.split(',').map(str::trim).collect::<Vec<_>>().join(","),
    ))
}

/// Converts names to lower case, and removes the brackets of an IPv6 address.
fn parse_hosts(kind: Kind, text: &str) -> Result<Value, InvalidValue> {
    let mut hosts = Vec::new();
    for host in text.split(',') {
        let host = host.trim().to_ascii_lowercase();
        let literal = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(&host);
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        let is_host =
            literal.parse::<IpAddr>().is_ok() || (host.len() <= 253 && host.split('.').all(is_label));
        if !is_host {
            return invalid(format!("not a host name: {}", quote(&host)), expected(kind));
        }
        hosts.push(literal.to_owned());
    }
    Ok(Value::Text(hosts.join(",")))
}

/// Splits a list of public keys and of paths of key files; relative paths begin at `base`. `None` if an entry is a secret key, which must not be printed.
fn split_keys(text: &str, base: &Path) -> Option<Vec<String>> {
    text.split(',')
        .map(str::trim)
        .map(|entry| match entry {
            secret if is_secret(secret) => None,
            path if !is_key(path) && !path.is_empty() => Some(base.join(path).display().to_string()),
            other => Some(other.to_owned()),
        })
        .collect()
}

/// Whether an entry is a public key. A path could have this form as well, but that is unlikely.
pub fn is_key(entry: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    entry.len() == KEY_CHARACTERS && entry.starts_with("RW") && entry.bytes().all(is_base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_urls_are_redacted() {
        assert_eq!(
            redact("nats://bob:p@ss@a:4222,tls://b"),
            "nats://***@a:4222,tls://b"
        );
        assert_eq!(redact("token@a"), "***@a");
        let error = parse_urls(Kind::Urls, "http://bob:secret@a").unwrap_err();
        assert!(!error.message.contains("secret"), "{}", error.message);
        let error = parse_urls(Kind::Urls, "nats://bob:sec,ret@a").unwrap_err();
        assert!(!error.message.contains("sec"), "{}", error.message);
    }

    #[test]
    fn a_server_url_has_neither_query_nor_fragment() {
        for address in [
            "nats://a:#b@c",
            "nats://a:1?b@c",
            "Nats://a:#b@localhost[x",
            "nats://a/#",
        ] {
            assert!(parse_urls(Kind::Urls, address).is_err(), "{address}");
        }
        assert!(parse_urls(Kind::Urls, "nats://bob:p@ss@a:4222/,tls://b").is_ok());
    }
}
