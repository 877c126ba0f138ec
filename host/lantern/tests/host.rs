//! Tests the whole program against a real broker: messages become rows exactly once, regardless of kills, deletions and
//! restores in between.

#![allow(clippy::too_many_lines, reason = "a scenario is one sequence of steps")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    reason = "clippy.toml allows them in tests, but clippy does not take a test's helpers for tests"
)]

#[path = "support/cluster.rs"]
mod cluster_of_servers;
#[path = "support/evolving.rs"]
mod evolving;
#[path = "support/host.rs"]
mod host;
#[path = "support/killed_postgres.rs"]
mod killed_postgres;
#[path = "support/line.rs"]
mod line_to_broker;
#[path = "support/nats.rs"]
mod nats;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "../../../xtask/src/postgres.rs"]
mod postgres_server;
#[path = "support/query.rs"]
mod query;
#[path = "support/starving.rs"]
mod starving_line;
#[path = "support/torture.rs"]
mod torture;

#[path = "host/access.rs"]
mod access;
#[path = "host/audit.rs"]
mod audit;
#[path = "host/brokers.rs"]
mod brokers;
#[path = "host/cluster.rs"]
mod cluster;
#[path = "host/database_server.rs"]
mod database_server;
#[path = "host/deep.rs"]
mod deep;
#[path = "host/engines.rs"]
mod engines;
#[path = "host/examples.rs"]
mod examples;
#[path = "host/faults.rs"]
mod faults;
#[path = "host/forget.rs"]
mod forget;
#[path = "host/history.rs"]
mod history;
#[path = "host/impostor.rs"]
mod impostor;
#[path = "host/io.rs"]
mod io;
#[path = "host/leaders.rs"]
mod leaders;
#[path = "host/line.rs"]
mod line;
#[path = "host/log.rs"]
mod log;
#[path = "host/logins.rs"]
mod logins;
#[path = "host/malformed.rs"]
mod malformed;
#[path = "host/misbehaving.rs"]
mod misbehaving;
#[path = "host/nodes.rs"]
mod nodes;
#[path = "host/operator.rs"]
mod operator;
#[path = "host/power.rs"]
mod power;
#[path = "host/search.rs"]
mod search;
#[path = "host/seeds.rs"]
mod seeds;
#[path = "host/start.rs"]
mod start;
#[path = "host/starvation.rs"]
mod starvation;
#[path = "host/values.rs"]
mod values;
#[path = "host/warnings.rs"]
mod warnings;
#[path = "host/wasi.rs"]
mod wasi;

use std::path::Path;
use std::time::Duration;

use host::{Host, lantern, plugin_folder, succeeds};
use nats::NatsServer;
use query::query;
use serde_json::json;

/// Longer than any operation takes on a busy machine with two cores.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a future that talks to the broker directly, without Lantern.
fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// Publishes messages and waits until the broker has stored each.
fn publish(server: &NatsServer, messages: &[(String, String)]) {
    run(async {
        let context = server.jetstream().await;
        for (subject, payload) in messages {
            let ack = context
                .publish(subject.clone(), payload.clone().into())
                .await
                .unwrap();
            ack.await.unwrap();
        }
    });
}

/// Returns `count` obs events, numbered from `first`.
fn obs(first: usize, count: usize) -> Vec<(String, String)> {
    (first..first + count)
        .map(|number| {
            let event = json!({
                "pc_id": "pc-1", "at": "2026-05-28T10:41:00Z", "kind": "logon", "source": "winlog:Security",
                "event_record_id": number.to_string(), "payload": {"n": number},
            });
            ("obs.pc-1".to_owned(), event.to_string())
        })
        .collect()
}

fn running(host: &Host, source: &str) {
    host.wait("running", LIMIT, |host| {
        host.projection(source)["state"] == "running"
    });
}

fn wait_for_rows(host: &Host, dir: &Path, table: &str, count: usize) {
    let sql = format!("SELECT count(*) FROM {table}");
    host.wait(&format!("{count} rows in {table}"), LIMIT, |_| {
        query(dir, &sql) == [count.to_string()]
    });
}

/// Returns all rows of a table in a fixed order, without the host's origin numbers.
fn dump(dir: &Path, table: &str) -> Vec<String> {
    let columns = query(
        dir,
        &format!(
            "SELECT group_concat(name, ', ') FROM pragma_table_info('{table}') WHERE name NOT LIKE '\\_%' ESCAPE '\\'"
        ),
    );
    query(dir, &format!("SELECT {0} FROM {table} ORDER BY {0}", columns[0]))
}

#[track_caller]
fn sound(dir: &Path) {
    succeeds(dir, &["check"]);
}

/// A broker, a plugin directory and a data directory, for hosts that run one after the other.
struct Site {
    server: NatsServer,
    plugins: tempfile::TempDir,
    dir: tempfile::TempDir,
}

impl Site {
    /// With these stock plugins.
    fn new(plugins: &[&str]) -> Self {
        Self::with(plugin_folder(plugins))
    }

    fn with(plugins: tempfile::TempDir) -> Self {
        Self {
            server: NatsServer::start(),
            plugins,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self) -> std::process::Command {
        Host::command(self.dir(), &self.server.url(), self.plugins.path())
    }

    fn start(&self) -> Host {
        Host::spawn(self.command())
    }

    /// Starts a host, and waits until a source reads.
    fn running(&self, source: &str) -> Host {
        let host = self.start();
        running(&host, source);
        host
    }

    fn publish(&self, messages: &[(String, String)]) {
        publish(&self.server, messages);
    }

    fn wait_for_rows(&self, host: &Host, table: &str, count: usize) {
        wait_for_rows(host, self.dir(), table, count);
    }

    /// Stops a host and checks its database.
    #[track_caller]
    fn end(&self, host: Host) {
        host.terminate();
        sound(self.dir());
    }
}
