//! Databases and streams that are deleted, restored and made anew: the database knows the position, and a sequence
//! is not an identity.

use super::*;
use crate::host::plugin_folder;

/// A host that has stored `count` events and was stopped.
fn stopped_after(server: &NatsServer, plugins: &Path, dir: &Path, count: usize) {
    let host = Host::start(dir, &server.url(), plugins);
    running(&host, "obs");
    publish(server, &obs(1, count));
    wait_for_rows(&host, dir, "obs_events", count);
    host.terminate();
}

#[test]
fn a_database_deleted_while_the_host_was_down_is_rebuilt_to_the_same_dump() {
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
fn a_database_deleted_under_the_running_host_is_rebuilt_without_a_restart() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events", "audit-log"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &obs(1, 50));
    wait_for_rows(&host, dir.path(), "obs_events", 50);
    // Readers hold the old file too.
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
fn a_stream_made_anew_is_a_new_epoch_and_nothing_new_is_skipped() {
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
fn a_stream_restored_from_a_backup_gives_each_message_once() {
    let mut server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    // Without ids, so that a row stored twice is not hidden by a unique key.
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
    // Sequences 31 to 40 are used a second time, by other messages.
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
fn purged_and_trimmed_messages_are_recorded_gaps() {
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
        "OBS_EVENTS      11-20        10  ",
        "OBS_EVENTS         25         1  ",
    ] {
        assert!(told.contains(words), "{told}");
    }
    // Purged while nothing is left to read: noticed without a message.
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

/// The file of a stream's messages in the broker's directory.
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
fn a_stream_that_a_spoilt_disk_has_cut_short_is_a_new_epoch_and_nothing_new_is_skipped() {
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
    // The broker throws away the spoilt message and those behind it, and gives their sequences to others.
    server.restart();
    publish(&server, &obs(201, 10));
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    wait_for_rows(&host, dir.path(), "obs_events", 210);
    assert_eq!(host.projection("obs")["epoch"], 2);
    host.terminate();
    sound(dir.path());
}
