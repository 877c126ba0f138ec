//! What the host as a whole has to pass to be ready: broker and database, and which plugin files do not run. It looks
//! at what the parts say of themselves and asks nobody. Projections are looked at by http itself.

use std::path::Path;
use std::sync::Arc;

use lantern_broker::{Broker, Link};
use lantern_http::{Check, Health};
use lantern_lifecycle::{Lifecycle, LoadFailure, RebuildProgress};
use lantern_store::Store;
use lantern_telemetry::Metrics;

/// Refusals that are shown one by one; a directory full of rubbish is summed up.
const REFUSALS_SHOWN: usize = 20;

/// What http asks at each look.
pub(super) fn checks(broker: &Broker, store: &Store, lifecycle: Lifecycle, metrics: Metrics) -> Health {
    let (link, database, log) = (broker.link(), store.health(), store.log_path());
    Arc::new(move || {
        let broker = broker_check(&link.borrow());
        metrics.broker_connected(broker.ok);
        let mut checks = vec![broker, database_check(&database.borrow()), log_check(&log)];
        checks.extend(refusal_checks(&lifecycle.load_failures()));
        checks.extend(lifecycle.active_rebuilds().into_iter().map(rebuild_check));
        checks
    })
}

/// A file that is refused holds nothing up, so it does not make the host unready; it is said all the same. A plugin that
/// should run and does not leaves messages waiting.
fn refusal_checks(refusals: &[LoadFailure]) -> Vec<Check> {
    let (urgent, others): (Vec<&LoadFailure>, Vec<&LoadFailure>) =
        refusals.iter().partition(|refusal| refusal.blocks_messages);
    let shown = urgent.iter().chain(others.iter().take(REFUSALS_SHOWN));
    let mut checks: Vec<Check> = shown
        .map(|refusal| Check {
            name: refusal.what.replace(' ', ":"),
            ok: !refusal.blocks_messages,
            detail: format!("refused: {}", refusal.reason),
        })
        .collect();
    if others.len() > REFUSALS_SHOWN {
        checks.push(Check {
            name: "plugin-directory".to_owned(),
            ok: true,
            detail: format!("{} more files are refused", others.len() - REFUSALS_SHOWN),
        });
    }
    checks
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

/// A rebuild holds nothing up: the tables in use are served meanwhile.
fn rebuild_check((plugin, progress, held_up): (String, RebuildProgress, Option<String>)) -> Check {
    let mut detail = format!(
        "{} messages read again, {} left",
        progress.messages, progress.left
    );
    if let Some(reason) = held_up {
        detail.push_str(", held up: ");
        detail.push_str(&reason);
    }
    Check {
        name: format!("rebuild:{plugin}"),
        ok: true,
        detail,
    }
}

/// Bytes of the write-ahead log beyond which somebody has to look. The host keeps it below 100 MiB, but a program that
/// holds a read transaction open keeps it from starting over.
const LOG_BYTES_MAX: u64 = 1 << 30;

fn log_check(log: &Path) -> Check {
    // Without the file there is nothing in it.
    let bytes = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
    let mib = bytes >> 20;
    let ok = bytes <= LOG_BYTES_MAX;
    let detail = if ok {
        format!("the write-ahead log has {mib} MiB")
    } else {
        format!(
            "the write-ahead log has grown to {mib} MiB: some program keeps a read transaction of lantern.db open"
        )
    };
    Check {
        name: "database-log".to_owned(),
        ok,
        detail,
    }
}

fn database_check(health: &lantern_store::Health) -> Check {
    let (ok, detail) = match health {
        lantern_store::Health::Healthy => (true, "can be written".to_owned()),
        lantern_store::Health::Unavailable(reason) => (false, format!("cannot be written: {reason}")),
    };
    Check {
        name: "database".to_owned(),
        ok,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_a_reader_keeps_from_starting_over_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("lantern.db-wal");
        assert!(log_check(&log).ok);
        let file = std::fs::File::create(&log).unwrap();
        file.set_len(LOG_BYTES_MAX).unwrap();
        assert!(log_check(&log).ok);
        file.set_len(LOG_BYTES_MAX + (1 << 20)).unwrap();
        let check = log_check(&log);
        assert!(!check.ok && check.detail.contains("1025 MiB"), "{}", check.detail);
    }
}
