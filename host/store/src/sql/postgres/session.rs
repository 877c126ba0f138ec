//! One session: a client, its prepared statements, and the interrupt that ends a read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::ToSql;
use rusqlite::types::Value;
use tokio::runtime::Handle;
use tokio_postgres::{Client, Config, NoTls};

use super::dialect::portable;
use super::values::{Cell, Parameter};
use crate::sql::Error;

/// How often a waiting call looks whether it has been interrupted.
const INTERRUPT_STEP: Duration = Duration::from_millis(10);
/// Prepared statements that a session keeps. Statements with names of tables and filters differ, so the number is bounded.
const STATEMENTS_KEPT: usize = 256;

/// How long a session is used.
const SESSION_TIME: Duration = Duration::from_secs(60 * 60);

/// How a session is opened.
#[derive(Clone, Debug)]
pub(crate) struct SessionOptions {
    /// The address, without the settings below.
    pub(crate) config: Config,
    /// Shown in `pg_stat_activity`, so that an operator and a successor recognise the session.
    pub(crate) application_name: String,
    /// Statements that the new session runs first.
    pub(crate) setup: String,
}

/// Whether the call in progress has to end.
type Interrupted = Arc<dyn Fn() -> bool + Send + Sync>;

/// A session of a PostgreSQL server.
pub(crate) struct Session {
    client: Client,
    runtime: Handle,
    statements: RefCell<HashMap<String, tokio_postgres::Statement>>,
    interrupted: Option<Interrupted>,
    began: Instant,
    /// Rows that statements changed since the session began.
    changes: std::cell::Cell<u64>,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Connects and sets the session up. Blocks; not for threads of the runtime.
    pub(crate) fn open(runtime: &Handle, options: &SessionOptions) -> Result<Self, Error> {
        let mut config = options.config.clone();
        config
            .application_name(&options.application_name)
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(10));
        let (client, connection) = runtime.block_on(config.connect(NoTls))?;
        runtime.spawn(async move {
            // The client reports the error of the connection to its caller.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL has ended");
            }
        });
        let session = Self {
            client,
            runtime: runtime.clone(),
            statements: RefCell::default(),
            interrupted: None,
            began: Instant::now(),
            changes: std::cell::Cell::new(0),
        };
        session.execute_batch(&options.setup)?;
        Ok(session)
    }

    /// Ends calls as soon as `interrupted` returns true.
    pub(crate) fn interrupt_when(&mut self, interrupted: Interrupted) {
        self.interrupted = Some(interrupted);
    }

    /// The client, for what this interface does not have.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the session has ended, or is so old that a new one takes its place: PostgreSQL never freezes the rows of the
    /// temporary tables of an open session.
    pub(crate) fn is_over(&self) -> bool {
        self.client.is_closed() || self.began.elapsed() >= SESSION_TIME
    }

    /// Rows that statements changed since the session began.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Waits for an answer of the server.
    pub(crate) fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        let Some(interrupted) = &self.interrupted else {
            return Ok(self.runtime.block_on(answer)?);
        };
        self.runtime.block_on(async {
            let mut answer = std::pin::pin!(answer);
            loop {
                tokio::select! {
                    answer = &mut answer => return Ok(answer?),
                    () = tokio::time::sleep(INTERRUPT_STEP) => {}
                }
                if interrupted() {
                    // The server ends the statement; its answer is then an error that is not waited for, because the
                    // caller closes the session.
                    if let Err(error) = self.client.cancel_token().cancel_query(NoTls).await {
                        tracing::debug!(%error, "a statement of PostgreSQL was not cancelled");
                    }
                    return Err(Error::Interrupted);
                }
            }
        })
    }

    pub(crate) fn execute_batch(&self, sql: &str) -> Result<(), Error> {
        self.wait(self.client.batch_execute(sql))
    }

    pub(crate) fn execute(&self, sql: &str, values: &[&dyn ToSql]) -> Result<usize, Error> {
        self.prepare(sql)?.execute(values)
    }

    /// A prepared statement; the session keeps it.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Statement<'_>, Error> {
        let kept = self.statements.borrow().get(sql).cloned();
        let statement = match kept {
            Some(statement) => statement,
            None => {
                let prepared = self.wait(self.client.prepare(&portable(sql)))?;
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

/// A prepared statement of a session.
pub(crate) struct Statement<'c> {
    session: &'c Session,
    statement: tokio_postgres::Statement,
}

impl Statement<'_> {
    pub(crate) fn execute(&mut self, values: &[&dyn ToSql]) -> Result<usize, Error> {
        let values = parameters(values)?;
        let client = &self.session.client;
        let changed = self.session.wait(client.execute_raw(&self.statement, &values))?;
        self.session.changes.set(self.session.changes.get() + changed);
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(crate) fn query(&mut self, values: &[&dyn ToSql]) -> Result<Rows, Error> {
        let values = parameters(values)?;
        let references: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
            values.iter().map(|value| value as _).collect();
        let client = &self.session.client;
        let rows = self.session.wait(client.query(&self.statement, &references))?;
        Ok(Rows {
            rows: rows.into_iter(),
            current: Vec::new(),
        })
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

/// The rows of a statement. They were all received: a statement that runs while another one's rows are read would otherwise
/// wait for ever.
pub(crate) struct Rows {
    rows: std::vec::IntoIter<tokio_postgres::Row>,
    current: Vec<Value>,
}

impl Rows {
    pub(crate) fn next(&mut self) -> Result<Option<&[Value]>, Error> {
        let Some(row) = self.rows.next() else {
            return Ok(None);
        };
        self.current.clear();
        for column in 0..row.len() {
            let Cell(value) = row.try_get(column)?;
            self.current.push(value);
        }
        Ok(Some(&self.current))
    }
}
