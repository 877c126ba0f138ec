//! Consumers on the broker that have to be deleted: kept until the broker has deleted them, also over a restart.

use rusqlite::{Connection, Transaction, params};

use super::{CommitError, Store};
use lantern_model::batch::Timestamp;

/// A durable consumer on the broker that nothing here reads through any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbandonedConsumer {
    /// The stream.
    pub stream: String,
    /// The consumer's name.
    pub consumer: String,
    /// The plugin that read through it.
    pub plugin: String,
}

impl Store {
    /// The streams that a plugin has read, each with the source that read it.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`], here and below.
    pub async fn streams_of(&self, plugin: &str) -> Result<Vec<(String, String)>, CommitError> {
        let plugin = plugin.to_owned();
        self.call(move |connection| streams_of(connection, &plugin)).await
    }

    /// Remembers that a consumer has to be deleted.
    ///
    /// # Errors
    /// As for [`Store::streams_of`].
    pub async fn abandon_consumer(&self, consumer: AbandonedConsumer) -> Result<(), CommitError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            abandon(&transaction, &[consumer], Timestamp::now())?;
            transaction.commit()
        })
        .await
    }

    /// The consumers that have to be deleted.
    ///
    /// # Errors
    /// As for [`Store::streams_of`].
    pub async fn abandoned_consumers(&self) -> Result<Vec<AbandonedConsumer>, CommitError> {
        self.call(|connection| abandoned(connection)).await
    }

    /// Forgets a consumer that was deleted, or that is needed again.
    ///
    /// # Errors
    /// As for [`Store::streams_of`].
    pub async fn forget_consumer(&self, consumer: AbandonedConsumer) -> Result<(), CommitError> {
        self.call(move |connection| {
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

fn streams_of(connection: &Connection, plugin: &str) -> Result<Vec<(String, String)>, rusqlite::Error> {
    connection
        .prepare(
            "SELECT DISTINCT source, stream FROM _lantern_origin
             WHERE (plugin = ?1 OR substr(plugin, 1, length(?1) + 1) = ?1 || '#') AND stream IS NOT NULL
             ORDER BY source, stream",
        )?
        .query_map([plugin], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Notes consumers in an open transaction.
pub(super) fn abandon(
    transaction: &Transaction<'_>,
    consumers: &[AbandonedConsumer],
    at: Timestamp,
) -> Result<(), rusqlite::Error> {
    for consumer in consumers {
        transaction.execute(
            "INSERT INTO _lantern_abandoned_consumer (stream, consumer, plugin, noted_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (stream, consumer) DO UPDATE SET plugin = excluded.plugin",
            params![consumer.stream, consumer.consumer, consumer.plugin, at.0],
        )?;
    }
    Ok(())
}

fn abandoned(connection: &Connection) -> Result<Vec<AbandonedConsumer>, rusqlite::Error> {
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
