//! One interface to the SQL of both engines: SQLite in a file, and PostgreSQL (ADR 20). Most statements of the host are the
//! same in both; the modules that use them do not know which engine runs them. What differs is in [`postgres`] and in
//! functions of [`Connection`] that name the difference, such as [`Connection::has_relation`].
//!
//! Statements use numbered parameters (`?1`). Values are those of SQLite: null, 64-bit integer, real, text, bytes.

mod engine;
mod error;
mod parameters;
pub(crate) mod postgres;

use std::ops::Deref;

use rusqlite::types::{FromSql, Value, ValueRef};

pub use error::Error;
pub(crate) use error::Kind;
pub(crate) use parameters::{Parameters, from_iter};
use postgres::Session;

use super::Synchronous;

/// Parameters of different types.
macro_rules! params {
    () => { &[] as &[&dyn rusqlite::ToSql] };
    ($($value:expr),+ $(,)?) => { &[$(&$value as &dyn rusqlite::ToSql),+] as &[&dyn rusqlite::ToSql] };
}
pub(crate) use params;

/// The engine that runs a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl Engine {
    /// The statement that lists the indexes of a table, except partial ones: for each column of each index a number of the
    /// index, whether it is unique, and the name of the column (null for an expression), in order.
    pub(crate) fn index_columns(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "SELECT l.seq, l.\"unique\", i.name FROM pragma_index_list(?1) AS l
                 JOIN pragma_index_info(l.name) AS i WHERE l.partial = 0 ORDER BY l.seq, i.seqno"
            }
            Self::Postgres => postgres::INDEX_COLUMNS,
        }
    }
}

/// An open connection to the database.
#[derive(Debug)]
pub(crate) enum Connection {
    /// A connection to a database file.
    Sqlite(rusqlite::Connection),
    /// A session of a PostgreSQL server.
    Postgres(Session),
}

impl From<rusqlite::Connection> for Connection {
    fn from(connection: rusqlite::Connection) -> Self {
        Self::Sqlite(connection)
    }
}

impl Connection {
    /// An empty database of SQLite in memory.
    pub(crate) fn open_in_memory() -> Result<Self, Error> {
        Ok(Self::Sqlite(rusqlite::Connection::open_in_memory()?))
    }

    /// Opens a database file, as another program would.
    #[cfg(test)]
    pub(crate) fn open(path: impl AsRef<std::path::Path>) -> Result<Self, Error> {
        Ok(Self::Sqlite(rusqlite::Connection::open(path)?))
    }

    /// The connection of SQLite, for what only SQLite has; none for PostgreSQL.
    pub(crate) fn sqlite(&self) -> Option<&rusqlite::Connection> {
        match self {
            Self::Sqlite(connection) => Some(connection),
            Self::Postgres(_) => None,
        }
    }

    /// The connection of SQLite.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the name of the function for PostgreSQL.
    pub(crate) fn require_sqlite(&self, function: &'static str) -> Result<&rusqlite::Connection, Error> {
        self.sqlite().ok_or(Error::Unsupported(function))
    }

    /// The engine.
    pub(crate) fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// Runs one statement and returns the number of rows that it changed.
    pub(crate) fn execute(&self, sql: &str, parameters: impl Parameters) -> Result<usize, Error> {
        match self {
            Self::Sqlite(connection) => Ok(parameters.bind(|values| connection.execute(sql, values))?),
            Self::Postgres(session) => parameters.bind(|values| session.execute(sql, values)),
        }
    }

