//! Changes other than batches: functions that the writer runs on its connection.

use crate::sql::Connection;
use tokio::sync::oneshot;

use super::catalog::{CatalogError, StoreRefusal};
use super::queue::{Call, Request};
use super::{AdoptError, CommitError, Store};

impl Store {
    /// Waits until the writer has carried out all earlier requests, with a database that is open and is the file at the
    /// path, so that a read that follows sees their effect.
    pub(crate) async fn flush(&self) -> Result<(), CommitError> {
        self.call(|_| Ok(())).await
    }

    /// Runs a change on the write connection, as one request of the writer.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<T, crate::sql::Error> + Send + 'static,
    ) -> Result<T, CommitError> {
        self.request(Request::Call, act).await
    }

    /// Runs a small step of background work on the write connection. Live batches overtake it.
    pub(crate) async fn step<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<T, crate::sql::Error> + Send + 'static,
    ) -> Result<T, CommitError> {
        self.request(Request::Step, act).await
    }

    pub(crate) async fn request<T: Send + 'static>(
        &self,
        kind: fn(Call) -> Request,
        act: impl FnOnce(&mut Connection) -> Result<T, crate::sql::Error> + Send + 'static,
    ) -> Result<T, CommitError> {
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |connection| {
            let (result, failed) = match connection {
                Err(reason) => (Err(CommitError::Unavailable(reason)), None),
                Ok(connection) => match act(connection) {
                    Ok(value) => (Ok(value), None),
                    Err(error) if error.is_of_statement() => {
                        (Err(CommitError::Failed(error.to_string())), Some(error))
                    }
                    Err(error) => (Err(CommitError::Unavailable(error.to_string())), Some(error)),
                },
            };
            // The send fails when the caller has gone away.
            drop(reply.send(result));
            failed
        });
        self.requests
            .send(kind(call))
            .await
            .map_err(|_| CommitError::Closed)?;
        answer.await.map_err(|_| CommitError::Closed)?
    }

    /// As [`Store::call`], for a change that may be refused with reasons.
    pub(crate) async fn call_catalog<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, AdoptError> {
        self.request_catalog(Request::Call, act).await
    }

    pub(crate) async fn request_catalog<T: Send + 'static>(
        &self,
        kind: fn(Call) -> Request,
        act: impl FnOnce(&mut Connection) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, AdoptError> {
        let refusable = move |connection: &mut Connection| match act(connection) {
            Ok(value) => Ok(Ok(value)),
            Err(CatalogError::Refused(reasons)) => Ok(Err(AdoptError::Refused(reasons))),
            Err(CatalogError::Sqlite(error)) => Err(error),
        };
        match self.request(kind, refusable).await {
            Ok(adopted) => adopted,
            Err(CommitError::Closed) => Err(AdoptError::Closed),
            Err(CommitError::Failed(reason)) => Err(AdoptError::Refused(vec![StoreRefusal::from(reason)])),
            Err(error) => Err(AdoptError::Unavailable(error.to_string())),
        }
    }
}
