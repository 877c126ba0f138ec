//! Broker settings: address, login, and ping interval. Reads `nats` CLI contexts. Opens no connection.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::ServerAddr;
use serde::Deserialize;

use super::ConnectError;

/// How to reach the broker.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// An embedded broker, a remote one, or a `nats` CLI context that names one.
    pub place: BrokerLocation,
    /// Client name in the broker's list of connections.
    pub client_name: String,
    /// Interval of pings on the connection for requests and on those of core NATS sources. Two missed answers end the
    /// connection, so every caller detects a frozen broker after three intervals; a subscription detects it earlier, by its
    /// heartbeats.
    pub ping_interval: Duration,
    /// Prefix of inbox subjects, for accounts that permit only a certain one.
    pub inbox_prefix: Option<String>,
    /// The JetStream domain, if it is not the one of the connected server.
    pub jetstream_domain: Option<String>,
    /// Subject prefix of the JetStream API, for accounts that import it under another name. Takes precedence over the
    /// domain.
    pub jetstream_api_prefix: Option<String>,
}

impl BrokerConfig {
    /// Default settings for a broker at `place`.
    pub fn new(place: BrokerLocation) -> Self {
        Self {
            place,
            client_name: "lantern".to_owned(),
            // The library's default of one minute would detect a hanging broker only after three minutes.
            ping_interval: Duration::from_secs(5),
            inbox_prefix: None,
            jetstream_domain: None,
            jetstream_api_prefix: None,
        }
    }

    /// Default settings for the broker at `url`, without credentials except those in the URL.
    pub fn remote(url: impl Into<String>) -> Self {
        Self::new(BrokerLocation::Remote(Remote {
            urls: vec![url.into()],
            ..Remote::default()
        }))
    }
}

/// Where the broker is.
#[derive(Clone, Debug)]
pub enum BrokerLocation {
    /// Started and supervised by the host.
    Embedded(EmbeddedConfig),
    /// A broker that runs elsewhere.
    Remote(Remote),
    /// The broker that a `nats` CLI context names.
    Context {
        /// The context's name, as in `nats context ls`.
        name: String,
        /// The folder with `<name>.json`; `None` for the CLI's own folder.
        folder: Option<PathBuf>,
    },
}

/// For messages; without credentials.
impl fmt::Display for BrokerLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(settings) => write!(f, "in {}", settings.dir.display()),
            Self::Remote(remote) => {
                let urls = remote.urls.iter().flat_map(|urls| urls.split(','));
                let redacted: Vec<String> = urls.map(|url| redacted_url(url.trim())).collect();
                f.write_str(&redacted.join(", "))
            }
            Self::Context { name, .. } => write!(f, "of the context {name}"),
        }
    }
}

/// Settings of the embedded broker.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The `nats-server` to run; `None` searches for one.
    pub binary: Option<PathBuf>,
    /// Directory of its streams, configuration and log.
    pub dir: PathBuf,
    /// TCP port on 127.0.0.1; `None` chooses a free one and keeps it.
    pub port: Option<u16>,
}

/// A broker that runs elsewhere. At most one kind of login is expected.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// `nats://` or `tls://` URLs of one cluster. User and password are removed before a URL is displayed.
    pub urls: Vec<String>,
    /// A `.creds` file: JWT and seed.
    pub credentials_file: Option<PathBuf>,
    /// A file that holds an nkey seed.
    pub nkey_file: Option<PathBuf>,
    /// User name, for `password`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<SecretSource>,
    /// A token.
    pub token: Option<SecretSource>,
    /// TLS settings.
    pub tls: Tls,
}

/// TLS settings of a remote broker.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Trusted certificates in addition to the system's (PEM).
    pub ca: Option<PathBuf>,
    /// Client certificate (PEM); requires `key`.
    pub cert: Option<PathBuf>,
    /// The private key of `cert` (PEM).
    pub key: Option<PathBuf>,
    /// Start the TLS handshake before the broker's greeting (its `handshake_first`).
    pub first: bool,
}

/// The origin of a secret. A file is read again at each connection attempt, so a rotated secret takes effect without a
/// restart.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// The secret itself.
    Inline(Secret),
    /// A file with the secret; surrounding white space is ignored.
    File(PathBuf),
}

/// Text that is never displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret text.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// The URL without user and password, for logs. An unparsable URL is not displayed at all, because it may contain a
/// password in the wrong place.
pub fn redacted_url(url: &str) -> String {
    url.parse::<ServerAddr>()
        .map_or_else(|_| "(not a NATS URL)".to_owned(), |address| bare_url(&address))
}

