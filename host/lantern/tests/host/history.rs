//! Tests deleted, restored and recreated databases and streams: the database holds the position, and a sequence alone
//! does not identify a message.

use super::*;
use crate::host::plugin_folder;

/// Starts a host, waits until it has stored `count` events, and stops it.
fn stopped_after(server: &NatsServer, plugins: &Path, dir: &Path, count: usize) {
    let host = Host::start(dir, &server.url(), plugins);
    running(&host, "obs");
    publish(server, &obs(1, count));
    wait_for_rows(&host, dir, "obs_events", count);
    host.terminate();
}

#[test]
fn a_database_deleted_while_the_host_was_stopped_is_restored_from_the_streams() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    stopped_after(&server, plugins.path(), dir.path(), 300);
    let before = dump(dir.path(), "obs_events");
    for file in ["lantern.db", "lantern.db-wal", "lantern.db-shm"] {
        drop(std::fs::remove_file(dir.path().join(file)));
    }
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    wait_for_rows(&host, dir.path(), "obs_events", 300);
    assert_eq!(dump(dir.path(), "obs_events"), before);
    host.terminate();
    sound(dir.path());
}

#[test]
fn a_database_deleted_under_a_running_host_is_restored_without_a_restart() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events", "audit-log"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &obs(1, 50));
    wait_for_rows(&host, dir.path(), "obs_events", 50);
    // Readers hold the old file open too.
    assert_eq!(
        host.json("/api/v1/tables/obs_events/rows")["items"]
            .as_array()
            .unwrap()
            .len(),
        50
    );
    for file in ["lantern.db", "lantern.db-wal", "lantern.db-shm"] {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    publish(&server, &obs(51, 10));
    host.wait("the new file", LIMIT, |_| dir.path().join("lantern.db").exists());
    host.wait("all rows", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == 60 && host.check("database").unwrap().0
    });
    wait_for_rows(&host, dir.path(), "obs_events", 60);
    assert_eq!(
        host.json("/api/v1/tables/obs_events/rows")["items"]
            .as_array()
            .unwrap()
            .len(),
        60
    );
    host.terminate();
    sound(dir.path());
}

#[test]
fn an_older_copy_of_the_database_catches_up_to_the_same_dump() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    stopped_after(&server, plugins.path(), dir.path(), 100);
    let copy = std::fs::read(dir.path().join("lantern.db")).unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    publish(&server, &obs(101, 100));
    wait_for_rows(&host, dir.path(), "obs_events", 200);
    host.terminate();
    let before = dump(dir.path(), "obs_events");
    for file in ["lantern.db-wal", "lantern.db-shm"] {
        drop(std::fs::remove_file(dir.path().join(file)));
    }
    std::fs::write(dir.path().join("lantern.db"), copy).unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    wait_for_rows(&host, dir.path(), "obs_events", 200);
    assert_eq!(dump(dir.path(), "obs_events"), before);
    host.terminate();
    sound(dir.path());
}

#[test]
fn a_recreated_stream_is_a_new_epoch_and_no_message_is_skipped() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &obs(1, 20));
    wait_for_rows(&host, dir.path(), "obs_events", 20);
    run(async {
        server
            .jetstream()
            .await
            .delete_stream("OBS_EVENTS")
            .await
            .unwrap()
    });
    host.wait("the stream is back", LIMIT, |_| {
        run(async { server.jetstream().await.get_stream("OBS_EVENTS").await.is_ok() })
    });
    publish(&server, &obs(21, 20));
    wait_for_rows(&host, dir.path(), "obs_events", 40);
    assert_eq!(host.projection("obs")["epoch"], 2);
    host.terminate();
    sound(dir.path());
}

#[test]
fn a_stream_restored_from_a_backup_yields_each_message_once() {
    let mut server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    // Without ids, so that no unique key hides a row that is stored twice.
    let events = |first: usize, count: usize| -> Vec<(String, String)> {
        let plain = obs(first, count).into_iter();
        plain
            .map(|(subject, text)| (subject, text.replace("event_record_id", "id")))
            .collect()
    };
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &events(1, 30));
    wait_for_rows(&host, dir.path(), "obs_events", 30);
    server.stop();
    let backup = tempfile::tempdir().unwrap();
    copy_folder(server.folder(), backup.path());
    server.restart();
    publish(&server, &events(31, 30));
    wait_for_rows(&host, dir.path(), "obs_events", 60);
    server.stop();
    for entry in std::fs::read_dir(server.folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    copy_folder(backup.path(), server.folder());
    server.restart();
    // Other messages reuse sequences 31 to 40.
    publish(&server, &events(61, 10));
    wait_for_rows(&host, dir.path(), "obs_events", 70);
    let counts = query(
        dir.path(),
        "SELECT count(*), count(DISTINCT json_extract(payload, '$.n')) FROM obs_events",
    );
    assert_eq!(counts, ["70|70"]);
    assert_eq!(host.projection("obs")["epoch"], 2);
    host.terminate();
    sound(dir.path());
}