    /// Runs statements without parameters, separated by semicolons.
    pub(crate) fn execute_batch(&self, sql: &str) -> Result<(), Error> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Self::Postgres(session) => session.execute_batch(sql),
        }
    }

    /// Runs a statement and reads its first row.
    ///
    /// # Errors
    /// [`Error::NoRows`] if there is none, and the errors of the engine and of `read`.
    pub(crate) fn query_row<T>(
        &self,
        sql: &str,
        parameters: impl Parameters,
        read: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.prepare(sql)?.query_row(parameters, read)
    }

    /// Prepares a statement.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Statement<'_>, Error> {
        match self {
            Self::Sqlite(connection) => Ok(Statement::Sqlite(connection.prepare(sql)?)),
            Self::Postgres(session) => session.prepare(sql).map(Statement::Postgres),
        }
    }

    /// Prepares a statement that the connection keeps for later calls.
    pub(crate) fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>, Error> {
        match self {
            Self::Sqlite(connection) => Ok(Statement::Cached(connection.prepare_cached(sql)?)),
            Self::Postgres(session) => session.prepare(sql).map(Statement::Postgres),
        }
    }

    /// Begins a transaction that writes. Dropping it rolls it back.
    pub(crate) fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        self.execute_batch(match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        })?;
        Ok(Transaction {
            connection: self,
            is_open: true,
        })
    }

    /// Whether the session with a server has ended.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(session) => session.client().is_closed(),
        }
    }

    /// Whether the connection cannot or should not be used again.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(session) => session.is_over(),
        }
    }

    /// The number of rows that statements have changed since the connection was opened.
    pub(crate) fn changes(&self) -> u64 {
        match self {
            Self::Sqlite(connection) => connection.total_changes(),
            Self::Postgres(session) => session.changes(),
        }
    }

    /// Makes the next transactions of this connection wait for the disk. The writer sets the mode again before each batch.
    pub(crate) fn make_durable(&self) -> Result<(), Error> {
        self.execute_batch(match self {
            Self::Sqlite(_) => Synchronous::Full.pragma(),
            Self::Postgres(_) => "SET synchronous_commit = on",
        })
    }

    /// Lets the open transaction wait only briefly for locks of readers. A change of a table waits until no reader has it
    /// open, and later readers wait for the change. In SQLite nothing waits for readers.
    pub(crate) fn wait_briefly_for_locks(&self) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(_) => self.execute_batch("SET LOCAL lock_timeout = '500ms'"),
        }
    }

    /// Begins a transaction in which all statements see the same state of the database.
    pub(crate) fn begin_snapshot(&self) -> Result<(), Error> {
        self.execute_batch(match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        })
    }

    /// Lets one transaction at a time extend the audit: each entry continues the one before it. SQLite has one writer.
    pub(crate) fn lock_audit(&self) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(_) => {
                self.query_row("SELECT pg_advisory_xact_lock(?1)", [postgres::AUDIT_LOCK], |_| {
                    Ok(())
                })
            }
        }
    }

    /// Ends a snapshot. A session whose statement was cancelled has none.
    pub(crate) fn end_snapshot(&self) -> Result<(), Error> {
        match self {
            Self::Postgres(session) if session.is_over() => Ok(()),
            connection => connection.execute_batch("COMMIT"),
        }
    }

    /// Whether the database has a table, view or index of this name.
    pub(crate) fn has_relation(&self, name: &str) -> Result<bool, Error> {
        let sql = match self {
            Self::Sqlite(_) => "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)",
            Self::Postgres(_) => postgres::HAS_RELATION,
        };
        self.query_row(sql, [name], |row| row.get(0))
    }
}

/// An open transaction. Dropping it rolls it back.
#[derive(Debug)]
pub(crate) struct Transaction<'c> {
    connection: &'c Connection,
    is_open: bool,
}

impl Transaction<'_> {
    /// Commits the transaction.
    ///
    /// # Errors
    /// Those of the engine; the transaction is then rolled back, or its outcome is unknown if the connection was lost.
    pub(crate) fn commit(mut self) -> Result<(), Error> {
        self.is_open = false;
        let committed = self.connection.execute_batch("COMMIT");
        if committed.is_err() {
            self.roll_back();
        }
        committed
    }

    fn roll_back(&self) {
        // The engine may have rolled back already. The owner of the connection closes it after an error.
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::debug!(%error, "a transaction was not rolled back");
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.roll_back();
        }
    }
}

