//! Erasure of a person's data: which rows and dead letters hold a value, their removal with the accounts that explain it,
//! and the rules that keep them from coming back.
//!
//! A message is the unit. Its rows go from all tables, its dead letter loses its content and stays as the account of it
//! (state `forgotten`, counted as dead), and the stream's message is recorded for deletion. A value is remembered by a
//! keyed digest, so that older messages which nobody could find by their rows do not bring it back.

mod erase;
mod mention;
pub(super) mod screen;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::Store;
use super::commit::{CommitError, OriginId};
use super::read_error::ReadError;
use lantern_model::batch::Timestamp;

pub(super) use erase::overwriting;
pub(super) use screen::{ForgottenValues, Screen, wipe_dead_letter};
pub use search::{SURVEY_MESSAGES_MAX, TableMatch};

/// What is to be erased: rows with this value in this column.
#[derive(Clone)]
pub struct ForgetQuery {
    /// The column.
    pub column: String,
    /// The value as text, read by the type of the column in each table.
    pub value: String,
    /// Only in these tables; empty for all that have the column.
    pub tables: Vec<String>,
    /// Only in tables of this plugin.
    pub plugin: Option<String>,
    /// Whether dead letters that mention the value are erased as well.
    pub dead_letters: bool,
}

/// Without the value: it must not reach a log.
impl std::fmt::Debug for ForgetQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForgetQuery")
            .field("column", &self.column)
            .field("tables", &self.tables)
            .field("plugin", &self.plugin)
            .finish_non_exhaustive()
    }
}

/// Why an erasure cannot be made. No message holds the value.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// No plugin owns such a table.
    #[error("there is no table {0}")]
    NoTable(String),
    /// No table has the column.
    #[error("no table has a column {column}; tables: {}", .tables.join(", "))]
    NoColumn {
        /// The column.
        column: String,
        /// The tables that were searched, with their columns.
        tables: Vec<String>,
    },
    /// The value cannot be one of the column.
    #[error("the value is not of the type of column {column} ({types})")]
    Value {
        /// The column.
        column: String,
        /// Its types.
        types: String,
    },
    /// More messages match than one erasure takes.
    #[error("more than {SURVEY_MESSAGES_MAX} messages match; name a plugin or tables")]
    TooMany,
    /// The database cannot be read or written now.
    #[error("the database is not available: {0}")]
    Unavailable(String),
}

impl From<crate::sql::Error> for ForgetError {
    fn from(error: crate::sql::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ReadError> for ForgetError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.with_cause())
    }
}

impl From<CommitError> for ForgetError {
    fn from(error: CommitError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// What an erasure would remove.
#[derive(Clone, Debug, Default)]
pub struct ForgetSurvey {
    /// The tables with the column.
    pub matches: Vec<TableMatch>,
    /// Tables of the query without the column.
    pub tables_not_searched: Vec<String>,
    /// JSON columns of the tables of the query: their documents can hold the value in a member.
    pub documents_not_searched: Vec<String>,
    /// Rows that go, by table: all rows of the messages that match, also in tables without the column.
    pub rows: BTreeMap<String, u64>,
    /// Dead letters that mention the value.
    pub dead_letters: u64,
    /// The messages, with where they come from.
    pub messages: Vec<FoundMessage>,
    /// Plugins whose replaced tables, kept for a rollback, go as well.
    pub kept: Vec<String>,
    /// Messages of earlier erasures that still have to be deleted from their streams.
    pub outstanding: u64,
    /// The streams that plugins read.
    pub streams: Vec<String>,
    /// Whether a plugin reads core NATS subjects.
    pub has_core_sources: bool,
}

/// A message by where it stands in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMessage {
    /// The history.
    pub origin: OriginId,
    /// The sequence.
    pub sequence: u64,
    /// The stream whose present history it is; none where no stream can hold it any more.
    pub stream: Option<(String, i64)>,
}

/// A message that is erased.
#[derive(Clone, Debug)]
pub struct Erasure {
    /// Where it was found; none where it is known by its stream alone.
    pub origin: Option<OriginId>,
    /// The sequence.
    pub sequence: u64,
    /// The message as its stream holds it.
    pub stored: Option<StoredMessage>,
}

/// A message that a stream holds, as far as an erasure needs it.
#[derive(Clone)]
pub struct StoredMessage {
    /// The stream.
    pub stream: String,
    /// When the broker says that the stream was created.
    pub stream_created_ns: i64,
    /// When the broker stored the message.
    pub published_ns: i64,
    /// Decides which plugins read it; not kept.
    pub subject: String,
}

/// Without the subject: it may name a person.
impl std::fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredMessage")
            .field("stream", &self.stream)
            .field("published_ns", &self.published_ns)
            .finish_non_exhaustive()
    }
}

