//! One session: a client, its prepared statements, and the interrupt that ends a read.

use std::cell::{Cell as Shared, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _};
use rusqlite::ToSql;
use rusqlite::types::{Value, ValueRef};
use tokio::runtime::Handle;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::dialect::portable;
use super::link::{Interrupted, Link, SessionOptions};
use super::rows::{Rows, SharedReading};
use super::values::{Borrowed, Cell, Parameter};
use crate::sql::Error;

/// Prepared statements that a session keeps. Statements with names of tables and filters differ, so the number is bounded.
const STATEMENTS_KEPT: usize = 256;

/// Statements that are sent before the first of them has an answer.
const UNANSWERED_MAX: usize = 256;

/// How long a session is used.
const SESSION_TIME: Duration = Duration::from_secs(60 * 60);

/// A session of a PostgreSQL server.
pub(crate) struct Session {
    link: Link,
    statements: RefCell<HashMap<String, tokio_postgres::Statement>>,
    began: Instant,
    /// The result that the caller is reading.
    reading: RefCell<Option<SharedReading>>,
    /// Rows that statements changed since the session began.
    changes: Shared<u64>,
    /// The next free place in the tables of the session.
    places: Shared<i64>,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Connects and sets the session up. Blocks; not for threads of the runtime.
    pub(crate) fn open(runtime: &Handle, options: &SessionOptions) -> Result<Self, Error> {
        let link = Link::open(runtime, options)?;
        let session = Self {
            link,
            statements: RefCell::default(),
            began: Instant::now(),
            reading: RefCell::default(),
            changes: Shared::new(0),
            places: Shared::new(0),
        };
        session.execute_batch(&options.setup)?;
        Ok(session)
    }

    /// The client, for what this interface does not have.
    pub(crate) fn client(&self) -> &Client {
        self.settle();
        self.link.client()
    }

    /// Receives the rest of the result that the caller is reading, so that the session can run another statement.
    fn settle(&self) {
        if let Some(reading) = self.reading.take() {
            reading.receive_all(&self.link);
        }
    }

    /// Whether the session has ended, or is so old that a new one takes its place: PostgreSQL never freezes the rows of the
    /// temporary tables of an open session.
    pub(crate) fn is_over(&self) -> bool {
        self.link.is_over() || self.began.elapsed() >= SESSION_TIME
    }

    /// Rows that statements changed since the session began.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Waits for an answer of the server.
    pub(crate) fn wait<T, E>(&self, answer: impl Future<Output = Result<T, E>>) -> Result<T, Error>
    where
        Error: From<E>,
    {
        self.link.wait(answer)
    }

    /// Ends calls as soon as `interrupted` returns true.
    pub(crate) fn interrupt_when(&mut self, interrupted: Interrupted) {
        self.link.interrupt_when(interrupted);
    }

    /// Reserves places for rows in the tables of the session, which no other rows of the session have. Returns the first.
    pub(crate) fn reserve_places(&self, count: usize) -> i64 {
        let first = self.places.get();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.places.set(first.saturating_add(count));
        first
    }