/// Waits until the mirror `name` holds all messages of its stream, and returns its configuration.
async fn caught_up(server: &NatsServer, name: &str, last: u64) -> async_nats::jetstream::stream::Config {
    let context = server.jetstream().await;
    crate::nats::eventually("the mirror has caught up", LIMIT, async || {
        let mirror = context.get_stream(name).await.unwrap();
        mirror.cached_info().state.last_sequence == last
    })
    .await;
    let mirror = context.get_stream(name).await.unwrap();
    mirror.cached_info().config.clone()
}

fn mirror_of(name: &str, of: &str) -> async_nats::jetstream::stream::Config {
    async_nats::jetstream::stream::Config {
        name: name.into(),
        mirror: Some(async_nats::jetstream::stream::Source {
            name: of.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Converts a mirror into a stream that accepts messages.
async fn promote(server: &NatsServer, name: &str, subject: &str, last: u64) {
    let config = async_nats::jetstream::stream::Config {
        mirror: None,
        subjects: vec![subject.into()],
        ..caught_up(server, name, last).await
    };
    server.jetstream().await.update_stream(config).await.unwrap();
}

/// Returns events without a unique key, so that a message that is read twice creates two rows.
fn keyless(first: usize, count: usize) -> Vec<(String, String)> {
    let plain = obs(first, count).into_iter();
    plain
        .map(|(subject, text)| (subject, text.replace("event_record_id", "id")))
        .collect()
}

#[test]
fn a_lost_stream_recreated_from_its_mirror_continues() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    run(async {
        let context = server.jetstream().await;
        context
            .create_stream(mirror_of("COPY", "OBS_EVENTS"))
            .await
            .unwrap();
    });
    publish(&server, &keyless(1, 60));
    wait_for_rows(&host, dir.path(), "obs_events", 60);
    host.terminate();
    run(async {
        // The broker does not allow two streams to mirror each other.
        promote(&server, "COPY", "copy.>", 60).await;
        let context = server.jetstream().await;
        context.delete_stream("OBS_EVENTS").await.unwrap();
        context
            .create_stream(mirror_of("OBS_EVENTS", "COPY"))
            .await
            .unwrap();
        promote(&server, "OBS_EVENTS", "obs.>", 60).await;
    });
    publish(&server, &keyless(61, 10));
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    wait_for_rows(&host, dir.path(), "obs_events", 70);
    assert_eq!(host.projection("obs")["epoch"], 1);
    host.terminate();
    sound(dir.path());
}

#[test]
fn a_mirror_that_is_promoted_in_place_continues() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let context = server.jetstream().await;
        let source = async_nats::jetstream::stream::Config {
            name: "SOURCE".into(),
            subjects: vec!["obs.>".into()],
            ..Default::default()
        };
        context.create_stream(source).await.unwrap();
        context
            .create_stream(mirror_of("OBS_EVENTS", "SOURCE"))
            .await
            .unwrap();
    });
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    publish(&server, &keyless(1, 60));
    wait_for_rows(&host, dir.path(), "obs_events", 60);
    run(async {
        let context = server.jetstream().await;
        context.delete_stream("SOURCE").await.unwrap();
        promote(&server, "OBS_EVENTS", "obs.>", 60).await;
    });
    publish(&server, &keyless(61, 10));
    wait_for_rows(&host, dir.path(), "obs_events", 70);
    assert_eq!(host.projection("obs")["epoch"], 1);
    host.terminate();
    sound(dir.path());
}

