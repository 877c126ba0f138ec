//! The connection of a session: how it is opened, and how a caller waits for an answer.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio_postgres::{Client, Config, Connection, NoTls};

use super::tls::{Connector, Tls};
use crate::sql::Error;

/// How often a waiting call looks whether it has been interrupted.
const INTERRUPT_STEP: Duration = Duration::from_millis(10);

/// How a session is opened.
#[derive(Clone, Debug)]
pub(crate) struct SessionOptions {
    /// The address, without the settings below.
    pub(crate) config: Config,
    pub(crate) tls: Tls,
    /// Shown in `pg_stat_activity`, so that an operator and a successor recognise the session.
    pub(crate) application_name: String,
    /// Statements that the new session runs first.
    pub(crate) setup: String,
}

/// Whether the call in progress has to end.
pub(crate) type Interrupted = Arc<dyn Fn() -> bool + Send + Sync>;

/// An open connection.
pub(super) struct Link {
    client: Client,
    connector: Connector,
    runtime: Handle,
    interrupted: Option<Interrupted>,
    /// Whether a statement was cancelled.
    is_abandoned: Cell<bool>,
}

impl Link {
    pub(super) fn open(runtime: &Handle, options: &SessionOptions) -> Result<Self, Error> {
        let mut config = options.config.clone();
        config
            .application_name(&options.application_name)
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(10));
        config.ssl_mode(options.tls.ssl_mode());
        let connector = options.tls.connector()?;
        let client = runtime.block_on(async {
            match &connector {
                Connector::Plain => config.connect(NoTls).await.map(serve),
                Connector::Tls(connect) => config.connect(connect.clone()).await.map(serve),
            }
        })?;
        Ok(Self {
            client,
            connector,
            runtime: runtime.clone(),
            interrupted: None,
            is_abandoned: Cell::new(false),
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection cannot be used again.
    pub(super) fn is_over(&self) -> bool {
        self.client.is_closed() || self.is_abandoned.get()
    }

    /// Ends calls as soon as `interrupted` returns true.
    pub(super) fn interrupt_when(&mut self, interrupted: Interrupted) {
        self.interrupted = Some(interrupted);
    }

    /// Whether the session ends calls of callers that are gone.
    pub(super) fn is_interruptible(&self) -> bool {
        self.interrupted.is_some()
    }

    /// Cancels the statement whose result the caller does not need any more. The connection is not used again.
    pub(super) fn abandon(&self) {
        self.is_abandoned.set(true);
        let (token, connector) = (self.client.cancel_token(), self.connector.clone());
        self.runtime.spawn(async move {
            if let Err(error) = connector.cancel(&token).await {
                tracing::debug!(%error, "a statement of PostgreSQL was not cancelled");
            }
        });
    }

    /// Waits for an answer of the server.
    pub(super) fn wait<T, E>(&self, answer: impl Future<Output = Result<T, E>>) -> Result<T, Error>
    where
        Error: From<E>,
    {
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
                    self.is_abandoned.set(true);
                    if let Err(error) = self.connector.cancel(&self.client.cancel_token()).await {
                        tracing::debug!(%error, "a statement of PostgreSQL was not cancelled");
                    }
                    return Err(Error::Interrupted);
                }
            }
        })
    }
}

/// Lets the runtime serve a connection. The client reports its errors to the caller.
fn serve<S, T>((client, connection): (Client, Connection<S, T>)) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to PostgreSQL has ended");
        }
    });
    client
}