/// The URL of `address` without user and password.
pub(super) fn bare_url(address: &ServerAddr) -> String {
    let host = address.host();
    let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
    format!(
        "{}://{}{host}{}:{}",
        address.scheme(),
        brackets.0,
        brackets.1,
        address.port()
    )
}

/// Parses the URLs and moves their credentials into the credential fields.
pub(super) fn take_userinfo(remote: &mut Remote) -> Result<Vec<ServerAddr>, ConnectError> {
    let mut addresses = Vec::new();
    for url in remote
        .urls
        .iter()
        .flat_map(|urls| urls.split(','))
        .map(str::trim)
        .filter(|url| !url.is_empty())
    {
        // The parser's message contains at most parts of the host name, never user or password.
        let address: ServerAddr = url.parse().map_err(|source| ConnectError::Url {
            url: redacted_url(url),
            source,
        })?;
        if address.is_websocket() {
            return Err(ConnectError::Websocket {
                url: bare_url(&address),
            });
        }
        match (address.username(), address.password()) {
            (Some(user), Some(password)) => {
                remote.user.get_or_insert_with(|| percent_decoded(user));
                remote
                    .password
                    .get_or_insert_with(|| SecretSource::Inline(Secret::new(percent_decoded(password))));
            }
            (Some(token), None) => {
                remote
                    .token
                    .get_or_insert_with(|| SecretSource::Inline(Secret::new(percent_decoded(token))));
            }
            _ => {}
        }
        let bare = bare_url(&address);
        addresses.push(
            bare.parse()
                .map_err(|source| ConnectError::Url { url: bare, source })?,
        );
    }
    if addresses.is_empty() {
        return Err(ConnectError::NoUrl);
    }
    remote.urls = addresses.iter().map(bare_url).collect();
    Ok(addresses)
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let code = (byte == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(code.unwrap_or(byte));
        index += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A context file of the `nats` CLI, which writes an unset value as an empty string.
#[derive(Deserialize)]
struct ContextFile {
    #[serde(default)]
    url: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    creds: String,
    #[serde(default)]
    nkey: String,
    #[serde(default)]
    cert: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    ca: String,
    #[serde(default)]
    tls_first: bool,
    #[serde(default)]
    jetstream_domain: String,
    #[serde(default)]
    jetstream_api_prefix: String,
    #[serde(default)]
    inbox_prefix: String,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// Unsupported settings of a context that change how to connect. Ignoring one would connect with another identity, or
/// not at all, without an error.
const UNSUPPORTED: [&str; 5] = [
    "nsc",
    "socks_proxy",
    "user_jwt",
    "user_seed",
    "windows_cert_store",
];

/// Reads the context `name` into `config`; existing values of `config` take precedence.
pub(super) async fn read_context(
    name: &str,
    folder: Option<&Path>,
    config: &mut BrokerConfig,
) -> Result<Remote, ConnectError> {
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(ConnectError::ContextName {
            name: name.to_owned(),
        });
    }
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => context_folder().ok_or_else(|| ConnectError::ContextName {
            name: name.to_owned(),
        })?,
    };
    let path = folder.join(format!("{name}.json"));
    let text = tokio::fs::read(&path)
        .await
        .map_err(|source| ConnectError::Unreadable {
            what: "context",
            path: path.clone(),
            source,
        })?;
    let file: ContextFile = serde_json::from_slice(&text).map_err(|source| ConnectError::ContextFormat {
        path: path.clone(),
        source,
    })?;
    if let Some(setting) = UNSUPPORTED
        .into_iter()
        .find(|setting| is_set(file.others.get(*setting)))
    {
        return Err(ConnectError::ContextSetting { path, setting });
    }
    fill(&mut config.jetstream_domain, file.jetstream_domain);
    fill(&mut config.jetstream_api_prefix, file.jetstream_api_prefix);
    fill(&mut config.inbox_prefix, file.inbox_prefix);
    let inline = |text: String| (!text.is_empty()).then(|| SecretSource::Inline(Secret::new(text)));
    Ok(Remote {
        // The default of the CLI.
        urls: vec![if file.url.is_empty() {
            "nats://127.0.0.1:4222".to_owned()
        } else {
            file.url
        }],
        credentials_file: path_of(file.creds),
        nkey_file: path_of(file.nkey),
        user: (!file.user.is_empty()).then_some(file.user),
        password: inline(file.password),
        token: inline(file.token),
        tls: Tls {
            ca: path_of(file.ca),
            cert: path_of(file.cert),
            key: path_of(file.key),
            first: file.tls_first,
        },
    })
}

/// Checks that a `nats` CLI context can be read and used, without connecting.
///
/// # Errors
/// See [`ConnectError`].
pub async fn check_context(name: &str) -> Result<(), ConnectError> {
    let place = BrokerLocation::Context {
        name: name.to_owned(),
        folder: None,
    };
    read_context(name, None, &mut BrokerConfig::new(place))
        .await
        .map(|_| ())
}

fn is_set(value: Option<&serde_json::Value>) -> bool {
    value.is_some_and(|value| !value.is_null() && value.as_str() != Some(""))
}

fn fill(setting: &mut Option<String>, value: String) {
    if setting.is_none() && !value.is_empty() {
        *setting = Some(value);
    }
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
}

fn context_folder() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from);
    Some(
        config
            .or_else(|| Some(home()?.join(".config")))?
            .join("nats/context"),
    )
}