fn lantern(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(arguments)
        .arg("--data-dir")
        .arg(dir)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Starts a host whose database cannot identify its stream: it lacks the message hashes, as after an upgrade or at the
/// end of a gap, and the creation time differs.
fn undecided(server: &NatsServer, plugins: &Path, dir: &Path) -> Host {
    let host = Host::start(dir, &server.url(), plugins);
    running(&host, "obs");
    publish(server, &keyless(1, 30));
    wait_for_rows(&host, dir, "obs_events", 30);
    host.terminate();
    let connection = rusqlite::Connection::open(dir.join("lantern.db")).unwrap();
    connection
        .execute_batch(
            "UPDATE _lantern_checkpoint SET anchors = NULL, payload_sha256 = NULL;
             UPDATE _lantern_origin SET stream_created_ns = 1;",
        )
        .unwrap();
    drop(connection);
    publish(server, &keyless(31, 10));
    let host = Host::start(dir, &server.url(), plugins);
    host.wait("the source asks", LIMIT, |host| {
        host.projection("obs")["state"] == "undecided"
    });
    let (ok, detail) = host.check("projection:obs-events/obs").unwrap();
    assert!(
        !ok && detail.contains("lantern source accept obs-events/obs"),
        "{detail}"
    );
    assert_eq!(query(dir, "SELECT count(*) FROM obs_events"), ["30"]);
    host
}

#[test]
fn an_unrecognised_stream_continues_when_an_operator_accepts_it_as_the_same() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = undecided(&server, plugins.path(), dir.path());
    // The host requests the decision again after a restart.
    host.terminate();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    host.wait("the source asks again", LIMIT, |host| {
        host.projection("obs")["state"] == "undecided"
    });
    let (code, text) = lantern(dir.path(), &["source", "accept", "obs-events", "--same"]);
    assert_eq!(code, 0, "{text}");
    wait_for_rows(&host, dir.path(), "obs_events", 40);
    assert_eq!(host.projection("obs")["epoch"], 1);
    // No decision is pending any more.
    let (code, text) = lantern(dir.path(), &["source", "accept", "obs-events/obs", "--new"]);
    assert!(
        code == 1 && text.contains("is not waiting for a decision"),
        "{code}: {text}"
    );
    let audit = query(
        dir.path(),
        "SELECT actor, plugin, outcome FROM _lantern_audit WHERE action = 'source.accept' AND outcome <> 'started' ORDER BY id",
    );
    assert_eq!(audit, ["local|obs-events|done", "local|obs-events|refused"]);
    host.terminate();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    assert_eq!(host.projection("obs")["epoch"], 1);
    host.terminate();
    sound(dir.path());
}

#[test]
fn an_unrecognised_stream_is_read_completely_when_an_operator_accepts_it_as_new() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = undecided(&server, plugins.path(), dir.path());
    let (code, text) = lantern(dir.path(), &["source", "accept", "obs-events/obs", "--new"]);
    assert_eq!(code, 0, "{text}");
    wait_for_rows(&host, dir.path(), "obs_events", 70);
    assert_eq!(host.projection("obs")["epoch"], 2);
    host.terminate();
    // The operator was wrong, but the old database cannot prove it.
    let (code, text) = lantern(dir.path(), &["check"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("30 messages have the same rows in both"), "{text}");
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn purged_and_expired_messages_are_recorded_as_gaps() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    stopped_after(&server, plugins.path(), dir.path(), 10);
    publish(&server, &obs(11, 20));
    run(async {
        let stream = server.jetstream().await.get_stream("OBS_EVENTS").await.unwrap();
        stream.purge().sequence(21).await.unwrap();
        stream.delete_message(25).await.unwrap();
    });
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    wait_for_rows(&host, dir.path(), "obs_events", 10 + 9);
    run(async {
        server
            .jetstream()
            .await
            .get_stream("OBS_EVENTS")
            .await
            .unwrap()
            .purge()
            .await
            .unwrap()
    });
    publish(&server, &obs(31, 1));
    wait_for_rows(&host, dir.path(), "obs_events", 10 + 9 + 1);
    let gaps = query(
        dir.path(),
        "SELECT first_sequence, last_sequence, exact FROM _lantern_gap ORDER BY 1",
    );
    assert_eq!(gaps, ["11|20|1", "25|25|1"]);
    assert_eq!(host.projection("obs")["missing"], 11);
    let told = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(["gaps", "--plugin", "obs-events", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    for words in [
        "OBS_EVENTS      11-20       10  gone",
        "OBS_EVENTS         25        1  gone",
    ] {
        assert!(told.contains(words), "{told}");
    }
    // A purge with nothing left to read: the host detects it without a new message.
    let checkpoint = host.projection("obs")["checkpoint"].as_u64().unwrap();
    host.terminate();
    publish(&server, &obs(32, 5));
    run(async {
        server
            .jetstream()
            .await
            .get_stream("OBS_EVENTS")
            .await
            .unwrap()
            .purge()
            .await
            .unwrap()
    });
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    host.wait("the gap at the end", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == checkpoint + 5
    });
    host.terminate();
    sound(dir.path());
}

/// Returns the broker's file with the messages of a stream.
fn block(folder: &Path) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            block(&path)
        } else {
            path.extension()
                .is_some_and(|extension| extension == "blk")
                .then_some(path)
        }
    })
}

#[test]
fn a_stream_truncated_by_a_damaged_disk_is_a_new_epoch_and_no_message_is_skipped() {
    let mut server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    stopped_after(&server, plugins.path(), dir.path(), 200);
    server.kill();
    let file = block(server.folder()).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let needle = b"\"event_record_id\":\"150\"";
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    bytes[at + 2] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    // The broker discards the corrupt message and all later ones, and reuses their sequences.
    server.restart();
    publish(&server, &obs(201, 10));
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    wait_for_rows(&host, dir.path(), "obs_events", 210);
    assert_eq!(host.projection("obs")["epoch"], 2);
    host.terminate();
    sound(dir.path());
}
