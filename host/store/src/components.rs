//! The installed components in a PostgreSQL database, from which the other hosts of the database receive them. With SQLite
//! there is one host, which keeps them as files.

use super::installation::Plugins;
use super::read_error::ReadError;
use super::reader::Reader;
use super::sql::{OptionalExtension, params};
use super::{CommitError, Engine};

/// The bytes of a component, and those of its signature.
pub type StoredComponent = (Vec<u8>, Option<Vec<u8>>);

impl Plugins<'_> {
    /// Stores a component and its signature for the other hosts; a new signature replaces an earlier one. Does nothing with
    /// SQLite.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn share_component(
        self,
        digest: &str,
        bytes: Vec<u8>,
        signature: Option<Vec<u8>>,
    ) -> Result<(), CommitError> {
        if self.0.location().engine() == Engine::Sqlite {
            return Ok(());
        }
        let digest = digest.to_owned();
        self.0
            .call(move |connection| {
                connection
                    .execute(
                        "INSERT INTO _lantern_component (digest, bytes, signature) VALUES (?1, ?2, ?3)
                         ON CONFLICT (digest) DO UPDATE SET signature = coalesce(excluded.signature, _lantern_component.signature)",
                        params![digest, bytes, signature],
                    )
                    .map(|_| ())
            })
            .await
    }
}

impl Reader {
    /// A component that a host of this database has stored. `None` with SQLite.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn shared_component(&self, digest: &str) -> Result<Option<StoredComponent>, ReadError> {
        let digest = digest.to_owned();
        self.snapshot(move |connection| {
            if connection.engine() == Engine::Sqlite {
                return Ok(None);
            }
            Ok(connection
                .query_row(
                    "SELECT bytes, signature FROM _lantern_component WHERE digest = ?1",
                    [digest],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?)
        })
        .await
    }
}
