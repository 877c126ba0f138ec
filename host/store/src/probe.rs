//! Looks regularly whether the writer's session with a PostgreSQL server is open. A host that writes nothing would notice
//! neither that the session has ended, nor that the server answers again.

use std::time::Duration;

use tokio::sync::mpsc::WeakSender;

use super::queue::{Call, Request};

/// How often it looks. A session that is open costs no request to the server.
const INTERVAL: Duration = Duration::from_secs(1);

/// Begins to look, until the store is closed.
pub(super) fn start(requests: WeakSender<Request>) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(requests) = requests.upgrade() else {
                return;
            };
            // The writer opens its session before every call, and publishes whether it can.
            let call: Call = Box::new(|_| None);
            if requests.send(Request::Step(call)).await.is_err() {
                return;
            }
        }
    });
}