/// A path in a context; the CLI permits a leading `~/`.
fn path_of(text: String) -> Option<PathBuf> {
    match (text.strip_prefix("~/"), home()) {
        _ if text.is_empty() => None,
        (Some(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(PathBuf::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_extracted_from_a_url() {
        let mut remote = Remote {
            urls: vec![
                "nats://ann:p%40ss@one:4222, tls://two".into(),
                "nats://[::1]:5".into(),
            ],
            ..Remote::default()
        };
        let addresses = take_userinfo(&mut remote).unwrap();
        assert_eq!(addresses.len(), 3);
        assert_eq!(
            remote.urls,
            ["nats://one:4222", "tls://two:4222", "nats://[::1]:5"]
        );
        assert_eq!(remote.user.as_deref(), Some("ann"));
        let Some(SecretSource::Inline(password)) = &remote.password else {
            panic!("{remote:?}")
        };
        assert_eq!(password.expose(), "p@ss");
        assert!(!format!("{remote:?}").contains("p@ss"));
    }

    #[test]
    fn a_url_with_only_a_user_holds_a_token() {
        let mut remote = Remote {
            urls: vec!["nats://s3cret@one".into()],
            ..Remote::default()
        };
        take_userinfo(&mut remote).unwrap();
        assert!(matches!(&remote.token, Some(SecretSource::Inline(token)) if token.expose() == "s3cret"));
        assert!(remote.user.is_none());
    }

    #[test]
    fn invalid_urls_are_rejected_without_displaying_them() {
        for url in [
            "nats://u:secret@host:notaport",
            "http://u:secret@host",
            "ws://u:secret@host",
            "",
        ] {
            let mut remote = Remote {
                urls: vec![url.into()],
                ..Remote::default()
            };
            let error = anyhow::Error::from(take_userinfo(&mut remote).unwrap_err());
            assert!(!format!("{error:#} {error:?}").contains("secret"), "{error:#}");
        }
        assert_eq!(redacted_url("nats://u:secret@host:1"), "nats://host:1");
    }

    #[tokio::test]
    async fn a_context_determines_the_connection() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"description":"lab","url":"nats://a:1,nats://b:2","user":"","creds":"/c/x.creds",
            "ca":"~/ca.pem","jetstream_domain":"hub","inbox_prefix":"_I","tls_first":true,"nsc":""}"#;
        std::fs::write(folder.path().join("lab.json"), text).unwrap();
        let mut config = BrokerConfig::remote("");
        config.inbox_prefix = Some("_MINE".into());
        let remote = read_context("lab", Some(folder.path()), &mut config)
            .await
            .unwrap();
        assert_eq!(remote.urls, ["nats://a:1,nats://b:2"]);
        assert_eq!(remote.credentials_file.as_deref(), Some(Path::new("/c/x.creds")));
        assert!(remote.tls.first && remote.user.is_none());
        assert!(!remote.tls.ca.unwrap().starts_with("~"));
        assert_eq!(config.jetstream_domain.as_deref(), Some("hub"));
        assert_eq!(
            config.inbox_prefix.as_deref(),
            Some("_MINE"),
            "the configured value takes precedence"
        );
    }

    #[tokio::test]
    async fn an_unusable_context_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("nsc.json"), r#"{"nsc":"nsc://op/acc/user"}"#).unwrap();
        std::fs::write(folder.path().join("broken.json"), "{").unwrap();
        for (name, word) in [
            ("nsc", "nsc"),
            ("broken", "broken.json"),
            ("none", "none.json"),
            ("../x", "../x"),
        ] {
            let mut config = BrokerConfig::remote("");
            let error = read_context(name, Some(folder.path()), &mut config)
                .await
                .unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
