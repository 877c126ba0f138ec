//! Tests deleted, restored and recreated databases and streams: the database holds the position, and a sequence alone
//! does not identify a message.

use super::*;

/// Starts a host, waits until it has stored `count` events, and stops it.
fn stopped_after(site: &Site, count: usize) {
    let host = site.running("obs");
    site.publish(&obs(1, count));
    site.wait_for_rows(&host, "obs_events", count);
    host.terminate();
}

#[test]
fn a_database_deleted_while_the_host_was_stopped_is_restored_from_the_streams() {
    let site = Site::new(&["obs-events"]);
    stopped_after(&site, 300);
    let before = dump(site.dir(), "obs_events");
    for file in ["lantern.db", "lantern.db-wal", "lantern.db-shm"] {
        drop(std::fs::remove_file(site.dir().join(file)));
    }
    let host = site.start();
    site.wait_for_rows(&host, "obs_events", 300);
    assert_eq!(dump(site.dir(), "obs_events"), before);
    site.end(host);
}

#[test]
fn a_database_deleted_under_a_running_host_is_restored_without_a_restart() {
    let site = Site::new(&["obs-events", "audit-log"]);
    let host = site.running("obs");
    site.publish(&obs(1, 50));
    site.wait_for_rows(&host, "obs_events", 50);
    // Readers hold the old file open too.
    assert_eq!(
        host.json("/api/v1/tables/obs_events/rows")["items"]
            .as_array()
            .unwrap()
            .len(),
        50
    );
    for file in ["lantern.db", "lantern.db-wal", "lantern.db-shm"] {
        std::fs::remove_file(site.dir().join(file)).unwrap();
    }
    site.publish(&obs(51, 10));
    host.wait("the new file", LIMIT, |_| site.dir().join("lantern.db").exists());
    host.wait("all rows", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == 60 && host.check("database").unwrap().0
    });
    site.wait_for_rows(&host, "obs_events", 60);
    assert_eq!(
        host.json("/api/v1/tables/obs_events/rows")["items"]
            .as_array()
            .unwrap()
            .len(),
        60
    );
    site.end(host);
}

#[test]
fn an_older_copy_of_the_database_catches_up_to_the_same_dump() {
    let site = Site::new(&["obs-events"]);
    stopped_after(&site, 100);
    let copy = std::fs::read(site.dir().join("lantern.db")).unwrap();
    let host = site.start();
    site.publish(&obs(101, 100));
    site.wait_for_rows(&host, "obs_events", 200);
    host.terminate();
    let before = dump(site.dir(), "obs_events");
    for file in ["lantern.db-wal", "lantern.db-shm"] {
        drop(std::fs::remove_file(site.dir().join(file)));
    }
    std::fs::write(site.dir().join("lantern.db"), copy).unwrap();
    let host = site.start();
    site.wait_for_rows(&host, "obs_events", 200);
    assert_eq!(dump(site.dir(), "obs_events"), before);
    site.end(host);
}

#[test]
fn a_recreated_stream_is_a_new_epoch_and_no_message_is_skipped() {
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    site.publish(&obs(1, 20));
    site.wait_for_rows(&host, "obs_events", 20);
    run(async {
        site.server
            .jetstream()
            .await
            .delete_stream("OBS_EVENTS")
            .await
            .unwrap()
    });
    host.wait("the stream is back", LIMIT, |_| {
        run(async {
            site.server
                .jetstream()
                .await
                .get_stream("OBS_EVENTS")
                .await
                .is_ok()
        })
    });
    site.publish(&obs(21, 20));
    site.wait_for_rows(&host, "obs_events", 40);
    assert_eq!(host.projection("obs")["epoch"], 2);
    site.end(host);
}

