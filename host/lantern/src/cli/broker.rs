//! Which broker a command uses, and how it logs in. Commands that use a broker accept the options of `lantern serve`
//! and read the same settings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::app;
use crate::config::{Flag, Sources, resolve_broker};
use lantern_broker::url_file;
use lantern_trust::private_files::{self, Trusted};

/// Broker address that NATS tools read from the environment.
const NATS_URL: &str = "NATS_URL";

/// Options that override the settings of the broker.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Broker options")]
pub struct BrokerArgs {
    /// URL of the NATS servers; may contain user and password, or a token [setting: broker.url].
    #[arg(long, value_name = "URL")]
    nats: Option<OsString>,
    /// Context of the nats command line tool [setting: broker.context].
    #[arg(long, value_name = "NAME", conflicts_with = "nats")]
    nats_context: Option<OsString>,
    /// Credentials file (.creds) [setting: broker.credentials_file].
    #[arg(long, value_name = "FILE")]
    creds: Option<OsString>,
    /// File with an nkey seed [setting: broker.nkey_file].
    #[arg(long, value_name = "FILE")]
    nkey: Option<OsString>,
    /// File with the user name [setting: broker.user_file].
    #[arg(long, value_name = "FILE")]
    nats_user_file: Option<OsString>,
    /// File with the password [setting: broker.password_file].
    #[arg(long, value_name = "FILE")]
    nats_password_file: Option<OsString>,
    /// File with the broker's token [setting: broker.token_file].
    #[arg(long, value_name = "FILE")]
    nats_token_file: Option<OsString>,
    /// CA certificates (PEM) that verify the servers [setting: broker.tls.ca].
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<OsString>,
    /// Client certificate (PEM) [setting: broker.tls.cert].
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<OsString>,
    /// Key (PEM) of the client certificate [setting: broker.tls.key].
    #[arg(long, value_name = "FILE")]
    tls_key: Option<OsString>,
    /// Start TLS before the server's greeting [setting: broker.tls.first].
    #[arg(long)]
    tls_first: bool,
    /// JetStream domain [setting: broker.jetstream_domain].
    #[arg(long, value_name = "NAME")]
    js_domain: Option<OsString>,
    /// Subject prefix of the JetStream API [setting: broker.jetstream_api_prefix].
    #[arg(long, value_name = "PREFIX", conflicts_with = "js_domain")]
    js_api_prefix: Option<OsString>,
    /// Subject prefix of replies [setting: broker.inbox_prefix].
    #[arg(long, value_name = "PREFIX")]
    inbox_prefix: Option<OsString>,
}

impl BrokerArgs {
    /// The given options, as settings.
    pub fn flags(&self) -> Vec<Flag> {
        let first = self.tls_first.then(|| OsString::from("true"));
        let flags = [
            ("broker.url", "--nats", &self.nats),
            ("broker.context", "--nats-context", &self.nats_context),
            ("broker.credentials_file", "--creds", &self.creds),
            ("broker.nkey_file", "--nkey", &self.nkey),
            ("broker.user_file", "--nats-user-file", &self.nats_user_file),
            (
                "broker.password_file",
                "--nats-password-file",
                &self.nats_password_file,
            ),
            ("broker.token_file", "--nats-token-file", &self.nats_token_file),
            ("broker.tls.ca", "--tls-ca", &self.tls_ca),
            ("broker.tls.cert", "--tls-cert", &self.tls_cert),
            ("broker.tls.key", "--tls-key", &self.tls_key),
            ("broker.tls.first", "--tls-first", &first),
            ("broker.jetstream_domain", "--js-domain", &self.js_domain),
            (
                "broker.jetstream_api_prefix",
                "--js-api-prefix",
                &self.js_api_prefix,
            ),
            ("broker.inbox_prefix", "--inbox-prefix", &self.inbox_prefix),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(setting, name, value)| value.clone().map(|value| Flag { setting, name, value }));
        given.collect()
    }

    /// Whether any option was given.
    pub fn is_given(&self) -> bool {
        !self.flags().is_empty()
    }

    /// The broker to use: the one in the options, the embedded one of the host with `data_dir`, the one in the
    /// settings of `lantern serve`, or the one in $NATS_URL.
    ///
    /// # Errors
    /// A [`Failure`] if no broker is given, or its settings are invalid.
    pub fn resolve(&self, data_dir: Option<&Path>) -> Result<lantern_broker::BrokerConfig, Failure> {
        let mut flags = self.flags();
        if self.nats.is_some() || self.nats_context.is_some() {
            // Credentials in the settings belong to the broker in the settings and must not be sent to another one.
            let sources = Sources {
                flags,
                ..Sources::default()
            };
            return from_settings(&sources)?.ok_or_else(no_broker);
        }
        if let Some(dir) = data_dir {
            return embedded(dir);
        }
        let file = std::env::var_os("LANTERN_CONFIG").map(PathBuf::from);
        if let Some(config) = from_settings(&Sources::of_process(file, self.named_flags(&flags)))? {
            return Ok(config);
        }
        // clap's `env` would show the value, including a password, in the help.
        let url = std::env::var_os(NATS_URL).filter(|url| !url.is_empty());
        flags.push(Flag {
            setting: "broker.url",
            name: "$NATS_URL",
            value: url.ok_or_else(no_broker)?,
        });
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        from_settings(&sources)?.ok_or_else(no_broker)
    }

    /// The flags, if the settings of the process name a broker; otherwise none. Credentials without a broker are valid,
    /// because they may be for the broker in $NATS_URL.
    fn named_flags(&self, flags: &[Flag]) -> Vec<Flag> {
        let file = std::env::var_os("LANTERN_CONFIG").map(PathBuf::from);
        let without = resolve_broker(&Sources::of_process(file, Vec::new()));
        match without {
            Ok(None) => Vec::new(),
            _ => flags.to_vec(),
        }
    }
}

fn from_settings(sources: &Sources) -> Result<Option<lantern_broker::BrokerConfig>, Failure> {
    match resolve_broker(sources)? {
        Some(remote) => Ok(Some(app::remote_broker(&remote)?)),
        None => Ok(None),
    }
}

fn no_broker() -> Failure {
    Failure::usage("no broker given").hint("use --nats URL, or --data-dir DIR of a running host")
}

/// The embedded broker of the host with this data directory.
fn embedded(data_dir: &Path) -> Result<lantern_broker::BrokerConfig, Failure> {
    let path = url_file(data_dir);
    let text = private_files::read(&path, Trusted::named_by_operator(data_dir)).map_err(|error| {
        Failure::new(error)
            .hint("a running host with an embedded broker writes its address there; for another broker use --nats URL")
    })?;
    match text.trim() {
        "" => Err(Failure::new(anyhow::anyhow!("{} is empty", path.display()))
            .hint("start the host; it writes the address there")),
        url => Ok(lantern_broker::BrokerConfig::remote(url)),
    }
}