/// A prepared statement.
pub(crate) enum Statement<'c> {
    Sqlite(rusqlite::Statement<'c>),
    Cached(rusqlite::CachedStatement<'c>),
    Postgres(postgres::Statement<'c>),
}

impl<'c> Statement<'c> {
    /// Runs the statement and returns the number of rows that it changed.
    pub(crate) fn execute(&mut self, parameters: impl Parameters) -> Result<usize, Error> {
        match self {
            Self::Sqlite(statement) => Ok(parameters.bind(|values| statement.execute(values))?),
            Self::Cached(statement) => Ok(parameters.bind(|values| statement.execute(values))?),
            Self::Postgres(statement) => parameters.bind(|values| statement.execute(values)),
        }
    }

    /// Runs the statement and reads its first row.
    ///
    /// # Errors
    /// As for [`Connection::query_row`].
    pub(crate) fn query_row<T>(
        &mut self,
        parameters: impl Parameters,
        read: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut rows = self.query(parameters)?;
        match rows.next()? {
            Some(row) => read(&row),
            None => Err(Error::NoRows),
        }
    }

    /// Runs the statement and returns its rows.
    pub(crate) fn query(&mut self, parameters: impl Parameters) -> Result<Rows<'_>, Error> {
        match self {
            Self::Sqlite(statement) => Ok(Rows::Sqlite(parameters.bind(|values| statement.query(values))?)),
            Self::Cached(statement) => Ok(Rows::Sqlite(parameters.bind(|values| statement.query(values))?)),
            Self::Postgres(statement) => parameters
                .bind(|values| statement.query(values))
                .map(Rows::Postgres),
        }
    }

    /// Runs the statement and reads each of its rows.
    pub(crate) fn query_map<T, F: FnMut(&Row<'_>) -> Result<T, Error>>(
        &mut self,
        parameters: impl Parameters,
        read: F,
    ) -> Result<MappedRows<'_, F>, Error> {
        Ok(MappedRows {
            rows: self.query(parameters)?,
            read,
        })
    }

    /// The number of columns of its result.
    pub(crate) fn column_count(&self) -> usize {
        match self {
            Self::Sqlite(statement) => statement.column_count(),
            Self::Cached(statement) => statement.column_count(),
            Self::Postgres(statement) => statement.column_count(),
        }
    }
}

/// The rows of a statement.
pub(crate) enum Rows<'s> {
    Sqlite(rusqlite::Rows<'s>),
    Postgres(postgres::Rows<'s>),
}

impl Rows<'_> {
    /// The next row; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>, Error> {
        match self {
            Self::Sqlite(rows) => Ok(rows.next()?.map(Row::Sqlite)),
            Self::Postgres(rows) => Ok(rows.next()?.map(Row::Postgres)),
        }
    }
}

/// The rows of a statement, each read by a function.
pub(crate) struct MappedRows<'s, F> {
    rows: Rows<'s>,
    read: F,
}

impl<T, F: FnMut(&Row<'_>) -> Result<T, Error>> Iterator for MappedRows<'_, F> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rows.next() {
            Ok(Some(row)) => Some((self.read)(&row)),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// One row of a result.
#[derive(Clone, Copy)]
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r [Value]),
}

/// The number of a column, beginning at zero. The second parameter of [`Row::get`] is then the type of the value, as in
/// rusqlite.
pub(crate) trait Index {
    fn number(self) -> usize;
}

impl Index for usize {
    fn number(self) -> usize {
        self
    }
}

impl Row<'_> {
    /// The value of a column, converted.
    pub(crate) fn get<I: Index, T: FromSql>(&self, index: I) -> Result<T, Error> {
        let column = index.number();
        let value = self.get_ref(column)?;
        T::column_result(value).map_err(|error| Error::decode(column, error))
    }

    /// The value of a column as it is stored.
    pub(crate) fn get_ref(&self, index: usize) -> Result<ValueRef<'_>, Error> {
        match self {
            Self::Sqlite(row) => Ok(row.get_ref(index)?),
            Self::Postgres(values) => values
                .get(index)
                .map(ValueRef::from)
                .ok_or(Error::Sqlite(rusqlite::Error::InvalidColumnIndex(index))),
        }
    }
}

/// Turns the absence of a row into `None`.
pub(crate) trait OptionalExtension<T> {
    /// `None` for [`Error::NoRows`].
    fn optional(self) -> Result<Option<T>, Error>;
}

impl<T> OptionalExtension<T> for Result<T, Error> {
    fn optional(self) -> Result<Option<T>, Error> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoRows) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
