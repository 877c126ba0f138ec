//! Values of settings: parsed once from what was written, and written again as a TOML file would have them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys;
use super::settings::Kind;
use lantern_model::batch::clean_text;
use lantern_model::settings::{ByteSize, parse_size};

/// What somebody wrote, before it is known to mean anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// Text in a file.
    Text(String),
    /// A whole number in a file.
    Integer(i64),
    /// `true` or `false` in a file.
    Boolean(bool),
    /// A flag or a variable: text that may stand for any kind.
    Bare(String),
    /// Something that no setting takes; the word says what.
    Other(&'static str),
}

/// What it means.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Words, names, addresses of brokers.
    Text(String),
    /// Several of them.
    List(Vec<String>),
    /// A path, relative to the working directory of the process.
    Path(PathBuf),
    /// Where to listen.
    Address(SocketAddr),
    /// Yes or no.
    Boolean(bool),
    /// A whole number.
    Count(u64),
    /// Bytes.
    Size(u64),
    /// A span of time.
    Time(Duration),
}

/// Why what was written is not a value: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: String,
}

fn misfit<T>(message: impl Into<String>, fix: impl Into<String>) -> Result<T, Misfit> {
    Err(Misfit {
        message: message.into(),
        fix: fix.into(),
    })
}

impl Value {
    /// Parses `written` as `kind` says. Relative paths begin at `base`. Does not look at the disk.
    pub fn parse(kind: Kind, written: &Written, base: &Path) -> Result<Self, Misfit> {
        match (kind, written) {
            (_, Written::Other(what)) => misfit(format!("{what} cannot be a value"), expected(kind)),
            (Kind::Boolean, Written::Boolean(yes)) => Ok(Self::Boolean(*yes)),
            (Kind::Boolean, Written::Bare(text)) => match text.as_str() {
                "true" => Ok(Self::Boolean(true)),
                "false" => Ok(Self::Boolean(false)),
                other => misfit(
                    format!("{} is neither true nor false", shown(other)),
                    expected(kind),
                ),
            },
            (Kind::Count { min, max }, Written::Integer(number)) => u64::try_from(*number)
                .ok()
                .filter(|number| (min..=max).contains(number))
                .map_or_else(
                    || misfit(format!("{number} is out of range"), expected(kind)),
                    |number| Ok(Self::Count(number)),
                ),
            (Kind::Count { .. }, Written::Bare(text)) => match text.parse() {
                Ok(number) => Self::parse(kind, &Written::Integer(number), base),
                Err(_) => misfit(format!("{} is not a whole number", shown(text)), expected(kind)),
            },
            (Kind::Size { min, max }, Written::Integer(bytes)) => match u64::try_from(*bytes) {
                Ok(bytes) if (min..=max).contains(&bytes) => Ok(Self::Size(bytes)),
                _ => misfit(format!("{bytes} bytes are out of range"), expected(kind)),
            },
            (_, Written::Integer(_)) => misfit("is a number", expected(kind)),
            (_, Written::Boolean(_)) => misfit("is true or false", expected(kind)),
            (Kind::Boolean | Kind::Count { .. }, Written::Text(text)) => {
                misfit(format!("{} is text", shown(text)), expected(kind))
            }
            (_, Written::Text(text) | Written::Bare(text)) => Self::parse_text(kind, text, base),
        }
    }