    /// A statement with parameters for [`Session::run_in_order`].
    pub(crate) fn invocation<'a>(
        &self,
        sql: &str,
        parameters: Vec<ValueRef<'a>>,
    ) -> Result<Invocation<'a>, Error> {
        Ok(Invocation {
            statement: self.prepare(sql)?.statement,
            parameters: parameters.into_iter().map(Borrowed).collect(),
        })
    }

    /// Runs statements in order. The server has the next ones before it answers the first, so that they do not take a round
    /// trip each.
    pub(crate) fn run_in_order(&self, invocations: Vec<Invocation<'_>>) -> Result<Vec<Answer>, Error> {
        // The stream begins its futures in order, and a statement is sent when its future begins.
        let answers = futures_util::stream::iter(invocations)
            .map(|invocation| self.run(invocation))
            .buffered(UNANSWERED_MAX)
            .try_collect::<Vec<_>>();
        let answers = self.wait(answers)?;
        let changed: u64 = answers.iter().map(|answer| answer.affected).sum();
        self.changes.set(self.changes.get() + changed);
        Ok(answers)
    }

    async fn run(&self, invocation: Invocation<'_>) -> Result<Answer, tokio_postgres::Error> {
        let rows = self
            .client()
            .query_raw(&invocation.statement, invocation.parameters);
        let mut rows = std::pin::pin!(rows.await?);
        let mut first = None;
        while let Some(row) = rows.try_next().await? {
            if first.is_none() {
                let cells = (0..row.len()).map(|column| row.try_get(column).map(|Cell(value)| value));
                first = Some(cells.collect::<Result<Vec<_>, _>>()?);
            }
        }
        Ok(Answer {
            first: first.unwrap_or_default(),
            affected: rows.rows_affected().unwrap_or(0),
        })
    }

    pub(crate) fn execute_batch(&self, sql: &str) -> Result<(), Error> {
        self.settle();
        self.wait(self.link.client().batch_execute(sql))
    }

    pub(crate) fn execute(&self, sql: &str, values: &[&dyn ToSql]) -> Result<usize, Error> {
        self.prepare(sql)?.execute(values)
    }

    /// The columns of the result of a statement, which is not translated.
    pub(crate) fn describe(&self, sql: &str) -> Result<Vec<ResultColumn>, Error> {
        let statement = self.prepare_verbatim(sql)?.statement;
        let columns = statement.columns().iter();
        Ok(columns
            .map(|column| ResultColumn {
                name: column.name().to_owned(),
                kind: ResultKind::of(column.type_()),
            })
            .collect())
    }

    /// A prepared statement, as it is.
    pub(crate) fn prepare_verbatim(&self, sql: &str) -> Result<Statement<'_>, Error> {
        self.settle();
        Ok(Statement {
            session: self,
            statement: self.wait(self.link.client().prepare(sql))?,
        })
    }

    /// A prepared statement; the session keeps it.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Statement<'_>, Error> {
        self.settle();
        let kept = self.statements.borrow().get(sql).cloned();
        let statement = match kept {
            Some(statement) => statement,
            None => {
                let prepared = self.wait(self.link.client().prepare(&portable(sql)))?;
                let mut statements = self.statements.borrow_mut();
                if statements.len() >= STATEMENTS_KEPT {
                    statements.clear();
                }
                statements.insert(sql.to_owned(), prepared.clone());
                prepared
            }
        };
        Ok(Statement {
            session: self,
            statement,
        })
    }
}

/// A column of a result.
pub(crate) struct ResultColumn {
    pub(crate) name: String,
    pub(crate) kind: ResultKind,
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResultKind {
    /// Numbers and booleans.
    Number,
    Bytes,
    /// Text, and types that this interface does not read.
    Other,
}

impl ResultKind {
    fn of(ty: &Type) -> Self {
        match *ty {
            Type::BOOL
            | Type::INT2
            | Type::INT4
            | Type::INT8
            | Type::OID
            | Type::FLOAT4
            | Type::FLOAT8
            | Type::NUMERIC => Self::Number,
            Type::BYTEA => Self::Bytes,
            _ => Self::Other,
        }
    }
}

/// A statement with its parameters.
pub(crate) struct Invocation<'a> {
    statement: tokio_postgres::Statement,
    parameters: Vec<Borrowed<'a>>,
}

/// The answer to a statement.
pub(crate) struct Answer {
    /// The values of its first row; none without rows.
    pub(crate) first: Vec<Value>,
    /// Rows that it changed or returned.
    pub(crate) affected: u64,
}

/// A prepared statement of a session.
pub(crate) struct Statement<'c> {
    session: &'c Session,
    statement: tokio_postgres::Statement,
}

impl<'c> Statement<'c> {
    /// The statement of the driver.
    pub(crate) fn inner(&self) -> &tokio_postgres::Statement {
        &self.statement
    }

    pub(crate) fn execute(&mut self, values: &[&dyn ToSql]) -> Result<usize, Error> {
        let values = parameters(values)?;
        let client = self.session.client();
        let changed = self.session.wait(client.execute_raw(&self.statement, &values))?;
        self.session.changes.set(self.session.changes.get() + changed);
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(crate) fn query(&mut self, values: &[&dyn ToSql]) -> Result<Rows<'c>, Error> {
        let values = parameters(values)?;
        let client = self.session.client();
        let stream = self.session.wait(client.query_raw(&self.statement, &values))?;
        let reading = SharedReading::new(stream);
        self.session.reading.replace(Some(reading.clone()));
        Ok(Rows::new(&self.session.link, reading))
    }

    pub(crate) fn column_count(&self) -> usize {
        self.statement.columns().len()
    }
}

fn parameters(values: &[&dyn ToSql]) -> Result<Vec<Parameter>, Error> {
    values
        .iter()
        .map(|value| Parameter::of(*value).map_err(Error::from))
        .collect()
}
