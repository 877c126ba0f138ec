//! Where the tables are: in a file of SQLite, or in a database of a PostgreSQL server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio::runtime::Handle;

use super::sql::Engine;
use super::sql::postgres::{SCHEMA, Session, SessionOptions, Tls};
use super::{Synchronous, sql};

/// How long a statement of the leases may take: shorter than a lease.
const LEASE_STATEMENT_TIME: Duration = Duration::from_secs(2);

/// The name of the writing session of a host at the server.
pub(super) fn application_name(node: &str) -> String {
    format!("lantern-writer:{node}")
}

/// Where the tables are.
#[derive(Clone, Debug)]
pub enum Location {
    /// A database file.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(Server),
}

impl Location {
    /// The engine.
    pub fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// The database file; none for a server.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(formatter),
            Self::Postgres(server) => server.fmt(formatter),
        }
    }
}

/// The address of a database of a PostgreSQL server, such as `postgres://user:password@host/database`. Its text never
/// contains the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    config: Box<tokio_postgres::Config>,
    tls: Tls,
    /// The address without the password.
    shown: String,
}

/// Why an address is not one of a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// It has another form.
    #[error("the address begins with postgres:// or postgresql://")]
    Scheme,
    /// The reason of the parser.
    #[error("the address of the PostgreSQL server cannot be parsed: {0}")]
    Syntax(String),
    /// An unknown value of `sslmode`.
    #[error("sslmode is disable, prefer, require, verify-ca or verify-full")]
    SslMode,
    /// It names no database.
    #[error("the address of the PostgreSQL server names no database, such as postgres://host/lantern")]
    NoDatabase,
}

impl ServerError {
    /// What is wrong, without any part of the address.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scheme => "it does not begin with postgres://",
            Self::Syntax(_) => "it cannot be parsed",
            Self::SslMode => "sslmode is disable, prefer, require, verify-ca or verify-full",
            Self::NoDatabase => "it names no database",
        }
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let is_address = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme));
        if !is_address {
            return Err(ServerError::Scheme);
        }
        let (tls, address) = Tls::take_from(text).ok_or(ServerError::SslMode)?;
        let config: tokio_postgres::Config = address
            .parse()
            .map_err(|error: tokio_postgres::Error| ServerError::Syntax(reason(&error)))?;
        let Some(database) = config.get_dbname() else {
            return Err(ServerError::NoDatabase);
        };
        let hosts: Vec<String> = config.get_hosts().iter().map(host_text).collect();
        let user = config
            .get_user()
            .map(|user| format!("{user}@"))
            .unwrap_or_default();
        let ports: Vec<String> = config.get_ports().iter().map(|port| format!(":{port}")).collect();
        let shown = format!(
            "postgres://{user}{}{}/{database}",
            hosts.join(","),
            ports.first().map_or("", String::as_str)
        );
        let tls = tls.or_default(config.get_hosts().iter().all(is_local));
        Ok(Self {
            config: Box::new(config),
            tls,
            shown,
        })
    }
}

fn reason(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether a connection does not leave this machine.
fn is_local(host: &tokio_postgres::config::Host) -> bool {
    match host {
        tokio_postgres::config::Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        tokio_postgres::config::Host::Unix(_) => true,
    }
}

fn host_text(host: &tokio_postgres::config::Host) -> String {
    match host {
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.fmt(formatter)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Server").field(&self.shown).finish()
    }
}

impl Server {
    /// A session that changes the database. A transaction that waits for a lock, for its statement or for its owner longer
    /// than these limits ends, so that a host that hangs does not keep locks (ADR 20).
    pub(super) fn open_writer(
        &self,
        runtime: &Handle,
        synchronous: Synchronous,
        node: Option<&str>,
    ) -> Result<Session, sql::Error> {
        let commit = match synchronous {
            Synchronous::Normal => "off",
            Synchronous::Full => "on",
        };
        self.open(
            runtime,
            &node.map_or_else(|| "lantern-writer".to_owned(), application_name),
            format!(
                "SET search_path = {SCHEMA}; SET synchronous_commit = {commit}; SET lock_timeout = '2s';
                 SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '5s';
                 SET client_min_messages = warning"
            ),
        )
    }

    /// The session of the leases. A statement that takes longer than a lease ends.
    pub(super) fn open_keeper(&self, runtime: &Handle) -> Result<Session, sql::Error> {
        let limit = LEASE_STATEMENT_TIME.as_millis();
        self.open(
            runtime,
            "lantern-leases",
            format!(
                "SET search_path = {SCHEMA}; SET synchronous_commit = off; SET lock_timeout = '{limit}ms';
                 SET statement_timeout = '{limit}ms'; SET idle_in_transaction_session_timeout = '{limit}ms';
                 SET client_min_messages = warning"
            ),
        )
    }

    /// A session that cannot change the database. The server ends a statement after `time`, if the host has not done so; none
    /// means never.
    pub(super) fn open_reader(&self, time: Option<Duration>) -> Result<Session, sql::Error> {
        // The best plan of a query depends on its values: how frequent a word is, or how long a range of time.
        let statement_ms = time.map_or(0, |time| time.as_millis());
        self.open(
            &Handle::current(),
            "lantern-reader",
            format!(
                "SET search_path = {SCHEMA}; SET default_transaction_read_only = on;
                 SET statement_timeout = {statement_ms}; SET plan_cache_mode = force_custom_plan;
                 SET idle_in_transaction_session_timeout = '60s'"
            ),
        )
    }

    /// A session for one question in SQL. The limits are a second line: the host ends a question earlier.
    pub(super) fn open_questioner(&self) -> Result<Session, sql::Error> {
        self.open(
            &Handle::current(),
            "lantern-sql",
            format!(
                "SET search_path = {SCHEMA}; SET default_transaction_read_only = on;
                 SET standard_conforming_strings = on; SET statement_timeout = '4s'; SET lock_timeout = '2s';
                 SET idle_in_transaction_session_timeout = '10s'"
            ),
        )
    }

    fn open(&self, runtime: &Handle, name: &str, setup: String) -> Result<Session, sql::Error> {
        Session::open(
            runtime,
            &SessionOptions {
                config: (*self.config).clone(),
                tls: self.tls.clone(),
                application_name: name.to_owned(),
                setup,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_address_has_no_password() {
        let server: Server = "postgres://lantern:s3cret@db.example:5433/events?connect_timeout=3"
            .parse()
            .unwrap();
        assert_eq!(server.to_string(), "postgres://lantern@db.example:5433/events");
        assert!(!format!("{server:?}").contains("s3cret"));
    }

    #[test]
    fn an_address_of_another_form_is_rejected_with_a_reason() {
        for (text, expected) in [
            ("mysql://host/x", ServerError::Scheme),
            ("postgres://host", ServerError::NoDatabase),
            ("postgres://host/x?sslmode=yes", ServerError::SslMode),
        ] {
            assert_eq!(text.parse::<Server>().unwrap_err(), expected, "{text}");
        }
        let error = "postgres://host:port/x".parse::<Server>().unwrap_err();
        assert!(matches!(error, ServerError::Syntax(_)), "{error}");
    }
}
