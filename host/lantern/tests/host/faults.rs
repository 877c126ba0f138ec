//! Tests kills, broker outages and a full disk: the host loses and duplicates nothing, and reports the cause.

use std::process::Command;
use std::time::Instant;

use super::*;
use crate::torture::{Outcome, kill_broker, kill_host, kill_rebuilding};

#[track_caller]
fn nothing_lost(outcome: &Outcome) {
    println!("{outcome:?}");
    assert!(outcome.published > 0);
    assert_eq!((outcome.lost, outcome.duplicated), (0, 0), "{outcome:?}");
    assert_eq!(outcome.problems, "");
}

#[test]
fn repeated_kills_of_the_host_neither_lose_nor_duplicate_rows() {
    nothing_lost(&kill_host(12));
}

#[test]
fn kills_during_a_rebuild_neither_lose_nor_duplicate_rows() {
    let (outcome, done) = kill_rebuilding(8);
    nothing_lost(&outcome);
    assert!(done > 0, "no rebuild has ended");
}

#[test]
fn repeated_kills_of_the_broker_neither_lose_nor_duplicate_rows() {
    nothing_lost(&kill_broker(5));
}

#[test]
fn a_host_waits_for_a_broker_that_is_not_running_yet() {
    let mut server = NatsServer::prepared("");
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    assert_eq!(host.get("/readyz").unwrap().0, 503);
    assert!(!host.check("broker").unwrap().0);
    assert_eq!(host.get("/livez").unwrap().0, 200);
    server.restart();
    host.wait("ready", LIMIT, |host| {
        host.get("/readyz").is_ok_and(|(status, _)| status == 200)
    });
    publish(&server, &obs(1, 5));
    wait_for_rows(&host, dir.path(), "obs_events", 5);
    server.kill();
    host.wait("named", LIMIT, |host| !host.check("broker").unwrap().0);
    server.restart();
    publish(&server, &obs(6, 5));
    wait_for_rows(&host, dir.path(), "obs_events", 10);
    host.terminate();
    sound(dir.path());
}

#[test]
fn a_deleted_consumer_is_created_again_at_the_checkpoint() {
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    site.publish(&obs(1, 10));
    site.wait_for_rows(&host, "obs_events", 10);
    for round in 1..=3 {
        run(async {
            let stream = site
                .server
                .jetstream()
                .await
                .get_stream("OBS_EVENTS")
                .await
                .unwrap();
            stream.delete_consumer("lantern-obs-events-obs").await.unwrap();
        });
        site.publish(&obs(10 * round + 1, 10));
        site.wait_for_rows(&host, "obs_events", 10 * round + 10);
    }
    site.end(host);
}

