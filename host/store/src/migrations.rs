//! The migrations of the host's own tables in a database file.

use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

use super::page_size::PageSize;

/// The migrations of the host's own tables.
pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// Creates a missing database and applies the migrations of the host's own tables. An existing file keeps its page size.
pub(super) async fn migrate(path: &Path, page_size: PageSize) -> Result<(), sqlx::Error> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .page_size(page_size.bytes())
        .journal_mode(SqliteJournalMode::Wal)
        .connect()
        .await?;
    let migrated = MIGRATIONS.run(&mut connection).await;
    sqlx::Connection::close(connection).await?;
    migrated.map_err(sqlx::Error::from)
}
