//! Readiness checks of the host: broker, database and plugin files. They read the published state of the parts and perform
//! no requests. The http crate checks the projections.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lantern_broker::{Broker, Link};
use lantern_http::{Check, Health};
use lantern_lifecycle::{Lifecycle, LoadFailure, LoadSubject};
use lantern_model::results::rebuild::RebuildProgress;
use lantern_store::{LeaseView, Store};
use lantern_telemetry::Metrics;

/// Number of load failures that are listed; the others are counted.
const LOAD_FAILURES_SHOWN: usize = 20;

/// The checks that http performs for each request.
pub(super) fn checks(broker: &Broker, store: &Store, lifecycle: Lifecycle, metrics: Metrics) -> Health {
    let (link, database, log) = (broker.link(), store.health(), store.log_path());
    let file = store.file();
    Arc::new(move || {
        let broker = broker_check(&link.borrow());
        metrics.broker_connected(broker.ok);
        let mut checks = vec![broker, database_check(&database.borrow(), &file.check())];
        checks.extend(log.as_deref().map(wal_check));
        checks.extend(load_failure_checks(&lifecycle.load_failures()));
        checks.extend(lifecycle.leases().iter().flat_map(lease_checks));
        checks.extend(lifecycle.active_rebuilds().into_iter().map(rebuild_check));
        checks
    })
}

/// A rejected file is listed, but does not make the host unready, because no message waits for it. A plugin that should run
/// and cannot be loaded makes the host unready.
fn load_failure_checks(failures: &[LoadFailure]) -> Vec<Check> {
    let (urgent, others): (Vec<&LoadFailure>, Vec<&LoadFailure>) =
        failures.iter().partition(|failure| failure.blocks_messages);
    let shown = urgent.iter().chain(others.iter().take(LOAD_FAILURES_SHOWN));
    let mut checks: Vec<Check> = shown
        .map(|failure| Check {
            name: check_name(&failure.subject),
            ok: !failure.blocks_messages,
            detail: format!("rejected: {}", failure.reason),
        })
        .collect();
    if others.len() > LOAD_FAILURES_SHOWN {
        checks.push(Check {
            name: "plugin-files".to_owned(),
            ok: true,
            detail: format!("{} more files were rejected", others.len() - LOAD_FAILURES_SHOWN),
        });
    }
    checks
}

/// The name of the check of a load failure.
fn check_name(subject: &LoadSubject) -> String {
    match subject {
        LoadSubject::File(file) => format!("file:{file}"),
        LoadSubject::Plugin(plugin) => format!("plugin:{plugin}"),
        LoadSubject::PluginDirectory => "plugin-directory".to_owned(),
    }
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

/// How long a plugin may be without a host.
const UNOWNED: Duration = Duration::from_secs(10);

/// Among several hosts: this host can renew its leases, and each plugin has a host.
fn lease_checks(view: &LeaseView) -> Vec<Check> {
    let mut checks = vec![Check {
        name: "leases".to_owned(),
        ok: view.problem.is_none(),
        detail: match &view.problem {
            Some(problem) => format!("the leases of plugins cannot be renewed: {problem}"),
            None => format!("{} of {} hosts live", living(view), view.nodes.len()),
        },
    }];
    for plugin in view.leases.keys() {
        if let Some(for_ms) = view.unowned_for_ms(plugin) {
            checks.push(Check {
                name: format!("lease:{plugin}"),
                ok: for_ms < UNOWNED.as_millis() as i64,
                detail: format!("no host has run the plugin for {} s", for_ms / 1_000),
            });
        }
    }
    checks
}

fn living(view: &LeaseView) -> usize {
    view.nodes.values().filter(|node| node.is_alive).count()
}

/// A rebuild does not make the host unready, because the tables in use stay available.
fn rebuild_check((plugin, progress, blocked): (String, RebuildProgress, Option<String>)) -> Check {
    let mut detail = format!(
        "{} messages processed, {} remaining",
        progress.messages, progress.messages_left
    );
    if let Some(reason) = blocked {
        detail.push_str(", blocked: ");
        detail.push_str(&reason);
    }
    Check {
        name: format!("rebuild:{plugin}"),
        ok: true,
        detail,
    }
}

/// Size of the write-ahead log beyond which the check fails. The host keeps the log below 100 MiB, unless another program
/// keeps a read transaction open.
const WAL_BYTES_MAX: u64 = 1 << 30;

fn wal_check(log: &Path) -> Check {
    // A missing file is an empty log.
    let bytes = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
    let mib = bytes >> 20;
    let ok = bytes <= WAL_BYTES_MAX;
    let detail = if ok {
        format!("the size of the write-ahead log is {mib} MiB")
    } else {
        format!(
            "the write-ahead log has grown to {mib} MiB: another program keeps a read transaction on lantern.db open"
        )
    };
    Check {
        name: "database-log".to_owned(),
        ok,
        detail,
    }
}

/// `file` shows whether the writer has the present file open. A host without writes has not noticed that itself.
fn database_check(health: &lantern_store::Health, file: &Result<(), String>) -> Check {
    let (ok, detail) = match (health, file) {
        (lantern_store::Health::Healthy, Ok(())) => (true, "writable".to_owned()),
        (lantern_store::Health::Unavailable(reason), _) | (lantern_store::Health::Healthy, Err(reason)) => {
            (false, format!("not writable: {reason}"))
        }
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
    fn a_large_write_ahead_log_fails_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("lantern.db-wal");
        assert!(wal_check(&log).ok);
        let file = std::fs::File::create(&log).unwrap();
        file.set_len(WAL_BYTES_MAX).unwrap();
        assert!(wal_check(&log).ok);
        file.set_len(WAL_BYTES_MAX + (1 << 20)).unwrap();
        let check = wal_check(&log);
        assert!(!check.ok && check.detail.contains("1025 MiB"), "{}", check.detail);
    }
}
