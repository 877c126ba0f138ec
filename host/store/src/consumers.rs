//! Consumers on the broker that the host has to delete. A record exists until the broker has deleted the consumer, also
//! across restarts.

use crate::sql::{Connection, Transaction, params};

use super::read_error::ReadError;
use super::reader::Reader;
use super::{CommitError, Store};
use lantern_model::batch::Timestamp;

/// A durable consumer on the broker that no projection uses any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbandonedConsumer {
    /// The stream.
    pub stream: String,
    /// The consumer's name.
    pub consumer: String,
    /// The plugin that used it.
    pub plugin: String,
}

/// Changes to the consumers that have to be deleted.
#[derive(Clone, Copy)]
pub struct Consumers<'a>(&'a Store);

impl Store {
    /// Changes to the consumers that have to be deleted.
    pub fn consumers(&self) -> Consumers<'_> {
        Consumers(self)
    }
}

impl Consumers<'_> {
    /// Records that a consumer has to be deleted.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn abandon(self, consumer: AbandonedConsumer) -> Result<(), CommitError> {
        self.0
            .call(move |connection| {
                let transaction = connection.begin()?;
                abandon(&transaction, &[consumer], Timestamp::now())?;
                transaction.commit()
            })
            .await
    }

    /// Removes the record of a consumer that was deleted or is needed again.
    ///
    /// # Errors
    /// As for [`Consumers::abandon`].
    pub async fn forget(self, consumer: AbandonedConsumer) -> Result<(), CommitError> {
        self.0
            .call(move |connection| {
                connection
                    .execute(
                        "DELETE FROM _lantern_abandoned_consumer WHERE stream = ?1 AND consumer = ?2",
                        params![consumer.stream, consumer.consumer],
                    )
                    .map(|_| ())
            })
            .await
    }
}

impl Reader {
    /// The streams that a plugin has read, each with the source that read it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn streams_read_by(&self, plugin: &str) -> Result<Vec<(String, String)>, ReadError> {
        let plugin = plugin.to_owned();
        self.snapshot(move |connection| Ok(streams_of(connection, &plugin)?))
            .await
    }

    /// The consumers that have to be deleted.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn abandoned_consumers(&self) -> Result<Vec<AbandonedConsumer>, ReadError> {
        self.snapshot(|connection| Ok(abandoned(connection)?)).await
    }
}

fn streams_of(connection: &Connection, plugin: &str) -> Result<Vec<(String, String)>, crate::sql::Error> {
    connection
        .prepare(
            "SELECT DISTINCT source, stream FROM _lantern_origin
             WHERE (plugin = ?1 OR substr(plugin, 1, length(?1) + 1) = ?1 || '#') AND stream IS NOT NULL
             ORDER BY source, stream",
        )?
        .query_map([plugin], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Records consumers in an open transaction.
pub(super) fn abandon(
    transaction: &Transaction<'_>,
    consumers: &[AbandonedConsumer],
    at: Timestamp,
) -> Result<(), crate::sql::Error> {
    for consumer in consumers {
        transaction.execute(
            "INSERT INTO _lantern_abandoned_consumer (stream, consumer, plugin, noted_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (stream, consumer) DO UPDATE SET plugin = excluded.plugin",
            params![consumer.stream, consumer.consumer, consumer.plugin, at.0],
        )?;
    }
    Ok(())
}

fn abandoned(connection: &Connection) -> Result<Vec<AbandonedConsumer>, crate::sql::Error> {
    connection
        .prepare(
            "SELECT stream, consumer, plugin FROM _lantern_abandoned_consumer ORDER BY stream, consumer",
        )?
        .query_map([], |row| {
            Ok(AbandonedConsumer {
                stream: row.get(0)?,
                consumer: row.get(1)?,
                plugin: row.get(2)?,
            })
        })?
        .collect()
}