#[test]
fn two_hosts_do_not_share_a_consumer() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Host::start(one.path(), &server.url(), plugins.path());
    running(&first, "obs");
    let second = Host::start(two.path(), &server.url(), plugins.path());
    second.wait("refused", LIMIT, |host| {
        host.projection("obs")["state"] == "failed"
    });
    let reason = second.projection("obs")["last_error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(reason.contains("in use by another host"), "{reason}");
    publish(&server, &obs(1, 100));
    wait_for_rows(&first, one.path(), "obs_events", 100);
    assert_eq!(second.projection("obs")["rows"], 0);

    // The first host stops. The second does not take over, so that a restart of the first causes no outage.
    first.terminate();
    second.wait("the consumer belongs to the first host", LIMIT, |host| {
        let obs = host.projection("obs");
        obs["state"] == "failed"
            && obs["last_error"]
                .as_str()
                .unwrap()
                .contains("belongs to another host")
    });
    let first = Host::start(one.path(), &server.url(), plugins.path());
    publish(&server, &obs(101, 100));
    wait_for_rows(&first, one.path(), "obs_events", 200);
    second.terminate();

    // With separate consumers it reads in parallel to the first host.
    let mut command = Host::command(two.path(), &server.url(), plugins.path());
    command.env("LANTERN__BROKER__CONSUMER_PREFIX", "staging");
    let second = Host::spawn(command);
    wait_for_rows(&second, two.path(), "obs_events", 200);
    second.terminate();

    // The operator decides that the first host will not return.
    let second = Host::start(two.path(), &server.url(), plugins.path());
    assert!(take_over(two.path()).contains("in use by another host"));
    first.terminate();
    second.wait("the consumer is idle", LIMIT, |host| {
        host.projection("obs")["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("belongs to another host"))
    });
    let said = take_over(two.path());
    assert!(
        said.contains("consumer lantern-obs-events-obs of stream OBS_EVENTS: taken over from host"),
        "{said}"
    );
    publish(&server, &obs(201, 100));
    wait_for_rows(&second, two.path(), "obs_events", 300);
    let first = Host::start(one.path(), &server.url(), plugins.path());
    first.wait("refused", LIMIT, |host| {
        host.projection("obs")["state"] == "failed"
    });
    second.terminate();
    sound(two.path());
}

/// Runs `lantern plugin take-over` and returns its output.
fn take_over(data: &Path) -> String {
    lantern(data, &["plugin", "take-over", "obs-events"]).1
}

/// `cargo xtask test` runs it where it may mount, and reports it as skipped elsewhere.
#[test]
#[ignore = "mounts a small disk, which needs root"]
fn a_full_disk_stops_acknowledgements_until_space_is_available() {
    let disk = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(disk.path())
        .status();
    assert!(
        mounted.is_ok_and(|status| status.success()),
        "cannot mount a small disk"
    );
    let _unmount = Unmount(disk.path().to_owned());
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = disk.path().join("data");
    let mut command = Host::command(&dir, &server.url(), plugins.path());
    command.env("LANTERN__STORE__RESERVE_SIZE", "0");
    let host = Host::spawn(command);
    running(&host, "obs");
    let filler = disk.path().join("filler");
    publish(&server, &obs(1, 100));
    wait_for_rows(&host, &dir, "obs_events", 100);
    // Fill the remaining space to the last byte.
    drop(std::fs::write(&filler, vec![0_u8; 16 << 20]));
    publish(&server, &obs(101, 3_000));
    // The last bytes may suffice for one small batch, so that the host is briefly healthy.
    host.wait("readiness fails", LIMIT, |host| {
        let (status, body) = host.get("/readyz").unwrap();
        status == 503 && body.contains("full")
    });
    std::fs::remove_file(&filler).unwrap();
    wait_for_rows(&host, &dir, "obs_events", 3_100);
    host.wait("ready again", LIMIT, |host| host.get("/readyz").unwrap().0 == 200);
    host.terminate();
    sound(&dir);
}

#[test]
fn sigterm_is_obeyed_in_time_while_another_process_locks_the_database() {
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    let other = rusqlite::Connection::open(site.dir().join("lantern.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    site.publish(&obs(1, 10));
    host.wait("readiness fails", LIMIT, |host| {
        !host.check("database").unwrap().0
    });
    let status = host.terminate();
    assert!(status.success(), "{status}");
    // The host did not wait for this.
    other.execute_batch("ROLLBACK").unwrap();
    let host = site.start();
    site.wait_for_rows(&host, "obs_events", 10);
    site.end(host);
}

#[test]
fn a_source_that_cannot_store_messages_is_reported_as_stalled() {
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    let is_stalled = |host: &Host, value: u8| {
        let line = format!(r#"lantern_source_stalled{{plugin="obs-events",source="obs"}} {value}"#);
        host.get("/metrics").unwrap().1.contains(&line)
    };
    assert!(is_stalled(&host, 0));
    let other = rusqlite::Connection::open(site.dir().join("lantern.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    site.publish(&obs(1, 10));
    host.wait("the source is stalled", LIMIT, |host| is_stalled(host, 1));
    other.execute_batch("ROLLBACK").unwrap();
    site.wait_for_rows(&host, "obs_events", 10);
    host.wait("the source is not stalled", LIMIT, |host| is_stalled(host, 0));
    site.end(host);
}

/// Deletes the database, and puts another file in its place if there is one.
fn replace_database(dir: &Path, other: Option<&Path>) {
    for file in ["lantern.db", "lantern.db-wal", "lantern.db-shm"] {
        // The files of the write-ahead log may be missing.
        drop(std::fs::remove_file(dir.join(file)));
    }
    if let Some(other) = other {
        std::fs::rename(other, dir.join("lantern.db")).unwrap();
    }
}

/// A host that receives no message has no reason to write.
fn an_idle_host_notices_another_database(other: bool) {
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    site.publish(&obs(1, 5));
    site.wait_for_rows(&host, "obs_events", 5);
    let copy = site.dir().join("copy.db");
    let connection = rusqlite::Connection::open(site.dir().join("lantern.db")).unwrap();
    connection
        .execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    drop(connection);
    site.publish(&obs(6, 5));
    site.wait_for_rows(&host, "obs_events", 10);
    replace_database(site.dir(), other.then_some(&copy));
    let (writable, detail) = host.check("database").unwrap();
    assert!(!writable, "{detail}");
    assert!(
        detail.contains(if other { "was replaced" } else { "is gone" }),
        "{detail}"
    );
    host.wait("the host opens the present database", LIMIT, |host| {
        host.check("database").unwrap().0
    });
    host.wait("the table is there", LIMIT, |_| {
        query(
            site.dir(),
            "SELECT count(*) FROM sqlite_schema WHERE name = 'obs_events'",
        ) == ["1"]
    });
    site.wait_for_rows(&host, "obs_events", 10);
    host.wait("ready", LIMIT, |host| host.get("/readyz").unwrap().0 == 200);
    site.end(host);
}

#[test]
fn an_idle_host_notices_that_its_database_was_deleted() {
    an_idle_host_notices_another_database(false);
}

#[test]
fn an_idle_host_notices_that_its_database_was_replaced() {
    an_idle_host_notices_another_database(true);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Lets a host wait for each of its parts when it stops, so that it ends in a test only if all of them end.
pub fn patient(mut command: Command) -> Command {
    command.env("LANTERN__SHUTDOWN_TIME", "10m");
    command
}

#[test]
fn sigterm_under_load_stops_the_host_in_time() {
    let site = Site::new(&["obs-events"]);
    let host = Host::spawn(patient(site.command()));
    running(&host, "obs");
    let publisher = crate::torture::Publisher::start(site.server.url());
    let began = Instant::now();
    while publisher.published() < 500 {
        assert!(began.elapsed() < LIMIT, "nothing is published");
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = host.terminate();
    assert!(status.success(), "{status}");
    publisher.stop();
    sound(site.dir());
}