/// What one batch of an erasure has removed.
#[derive(Clone, Debug, Default)]
pub struct Erased {
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// Dead letters that have lost their content.
    pub dead_letters: u64,
    /// The plugins whose data it was.
    pub plugins: std::collections::BTreeSet<String>,
}

/// An erased message that has to be deleted from its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutstandingMessage {
    /// The stream.
    pub stream: String,
    /// The sequence.
    pub sequence: u64,
    /// When the broker stored it.
    pub published_ns: i64,
}

impl Store {
    /// What an erasure would remove. Changes nothing.
    ///
    /// # Errors
    /// See [`ForgetError`].
    pub async fn survey_forget(&self, query: ForgetQuery) -> Result<ForgetSurvey, ForgetError> {
        self.reader()
            .long_snapshot(move |connection| search::survey(connection, &query))
            .await
    }

    /// From now on the columns take the value from no message that the broker stored up to `through_ns`.
    ///
    /// # Errors
    /// See [`ForgetError`].
    pub async fn refuse_value(&self, query: ForgetQuery, through_ns: i64) -> Result<(), ForgetError> {
        let done =
            self.call(move |connection| Ok(erase::refuse_value(connection, &query, random_key, through_ns)));
        done.await?
    }

    /// Erases messages in one transaction: rows and the content of dead letters go, the ledger counts the messages as
    /// dead, and those that a stream holds are recorded for deletion there.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`]; nothing has changed then.
    pub async fn erase(&self, messages: Vec<Erasure>) -> Result<Erased, CommitError> {
        self.call(move |connection| erase::erase(connection, &messages, Timestamp::now()))
            .await
    }

    /// Erased messages that still have to be deleted from their streams, behind the one at `after`, in order.
    ///
    /// # Errors
    /// See [`ForgetError`].
    pub async fn outstanding_messages(
        &self,
        after: Option<(String, u64)>,
        limit: u32,
    ) -> Result<Vec<OutstandingMessage>, ForgetError> {
        self.reader()
            .long_snapshot(move |connection| search::outstanding(connection, after.as_ref(), limit))
            .await
    }

    /// Records that streams no longer hold these messages.
    ///
    /// # Errors
    /// As for [`Store::erase`].
    pub async fn note_deleted(&self, messages: Vec<OutstandingMessage>) -> Result<(), CommitError> {
        self.call(move |connection| erase::note_deleted(connection, &messages, Timestamp::now()))
            .await
    }

    /// Has the tables that rebuilds of these plugins have replaced removed by the next sweep.
    ///
    /// # Errors
    /// As for [`Store::erase`].
    pub async fn drop_kept_tables(&self, plugins: Vec<String>) -> Result<(), CommitError> {
        self.call(move |connection| erase::drop_kept(connection, &plugins))
            .await
    }

    /// Moves the write-ahead log into the database and empties it. With `vacuum`, rewrites the database file before, because
    /// SQLite leaves copies of moved rows in the unused parts of pages, whatever is overwritten later. In PostgreSQL, removes
    /// the former versions of changed rows, with `vacuum` by a copy of each table; its log and its backups are not changed.
    /// Returns whether this is complete: a reader can prevent it for a while.
    ///
    /// # Errors
    /// As for [`Store::erase`].
    pub async fn scrub(&self, vacuum: bool) -> Result<bool, CommitError> {
        self.call(move |connection| erase::scrub(connection, vacuum))
            .await
    }
}

fn random_key() -> String {
    let parts = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    parts.map(|part| part.simple().to_string()).concat()
}

/// Whether anything was ever erased here: then what is removed later is overwritten as well.
pub(super) fn is_used(connection: &crate::sql::Connection) -> Result<bool, crate::sql::Error> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_host WHERE key = ?1)
             OR EXISTS (SELECT 1 FROM _lantern_forgotten_value)",
        [screen::KEY_FACT],
        |row| row.get(0),
    )
}
