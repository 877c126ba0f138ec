//! Tests several hosts on one PostgreSQL database: each plugin runs on one of them, and another one takes it over when its
//! host is killed, stopped or frozen, without a lost or repeated row.

use rustix::process::{Pid, Signal, kill_process};

use super::host::{output, plugins};
use super::*;
use crate::postgres_server::{self, Server};

/// A broker, a PostgreSQL server, and hosts with a data directory each.
struct Group {
    broker: NatsServer,
    database: Server,
    psql: std::path::PathBuf,
    empty: tempfile::TempDir,
    dirs: Vec<tempfile::TempDir>,
}

impl Group {
    /// `None`, with the reason on standard error, where no PostgreSQL server can be started.
    fn start(hosts: usize) -> Option<Self> {
        let started = postgres_server::programs().and_then(|programs| {
            let server = Server::start(&programs).map_err(|error| format!("{error:#}"))?;
            Ok((server, programs.join("psql")))
        });
        let (database, psql) = match started {
            Ok(started) => started,
            Err(reason) => {
                eprintln!("skipped: {reason}");
                return None;
            }
        };
        Some(Self {
            broker: NatsServer::start(),
            database,
            psql,
            empty: tempfile::tempdir().unwrap(),
            dirs: (0..hosts).map(|_| tempfile::tempdir().unwrap()).collect(),
        })
    }

    fn dir(&self, number: usize) -> &Path {
        self.dirs[number].path()
    }

    /// Starts a host without plugins.
    fn host(&self, number: usize) -> Host {
        let mut command = Host::command(self.dir(number), &self.broker.url(), self.empty.path());
        command
            .env("LANTERN__STORE__URL", self.database.address())
            .env("LANTERN__NODE__NAME", format!("host-{number}"));
        Host::spawn(command)
    }

    fn install(&self, number: usize, plugin: &str) {
        let file = plugins().join(format!("{plugin}.wasm"));
        succeeds(
            self.dir(number),
            &["plugin", "install", file.to_str().unwrap(), "--activate"],
        );
    }

    fn publish(&self, first: usize, count: usize) {
        publish(&self.broker, &obs(first, count));
    }

    fn query(&self, sql: &str) -> Vec<String> {
        let mut command = std::process::Command::new(&self.psql);
        command
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--command",
            ])
            .arg(format!("SET search_path = lantern; {sql}"))
            .arg(self.database.address());
        let (code, text) = output(&mut command);
        assert_eq!(code, 0, "{sql}: {text}");
        text.lines().map(str::to_owned).collect()
    }

    /// The rows of the table, and the distinct ones.
    fn rows(&self) -> String {
        self.query("SELECT count(*), count(DISTINCT event_record_id) FROM obs_events")
            .remove(0)
    }

    /// Waits until a host shows the source as running on one of the hosts; returns its number.
    fn owner(&self, host: &Host) -> usize {
        host.wait("the plugin runs on one host", LIMIT, |host| {
            let projection = obs_source(host);
            projection["state"] == "running" && projection["node"].is_string()
        });
        let node = obs_source(host)["node"].as_str().unwrap().to_owned();
        node.trim_start_matches("host-").parse().unwrap()
    }

    fn wait_for_rows(&self, host: &Host, count: usize) {
        let expected = format!("{count}|{count}");
        host.wait(&format!("{count} rows"), LIMIT, |_| self.rows() == expected);
    }
}

/// The source as a host shows it; null while it has not heard of the plugin.
fn obs_source(host: &Host) -> serde_json::Value {
    let all = host.json("/api/v1/projections");
    let mut all = all.as_array().unwrap().iter();
    all.find(|projection| projection["source"] == "obs")
        .cloned()
        .unwrap_or_default()
}

