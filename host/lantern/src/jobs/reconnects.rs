//! Counts reconnections to the broker.

use lantern_broker::{Broker, Link};
use lantern_telemetry::Metrics;

/// Counts each connection after the first one, until the broker is dropped.
pub(super) async fn run(broker: Broker, metrics: Metrics) {
    let mut link = broker.link();
    let mut known = None;
    loop {
        if let Link::Connected(server) = &*link.borrow_and_update() {
            if known.is_some_and(|known| known != server.generation) {
                metrics.broker_reconnected();
            }
            known = Some(server.generation);
        }
        if link.changed().await.is_err() {
            return;
        }
    }
}
