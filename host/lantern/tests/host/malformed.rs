//! Tests messages that the client library cannot receive, and empty messages.

use std::io::Write as _;
use std::time::Instant;

use super::*;

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
fn a_message_that_makes_the_client_library_panic_is_stored_with_its_neighbours() {
    let site = Site::new(&["obs-events", "audit-log"]);
    let host = site.running("obs");
    running(&host, "audit");
    site.publish(&obs(1, 5));
    publish_raw(&site.server, "obs.pc-1", PANICS, &obs(6, 1)[0].1);
    publish_raw(&site.server, "obs.pc-1", PANICS, "no event");
    site.publish(&obs(7, 5));
    site.publish(&[audit(1), audit(2)]);
    site.wait_for_rows(&host, "obs_events", 11);
    site.wait_for_rows(&host, "audit_log", 2);
    host.wait("the dead letter", LIMIT, |host| {
        host.projection("obs")["dead_letters"] == 1
    });
    host.wait("ready", LIMIT, |host| host.get("/readyz").unwrap().0 == 200);
    // This also holds when it is the first message that a host reads.
    publish_raw(&site.server, "obs.pc-1", PANICS, &obs(12, 1)[0].1);
    site.wait_for_rows(&host, "obs_events", 12);
    host.terminate();
    publish_raw(&site.server, "obs.pc-1", PANICS, &obs(13, 1)[0].1);
    let host = site.start();
    site.wait_for_rows(&host, "obs_events", 13);
    site.end(host);
}

/// Publishes 20 bad messages per second to one plugin's stream, and one at a time to another plugin's.
#[test]
fn a_publisher_of_bad_headers_does_not_delay_other_plugins() {
    let site = Site::new(&["obs-events", "audit-log"]);
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = site.command();
    command
        .env("LANTERN__LOG__FILTER", "info")
        .stderr(log.reopen().unwrap());
    let host = Host::spawn(command);
    running(&host, "obs");
    running(&host, "audit");
    let bad = std::env::var("LANTERN_BAD_MESSAGES").map_or(60, |count| count.parse().unwrap());
    let connection = rusqlite::Connection::open(site.dir().join("lantern.db")).unwrap();
    let rows = || {
        let count = connection.query_row("SELECT count(*) FROM audit_log", [], |row| row.get::<_, i64>(0));
        count.map_or(0, |count| usize::try_from(count).unwrap())
    };
    let mut stored = 0;
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut next = Instant::now();
            for number in 0..bad {
                let headers = if number % 2 == 0 { PANICS } else { NOT_UTF8 };
                publish_raw(&site.server, "obs.pc-1", headers, &obs(number + 1, 1)[0].1);
                next += Duration::from_millis(50);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        while !publishing.is_finished() {
            site.publish(&[audit(stored)]);
            let began = Instant::now();
            while rows() <= stored {
                assert!(began.elapsed() < LIMIT, "no row");
                std::thread::sleep(Duration::from_millis(1));
            }
            stored += 1;
        }
    });
    site.wait_for_rows(&host, "obs_events", bad);
    assert!(stored > 0);
    // Only the source of the bad messages loses its connection and starts a session at its checkpoint.
    let log = std::fs::read_to_string(log.path()).unwrap();
    let sessions = |plugin: &str| {
        let lines = log.lines().filter(|line| line.contains(plugin));
        lines
            .filter(|line| {
                line.contains("interrupted; will retry") || line.contains("reading again from the checkpoint")
            })
            .count()
    };
    assert!(sessions("obs-events") > 0, "{log}");
    assert_eq!(sessions("audit-log"), 0, "{log}");
    site.end(host);
}

#[test]
fn delete_markers_are_skipped() {
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    site.publish(&obs(1, 1));
    publish_raw(
        &site.server,
        "obs.pc-1",
        b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n",
        "",
    );
    publish_raw(
        &site.server,
        "obs.pc-1",
        b"NATS/1.0\r\nKV-Operation: PURGE\r\n\r\n",
        "",
    );
    publish_raw(
        &site.server,
        "obs.pc-1",
        b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\n\r\n",
        "",
    );
    publish_raw(
        &site.server,
        "obs.pc-1",
        b"NATS/1.0\r\nKV-Operation: PUT\r\n\r\n",
        "",
    );
    site.publish(&obs(2, 1));
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
    assert_eq!(query(site.dir(), sums), ["6|2|3|1"]);
    sound(site.dir());
}

#[test]
fn a_sample_omits_delete_markers_and_passes_invalid_headers() {
    let server = NatsServer::start();
    run(async {
        server
            .create_stream(crate::nats::stream("OBS_EVENTS", "obs.>"))
            .await;
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

/// Publishes on a core subject, where nobody acknowledges a message.
fn publish_core(server: &NatsServer, subject: &'static str, payload: &str) {
    run(async {
        let client = server.client().await;
        client.publish(subject, payload.to_owned().into()).await.unwrap();
        client.flush().await.unwrap();
    });
}

/// Core NATS sends no message again, so the host can only count and report the loss.
#[test]
fn a_core_source_reports_messages_that_break_its_connection() {
    let site = Site::new(&["heartbeats"]);
    let host = site.running("heartbeats");
    let beat =
        |pc: &str| json!({"pc_id": pc, "at": "2026-05-01T00:00:01Z", "agent_version": "1"}).to_string();
    let rows = |host: &Host| host.projection("heartbeats")["inserted"].as_u64().unwrap();
    for (number, headers) in [PANICS, NOT_UTF8].into_iter().enumerate() {
        let name = format!("pc-{number}");
        // The host may still be subscribing; the row of one name is inserted once.
        host.wait("a message is stored", LIMIT, |host| {
            publish_core(&site.server, "heartbeat.pc-1", &beat(&name));
            rows(host) > number as u64
        });
        publish_raw(&site.server, "heartbeat.pc-1", headers, &beat("lost"));
        host.wait("the loss is recorded", LIMIT, |host| {
            host.projection("heartbeats")["missing"] == number as u64 + 1
        });
    }
    host.wait("the source reads again", LIMIT, |host| {
        publish_core(&site.server, "heartbeat.pc-1", &beat("pc-last"));
        rows(host) == 3
    });
    let metric = r#"lantern_source_interruptions_total{plugin="heartbeats",source="heartbeats"} 2"#;
    let (_, metrics) = host.get("/metrics").unwrap();
    assert!(metrics.contains(metric), "{metrics}");
    host.terminate();
    let gaps = query(
        site.dir(),
        "SELECT sum(last_sequence - first_sequence + 1), max(exact) FROM _lantern_gap WHERE reason LIKE 'interrupted: %'",
    );
    assert_eq!(gaps, ["2|0"]);
    sound(site.dir());
}