#[test]
fn a_stream_restored_from_a_backup_yields_each_message_once() {
    let mut site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    site.publish(&keyless(1, 30));
    site.wait_for_rows(&host, "obs_events", 30);
    site.server.stop();
    let backup = tempfile::tempdir().unwrap();
    copy_folder(site.server.folder(), backup.path());
    site.server.restart();
    site.publish(&keyless(31, 30));
    site.wait_for_rows(&host, "obs_events", 60);
    site.server.stop();
    for entry in std::fs::read_dir(site.server.folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    copy_folder(backup.path(), site.server.folder());
    site.server.restart();
    // Other messages reuse sequences 31 to 40.
    site.publish(&keyless(61, 10));
    site.wait_for_rows(&host, "obs_events", 70);
    let counts = query(
        site.dir(),
        "SELECT count(*), count(DISTINCT json_extract(payload, '$.n')) FROM obs_events",
    );
    assert_eq!(counts, ["70|70"]);
    assert_eq!(host.projection("obs")["epoch"], 2);
    site.end(host);
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
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    run(async {
        let context = site.server.jetstream().await;
        context
            .create_stream(crate::nats::mirror("COPY", "OBS_EVENTS"))
            .await
            .unwrap();
    });
    site.publish(&keyless(1, 60));
    site.wait_for_rows(&host, "obs_events", 60);
    host.terminate();
    run(async {
        // The broker does not allow two streams to mirror each other.
        promote(&site.server, "COPY", "copy.>", 60).await;
        let context = site.server.jetstream().await;
        context.delete_stream("OBS_EVENTS").await.unwrap();
        context
            .create_stream(crate::nats::mirror("OBS_EVENTS", "COPY"))
            .await
            .unwrap();
        promote(&site.server, "OBS_EVENTS", "obs.>", 60).await;
    });
    site.publish(&keyless(61, 10));
    let host = site.start();
    site.wait_for_rows(&host, "obs_events", 70);
    assert_eq!(host.projection("obs")["epoch"], 1);
    site.end(host);
}

#[test]
fn a_mirror_that_is_promoted_in_place_continues() {
    let site = Site::new(&["obs-events"]);
    run(async {
        let context = site.server.jetstream().await;
        context
            .create_stream(crate::nats::stream("SOURCE", "obs.>"))
            .await
            .unwrap();
        context
            .create_stream(crate::nats::mirror("OBS_EVENTS", "SOURCE"))
            .await
            .unwrap();
    });
    let host = site.start();
    site.publish(&keyless(1, 60));
    site.wait_for_rows(&host, "obs_events", 60);
    run(async {
        let context = site.server.jetstream().await;
        context.delete_stream("SOURCE").await.unwrap();
        promote(&site.server, "OBS_EVENTS", "obs.>", 60).await;
    });
    site.publish(&keyless(61, 10));
    site.wait_for_rows(&host, "obs_events", 70);
    assert_eq!(host.projection("obs")["epoch"], 1);
    site.end(host);
}

/// Starts a host whose database cannot identify its stream: it lacks the message hashes, as after an upgrade or at the
/// end of a gap, and the creation time differs.
fn undecided(site: &Site) -> Host {
    let host = site.running("obs");
    site.publish(&keyless(1, 30));
    site.wait_for_rows(&host, "obs_events", 30);
    host.terminate();
    let connection = rusqlite::Connection::open(site.dir().join("lantern.db")).unwrap();
    connection
        .execute_batch(
            "UPDATE _lantern_checkpoint SET anchors = NULL, payload_sha256 = NULL;
             UPDATE _lantern_origin SET stream_created_ns = 1;",
        )
        .unwrap();
    drop(connection);
    site.publish(&keyless(31, 10));
    let host = site.start();
    host.wait("the source asks", LIMIT, |host| {
        host.projection("obs")["state"] == "undecided"
    });
    let (ok, detail) = host.check("projection:obs-events/obs").unwrap();
    assert!(
        !ok && detail.contains("lantern source accept obs-events/obs"),
        "{detail}"
    );
    assert_eq!(query(site.dir(), "SELECT count(*) FROM obs_events"), ["30"]);
    host
}

#[test]
fn an_unrecognised_stream_continues_when_an_operator_accepts_it_as_the_same() {
    let site = Site::new(&["obs-events"]);
    let host = undecided(&site);
    // The host requests the decision again after a restart.
    host.terminate();
    let host = site.start();
    host.wait("the source asks again", LIMIT, |host| {
        host.projection("obs")["state"] == "undecided"
    });
    let (code, text) = lantern(site.dir(), &["source", "accept", "obs-events", "--same"]);
    assert_eq!(code, 0, "{text}");
    site.wait_for_rows(&host, "obs_events", 40);
    assert_eq!(host.projection("obs")["epoch"], 1);
    // No decision is pending any more.
    let (code, text) = lantern(site.dir(), &["source", "accept", "obs-events/obs", "--new"]);
    assert!(
        code == 1 && text.contains("is not waiting for a decision"),
        "{code}: {text}"
    );
    let audit = query(
        site.dir(),
        "SELECT actor, plugin, outcome FROM _lantern_audit WHERE action = 'source.accept' AND outcome <> 'started' ORDER BY id",
    );
    assert_eq!(audit, ["local|obs-events|done", "local|obs-events|refused"]);
    host.terminate();
    let host = site.running("obs");
    assert_eq!(host.projection("obs")["epoch"], 1);
    site.end(host);
}

#[test]
fn an_unrecognised_stream_is_read_completely_when_an_operator_accepts_it_as_new() {
    let site = Site::new(&["obs-events"]);
    let host = undecided(&site);
    let (code, text) = lantern(site.dir(), &["source", "accept", "obs-events/obs", "--new"]);
    assert_eq!(code, 0, "{text}");
    site.wait_for_rows(&host, "obs_events", 70);
    assert_eq!(host.projection("obs")["epoch"], 2);
    host.terminate();
    // The operator was wrong, but the old database cannot prove it.
    let (code, text) = lantern(site.dir(), &["check"]);
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
    let site = Site::new(&["obs-events"]);
    stopped_after(&site, 10);
    site.publish(&obs(11, 20));
    run(async {
        let stream = site
            .server
            .jetstream()
            .await
            .get_stream("OBS_EVENTS")
            .await
            .unwrap();
        stream.purge().sequence(21).await.unwrap();
        stream.delete_message(25).await.unwrap();
    });
    let host = site.start();
    site.wait_for_rows(&host, "obs_events", 10 + 9);
    run(async {
        site.server
            .jetstream()
            .await
            .get_stream("OBS_EVENTS")
            .await
            .unwrap()
            .purge()
            .await
            .unwrap()
    });
    site.publish(&obs(31, 1));
    site.wait_for_rows(&host, "obs_events", 10 + 9 + 1);
    let gaps = query(
        site.dir(),
        "SELECT first_sequence, last_sequence, exact FROM _lantern_gap ORDER BY 1",
    );
    assert_eq!(gaps, ["11|20|1", "25|25|1"]);
    assert_eq!(host.projection("obs")["missing"], 11);
    let listed = succeeds(site.dir(), &["gaps", "--plugin", "obs-events"]);
    for words in [
        "OBS_EVENTS      11-20       10  gone",
        "OBS_EVENTS         25        1  gone",
    ] {
        assert!(listed.contains(words), "{listed}");
    }
    // A purge with nothing left to read: the host detects it without a new message.
    let checkpoint = host.projection("obs")["checkpoint"].as_u64().unwrap();
    host.terminate();
    site.publish(&obs(32, 5));
    run(async {
        site.server
            .jetstream()
            .await
            .get_stream("OBS_EVENTS")
            .await
            .unwrap()
            .purge()
            .await
            .unwrap()
    });
    let host = site.start();
    host.wait("the gap at the end", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == checkpoint + 5
    });
    site.end(host);
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
    let mut site = Site::new(&["obs-events"]);
    stopped_after(&site, 200);
    site.server.kill();
    let file = block(site.server.folder()).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let needle = b"\"event_record_id\":\"150\"";
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    bytes[at + 2] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    // The broker discards the corrupt message and all later ones, and reuses their sequences.
    site.server.restart();
    site.publish(&obs(201, 10));
    let host = site.start();
    site.wait_for_rows(&host, "obs_events", 210);
    assert_eq!(host.projection("obs")["epoch"], 2);
    site.end(host);
}
