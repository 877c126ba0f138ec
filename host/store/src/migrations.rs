//! The migrations of the host's own tables in a database file.

use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

/// The migrations of the host's own tables.
pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// Creates a missing database and applies the migrations of the host's own tables.
pub(super) async fn migrate(path: &Path) -> Result<(), sqlx::Error> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .connect()
        .await?;
    let migrated = MIGRATIONS.run(&mut connection).await;
    sqlx::Connection::close(connection).await?;
    migrated.map_err(sqlx::Error::from)
}