    fn parse_text(kind: Kind, text: &str, base: &Path) -> Result<Self, Misfit> {
        match kind {
            Kind::Path | Kind::File | Kind::Directory if text.is_empty() || text.contains('\0') => {
                misfit(format!("{} is not a path", shown(text)), expected(kind))
            }
            Kind::Path | Kind::File | Kind::Directory => Ok(Self::Path(base.join(text))),
            Kind::Address => parse_address(kind, text),
            Kind::Urls => parse_urls(kind, text),
            Kind::Hosts => parse_hosts(kind, text),
            Kind::Keys => match keys::split(text, base) {
                Some(entries) => Ok(Self::List(entries)),
                None => misfit(
                    "holds a secret key, which nobody but its owner may have",
                    expected(kind),
                ),
            },
            Kind::Name if is_name(text) => Ok(Self::Text(text.to_owned())),
            Kind::Name => misfit(format!("{} is not a name", shown(text)), expected(kind)),
            Kind::Prefix if is_prefix(text) => Ok(Self::Text(text.trim_end_matches('.').to_owned())),
            Kind::Prefix => misfit(
                format!("{} is not a prefix of subjects", shown(text)),
                expected(kind),
            ),
            Kind::LogFilter => match lantern_telemetry::check_filter(text) {
                Ok(()) => Ok(Self::Text(text.to_owned())),
                Err(why) => misfit(format!("{} is not a filter ({why})", shown(text)), expected(kind)),
            },
            Kind::Choice(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::Choice(_) => misfit(format!("{} is not known", shown(text)), expected(kind)),
            Kind::Size { min, max } => match parse_size(text) {
                Some(bytes) if (min..=max).contains(&bytes) => Ok(Self::Size(bytes)),
                Some(_) => misfit(format!("{} is out of range", shown(text)), expected(kind)),
                None => misfit(format!("{} is not a size", shown(text)), expected(kind)),
            },
            Kind::Time { min, max } => match humantime::parse_duration(text) {
                Ok(time) if (min..=max).contains(&time) => Ok(Self::Time(time)),
                Ok(_) => misfit(format!("{} is out of range", shown(text)), expected(kind)),
                Err(_) => misfit(format!("{} is not a span of time", shown(text)), expected(kind)),
            },
            // Text for these comes as `Bare` and is handled by the caller.
            Kind::Boolean | Kind::Count { .. } => misfit("is text", expected(kind)),
        }
    }
}

/// What a value of this kind looks like, as advice.
pub fn expected(kind: Kind) -> String {
    match kind {
        Kind::Path => "give a path in quotes".into(),
        Kind::File => "give the path of a file that can be read".into(),
        Kind::Directory => "give the path of a directory".into(),
        Kind::Address => "give ADDRESS:PORT, such as 127.0.0.1:7070".into(),
        Kind::Urls => "give nats://HOST:PORT or tls://HOST:PORT, several with commas between".into(),
        Kind::Hosts => {
            "give names or addresses without ports, several with commas between, such as lantern.example.org"
                .into()
        }
        Kind::Keys => {
            "give the second line of a minisign .pub file, or the path of one; several with commas between"
                .into()
        }
        Kind::Name => "use letters, digits, - and _ only".into(),
        Kind::Prefix => {
            "give words with dots between, without blanks and wildcards, such as JS.hub.API".into()
        }
        Kind::LogFilter => "give a level (error, warn, info, debug, trace) or MODULE=LEVEL pairs".into(),
        Kind::Boolean => "write true or false, without quotes in a file".into(),
        Kind::Count { min, max } => {
            format!("give a whole number from {min} to {max}, without quotes in a file")
        }
        Kind::Size { min, max } => {
            format!(
                "give a size from {} to {}, such as \"64 MiB\"",
                ByteSize(min),
                ByteSize(max)
            )
        }
        Kind::Time { min, max } => format!(
            "give a time with its unit from {} to {}, such as \"500ms\" or \"5s\"",
            humantime::format_duration(min),
            humantime::format_duration(max)
        ),
        Kind::Choice(words) => format!("use one of {}", words.join(", ")),
    }
}

/// As a TOML file would have it. Passwords in broker addresses are left out.
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

/// `text` with what stands before the `@` of each address replaced, since that is a password or a token.
pub fn redact(text: &str) -> String {
    let one = |address: &str| match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        (_, None) => address.to_owned(),
    };
    text.split(',').map(one).collect::<Vec<_>>().join(",")
}

/// What was written, fit to stand in a message: short, clean and without secrets.
pub fn shown(text: &str) -> String {
    format!("{:?}", clean_text(&redact(text), 80))
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

fn parse_address(kind: Kind, text: &str) -> Result<Value, Misfit> {
    // "localhost" is what people write; it is not looked up, since what it resolves to may change.
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    match literal.parse::<SocketAddr>() {
        Ok(address) => Ok(Value::Address(address)),
        Err(_) => misfit(
            format!("{} is not an address with a port", shown(text)),
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

fn parse_urls(kind: Kind, text: &str) -> Result<Value, Misfit> {
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
                // Either would end the address before an `@` in it: `redact` and the client would then disagree on the host.
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if !good {
            // A password with a comma in it is cut here, and this part has no `@` that would mark it.
            let cut = text.contains('@') && !address.contains('@');
            let written = if cut { "***".to_owned() } else { shown(address) };
            return misfit(
                format!("{written} is not the address of a NATS server"),
                expected(kind),
            );
        }
    }
    Ok(Value::Text(
        text.split(',').map(str::trim).collect::<Vec<_>>().join(","),
    ))
}

/// Names are kept in lower case; an address in brackets loses them.
fn parse_hosts(kind: Kind, text: &str) -> Result<Value, Misfit> {
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
            return misfit(
                format!("{} is not the name of a host", shown(&host)),
                expected(kind),
            );
        }
        hosts.push(literal.to_owned());
    }
    Ok(Value::Text(hosts.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_addresses_are_not_shown() {
        assert_eq!(
            redact("nats://bob:p@ss@a:4222,tls://b"),
            "nats://***@a:4222,tls://b"
        );
        assert_eq!(redact("token@a"), "***@a");
        let refused = parse_urls(Kind::Urls, "http://bob:secret@a").unwrap_err();
        assert!(!refused.message.contains("secret"), "{}", refused.message);
        let refused = parse_urls(Kind::Urls, "nats://bob:sec,ret@a").unwrap_err();
        assert!(!refused.message.contains("sec"), "{}", refused.message);
    }

    #[test]
    fn the_address_of_a_server_has_neither_query_nor_fragment() {
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
