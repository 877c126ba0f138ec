//! What a PostgreSQL server offers to a host, for checks by an operator.

use std::time::Duration;

use super::location::Server;
use super::sql::{Connection, Error};

/// The oldest version of the server that the host supports.
const VERSION_MIN: i64 = 150_000;

/// How long the server may take to answer.
const TIME: Duration = Duration::from_secs(5);

/// What a server reports about itself and about the role of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReport {
    /// Its version, such as `15.18`.
    pub version: String,
    /// Whether the host supports the version.
    pub is_supported: bool,
    /// Whether the connection is encrypted.
    pub is_encrypted: bool,
    /// Whether the role can create the host's tables, or owns them.
    pub can_create: bool,
    /// Whether the role is a superuser.
    pub is_superuser: bool,
}

impl Server {
    /// Connects as a host does, and reads what the server reports.
    ///
    /// # Errors
    /// Why the server cannot be used.
    pub async fn report(&self) -> Result<ServerReport, Error> {
        let server = self.clone();
        let read = tokio::task::spawn_blocking(move || read(&server));
        read.await.unwrap_or(Err(Error::Aborted))
    }
}

fn read(server: &Server) -> Result<ServerReport, Error> {
    let connection = Connection::Postgres(server.open_reader(Some(TIME))?);
    connection.query_row(
        "SELECT current_setting('server_version'), CAST(current_setting('server_version_num') AS BIGINT),
             coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()), FALSE),
             coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = 'lantern'),
                 has_database_privilege(current_database(), 'CREATE')),
             coalesce((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), FALSE)",
        [],
        |row| {
            Ok(ServerReport {
                version: row.get(0)?,
                is_supported: row.get::<_, i64>(1)? >= VERSION_MIN,
                is_encrypted: row.get(2)?,
                can_create: row.get(3)?,
                is_superuser: row.get(4)?,
            })
        },
    )
}
