//! Tests messages that the client library cannot receive, and empty messages.

use std::io::Write as _;
use std::time::Instant;

use super::*;
use crate::host::plugin_folder;

/// Publishes with header bytes that no client library sends. Returns when the broker has read them.
fn publish_raw(server: &NatsServer, subject: &str, headers: &[u8], payload: &str) {
    let mut raw = server.raw();
    let total = headers.len() + payload.len();
    write!(raw, "HPUB {subject} {} {total}\r\n", headers.len()).unwrap();
    raw.write_all(headers).unwrap();
    write!(raw, "{payload}\r\nPING\r\n").unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while !seen.ends_with(b"PONG\r\n") {
        let count = std::io::Read::read(&mut raw, &mut buffer).unwrap();
        assert!(count > 0, "the broker closed the connection");
        seen.extend(&buffer[..count]);
    }
}

/// A lone CR in a header value: the client library panics.
const PANICS: &[u8] = b"NATS/1.0\r\nX: a\rb\r\n\r\n";
/// A header that is not UTF-8: the client library drops the connection.
const NOT_UTF8: &[u8] = b"NATS/1.0\r\nX: \xff\r\n\r\n";

fn audit(number: usize) -> (String, String) {
    let event = json!({
        "actor": "tester", "action": "exec", "target": format!("job-{number}"), "payload": {},
        "occurred_at": "2026-05-20T12:00:00Z",
    });
    ("audit.x".to_owned(), event.to_string())
}

#[test]
fn a_message_that_makes_the_client_library_panic_is_stored_and_its_neighbours_too() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events", "audit-log"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    running(&host, "audit");
    publish(&server, &obs(1, 5));
    publish_raw(&server, "obs.pc-1", PANICS, &obs(6, 1)[0].1);
    publish_raw(&server, "obs.pc-1", PANICS, "no event");
    publish(&server, &obs(7, 5));
    publish(&server, &[audit(1), audit(2)]);
    wait_for_rows(&host, dir.path(), "obs_events", 11);
    wait_for_rows(&host, dir.path(), "audit_log", 2);
    host.wait("the dead letter", LIMIT, |host| {
        host.projection("obs")["dead_letters"] == 1
    });
    host.wait("ready", LIMIT, |host| host.get("/readyz").unwrap().0 == 200);
    // This also holds when it is the first message that a host reads.
    publish_raw(&server, "obs.pc-1", PANICS, &obs(12, 1)[0].1);
    wait_for_rows(&host, dir.path(), "obs_events", 12);
    host.terminate();
    publish_raw(&server, "obs.pc-1", PANICS, &obs(13, 1)[0].1);
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    wait_for_rows(&host, dir.path(), "obs_events", 13);
    host.terminate();
    sound(dir.path());
}

/// Publishes 20 bad messages per second to one plugin's stream, and measures the latency of another plugin.
#[test]
fn a_publisher_of_bad_headers_does_not_delay_other_plugins() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events", "audit-log"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    running(&host, "audit");
    let bad = std::env::var("LANTERN_BAD_MESSAGES").map_or(60, |count| count.parse().unwrap());
    let connection = rusqlite::Connection::open(dir.path().join("lantern.db")).unwrap();
    let rows = || {
        let count = connection.query_row("SELECT count(*) FROM audit_log", [], |row| row.get::<_, i64>(0));
        count.map_or(0, |count| usize::try_from(count).unwrap())
    };
    let mut waits = Vec::new();
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut next = Instant::now();
            for number in 0..bad {
                let headers = if number % 2 == 0 { PANICS } else { NOT_UTF8 };
                publish_raw(&server, "obs.pc-1", headers, &obs(number + 1, 1)[0].1);
                next += Duration::from_millis(50);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        while !publishing.is_finished() {
            publish(&server, &[audit(waits.len())]);
            let began = Instant::now();
            while rows() <= waits.len() {
                assert!(began.elapsed() < LIMIT, "no row");
                std::thread::sleep(Duration::from_millis(1));
            }
            waits.push(began.elapsed());
        }
    });
    wait_for_rows(&host, dir.path(), "obs_events", bad);
    waits.sort();
    let worst = waits[waits.len() - 1];
    println!(
        "{} rows: median {:?}, worst {worst:?}",
        waits.len(),
        waits[waits.len() / 2]
    );
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    host.terminate();
    sound(dir.path());
}

#[test]
fn delete_markers_are_skipped() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &obs(1, 1));
    publish_raw(&server, "obs.pc-1", b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n", "");
    publish_raw(
        &server,
        "obs.pc-1",
        b"NATS/1.0\r\nKV-Operation: PURGE\r\n\r\n",
        "",
    );
    publish_raw(
        &server,
        "obs.pc-1",
        b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\n\r\n",
        "",
    );
    publish_raw(&server, "obs.pc-1", b"NATS/1.0\r\nKV-Operation: PUT\r\n\r\n", "");
    publish(&server, &obs(2, 1));
    host.wait("all handled", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == 6
    });
    assert_eq!(
        host.projection("obs")["dead_letters"],
        1,
        "an empty message is none"
    );
    host.terminate();
    let sums = "SELECT sum(messages), sum(projected), sum(skipped), sum(dead) FROM _lantern_ledger";
    assert_eq!(query(dir.path(), sums), ["6|2|3|1"]);
    sound(dir.path());
}

#[test]
fn a_sample_of_a_stream_leaves_out_delete_markers_and_gets_past_bad_headers() {
    let server = NatsServer::start();
    run(async {
        let stream = async_nats::jetstream::stream::Config {
            name: "OBS_EVENTS".into(),
            subjects: vec!["obs.>".into()],
            ..Default::default()
        };
        server.jetstream().await.create_stream(stream).await.unwrap();
    });
    publish(&server, &obs(1, 2));
    publish_raw(&server, "obs.pc-1", b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n", "");
    publish_raw(&server, "obs.pc-1", PANICS, &obs(3, 1)[0].1);
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args([
            "plugin",
            "new",
            "seen",
            "--from-stream",
            "OBS_EVENTS",
            "--nats",
            &server.url(),
        ])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(
        stdout.contains("3 messages") && stdout.contains("pc_id"),
        "{stdout}"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
}
