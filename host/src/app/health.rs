//! What the host as a whole has to pass to be ready: broker and database, and which plugin files do not run. It looks
//! at what the parts say of themselves and asks nobody. Projections are looked at by http itself.

use std::sync::Arc;

use crate::broker::{Broker, Link};
use crate::http::{Check, Health};
use crate::store::{self, Store};
use crate::telemetry::Metrics;

/// A plugin file that is not running.
pub(super) struct Refused {
    pub(super) file: String,
    pub(super) reason: String,
}

/// What http asks at each look.
pub(super) fn checks(broker: &Broker, store: &Store, refused: Vec<Refused>, metrics: Metrics) -> Health {
    let (link, database) = (broker.link(), store.health());
    // The others run and nothing is held up, so this does not make the host unready; it is said all the same.
    let refused: Vec<Check> = refused
        .into_iter()
        .map(|refused| Check {
            name: format!("plugin:{}", refused.file),
            ok: true,
            detail: format!("refused: {}", refused.reason),
        })
        .collect();
    Arc::new(move || {
        let broker = broker_check(&link.borrow());
        metrics.broker_connected(broker.ok);
        let mut checks = vec![broker, database_check(&database.borrow())];
        checks.extend(refused.iter().cloned());
        checks
    })
}

fn broker_check(link: &Link) -> Check {
    let (ok, detail) = match link {
        Link::Connected(server) => (
            true,
            format!("connected to {}, nats-server {}", server.url, server.version),
        ),
        Link::Connecting { since, last_error } => {
            let reason = last_error
                .as_ref()
                .map(|error| format!(": {error}"))
                .unwrap_or_default();
            (
                false,
                format!("not connected since {}{reason}", since.to_rfc3339()),
            )
        }
        Link::Refused { why, hint } => (false, format!("{why} ({hint})")),
    };
    Check {
        name: "broker".to_owned(),
        ok,
        detail,
    }
}

fn database_check(health: &store::Health) -> Check {
    let (ok, detail) = match health {
        store::Health::Well => (true, "can be written".to_owned()),
        store::Health::Unwell(reason) => (false, format!("cannot be written: {reason}")),
    };
    Check {
        name: "database".to_owned(),
        ok,
        detail,
    }
}