fn signal(host: &Host, signal: Signal) {
    kill_process(Pid::from_raw(host.pid().cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn another_host_takes_the_plugins_of_a_killed_host_over() {
    let Some(group) = Group::start(2) else { return };
    let mut hosts = [Some(group.host(0)), Some(group.host(1))];
    group.install(0, "obs-events");
    let mut published = 0;
    for round in 0..4 {
        let shown = hosts[round % 2].as_ref().unwrap();
        let owner = group.owner(shown);
        group.publish(published + 1, 200);
        published += 200;
        let other = 1 - owner;
        hosts[owner].take().unwrap().kill();
        let survivor = hosts[other].as_ref().unwrap();
        group.publish(published + 1, 200);
        published += 200;
        group.wait_for_rows(survivor, published);
        assert_eq!(group.owner(survivor), other);
        hosts[owner] = Some(group.host(owner));
    }
    assert_eq!(
        group.query("SELECT count(*) FROM _lantern_dead_letter"),
        ["0"],
        "no message was rejected"
    );
}

#[test]
fn a_frozen_host_that_continues_writes_nothing() {
    let Some(group) = Group::start(2) else { return };
    let hosts = [group.host(0), group.host(1)];
    group.install(0, "obs-events");
    let mut published = 0;
    for _ in 0..2 {
        let owner = group.owner(&hosts[0]);
        let (frozen, other) = (&hosts[owner], &hosts[1 - owner]);
        group.publish(published + 1, 300);
        published += 300;
        signal(frozen, Signal::STOP);
        group.publish(published + 1, 300);
        published += 300;
        group.wait_for_rows(other, published);
        assert_eq!(group.owner(other), 1 - owner);
        signal(frozen, Signal::CONT);
        group.publish(published + 1, 300);
        published += 300;
        group.wait_for_rows(other, published);
        frozen.wait("the other host is shown", LIMIT, |host| {
            obs_source(host)["node"] == format!("host-{}", 1 - owner)
        });
    }
}

#[test]
fn a_host_that_stops_hands_its_plugins_over_and_all_hosts_show_the_same() {
    let Some(group) = Group::start(2) else { return };
    let mut hosts = [Some(group.host(0)), Some(group.host(1))];
    group.install(0, "obs-events");
    group.install(1, "heartbeats");
    group.publish(1, 100);
    let owner = group.owner(hosts[0].as_ref().unwrap());
    let (stopping, other) = (hosts[owner].take().unwrap(), hosts[1 - owner].as_ref().unwrap());
    group.wait_for_rows(&stopping, 100);
    other.wait("the report of the other host", LIMIT, |host| {
        obs_source(host)["checkpoint"] == 100
    });
    let nodes = other.json("/api/v1/nodes");
    assert_eq!(nodes.as_array().unwrap().len(), 2, "{nodes}");
    assert!(stopping.terminate().success());
    group.publish(101, 100);
    group.wait_for_rows(other, 200);
    assert_eq!(group.owner(other), 1 - owner);
    let nodes = other.json("/api/v1/nodes");
    assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes}");
    assert_eq!(nodes[0]["plugins"], json!(["heartbeats", "obs-events"]));
    assert_eq!(other.get("/readyz").unwrap().0, 200);
}

#[test]
fn every_host_follows_the_changes_of_the_others() {
    let Some(group) = Group::start(2) else { return };
    let hosts = [group.host(0), group.host(1)];
    group.install(0, "obs-events");
    let owner = group.owner(&hosts[1]);
    // A token that one host creates is valid on the other.
    let created = succeeds(group.dir(0), &["token", "create", "reader", "--role", "viewer"]);
    assert!(created.contains("lantern_"), "{created}");
    hosts[1].wait("the token on the other host", LIMIT, |_| {
        succeeds(group.dir(1), &["token", "list"]).contains("reader")
    });
    succeeds(
        group.dir(owner),
        &["plugin", "pause", "obs-events", "--reason", "maintenance"],
    );
    for host in &hosts {
        host.wait("the pause", LIMIT, |host| obs_source(host)["state"] == "paused");
    }
    let other = group.dir(1 - owner);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"));
    command
        .args(["plugin", "resume", "obs-events", "--data-dir"])
        .arg(other);
    let (code, text) = output(&mut command);
    assert_eq!(
        code, 0,
        "a change that another host has to do is passed on: {text}"
    );
    for host in &hosts {
        host.wait("the end of the pause", LIMIT, |host| {
            obs_source(host)["state"] == "running"
        });
    }
    succeeds(
        group.dir(1 - owner),
        &["plugin", "remove", "obs-events", "--keep-tables"],
    );
    for host in &hosts {
        host.wait("the removal", LIMIT, |host| {
            host.json("/api/v1/projections") == json!([])
        });
    }
}
