//! Tests values and counters through the real program: duplicates, documents that no JSON library preserves, and
//! invalid times.

use super::*;

/// A document that a JSON library would change.
const DOCUMENT: &str = r#"{"n":12345678901234567890123,"a":1,"a":2,"z":-0,"e":1e400,"s":"\ud800"}"#;

fn event(number: usize, at: &str, payload: &str) -> (String, String) {
    let event = format!(
        r#"{{"pc_id":"pc-1","at":"{at}","kind":"logon","source":"winlog:Security","event_record_id":"{number}","payload":{payload}}}"#
    );
    ("obs.pc-1".to_owned(), event)
}

#[test]
fn duplicates_are_counted_documents_are_kept_and_times_out_of_range_are_dead_letters() {
    let server = NatsServer::start();
    let dir = tempfile::tempdir().unwrap();
    let plugins = host::plugin_folder(&["obs-events"]);
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    let now = "2026-05-28T10:41:00Z";
    let mut messages = vec![event(1, now, "{}"); 10];
    messages.push(event(2, now, DOCUMENT));
    messages.push(event(3, "9999-12-31T23:59:59-23:59", "{}"));
    messages.push(event(4, "0001-01-01T00:00:00Z", "{}"));
    publish(&server, &messages);
    host.wait("all handled", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == messages.len()
    });
    let projection = host.projection("obs");
    for (field, expected) in [
        ("rows", 12),
        ("inserted", 3),
        ("updated", 0),
        ("present", 9),
        ("dead_letters", 1),
    ] {
        assert_eq!(projection[field], expected, "{field}: {projection}");
    }
    assert_eq!(query(dir.path(), "SELECT count(*) FROM obs_events"), ["3"]);
    let ledger = host.json("/api/v1/ledger");
    assert_eq!(
        (&ledger["items"][0]["inserted"], &ledger["items"][0]["present"]),
        (&json!(3), &json!(9))
    );
    let (_, metrics) = host.get("/metrics").unwrap();
    for line in [
        r#"lantern_rows_total{plugin="obs-events",table="obs_events",effect="inserted"} 3"#,
        r#"lantern_rows_total{plugin="obs-events",table="obs_events",effect="present"} 9"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    let reasons = query(dir.path(), "SELECT class, reason FROM _lantern_dead_letter");
    assert!(
        reasons[0].starts_with("output|") && reasons[0].contains("outside the years 0000 to 9999"),
        "{reasons:?}"
    );

    let (status, trace) = host
        .get("/api/v1/trace?table=obs_events&key=%5B%221:11:0%22%5D")
        .unwrap();
    assert_eq!(status, 200, "{trace}");
    assert!(trace.contains(DOCUMENT), "{trace}");

    // While the host runs.
    let text = succeeds(dir.path(), &["check", "--deep", "--nats", &server.url()]);
    for words in [
        "Projected again: 13 of 13 messages, 3 rows identical",
        "OK: no problems found",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    drop(host);
    sound(dir.path());
}

/// The open dead letters, with class and reason.
fn dead_letters(dir: &Path) -> Vec<String> {
    query(
        dir,
        "SELECT sequence, class, reason FROM _lantern_dead_letter WHERE state = 'open' ORDER BY sequence",
    )
}

#[test]
fn values_that_one_database_cannot_hold_become_dead_letters_on_every_write_path() {
    let server = NatsServer::start();
    let dir = tempfile::tempdir().unwrap();
    let plugins = host::plugin_folder(&["obs-events"]);
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    let now = "2026-05-28T10:41:00Z";
    // The key is (pc_id, source, event_record_id); pc_id and source have 19 bytes.
    let with_id_of = |bytes: usize| {
        let (subject, text) = event(1, now, "{}");
        let id = "7".repeat(bytes);
        (
            subject,
            text.replace(
                r#""event_record_id":"1""#,
                &format!(r#""event_record_id":"{id}""#),
            ),
        )
    };
    let with_kind = |kind: &str| {
        let (subject, text) = event(2, now, r#"{"escaped":"\u0000"}"#);
        (subject, text.replace("logon", kind))
    };
    publish(
        &server,
        &[
            with_id_of(2_565),
            with_id_of(2_566),
            with_kind(r"a\u0000b"),
            with_kind("c"),
        ],
    );
    host.wait("all handled", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == 4
    });
    let expected = [
        "2|output|table obs_events, columns pc_id, source, event_record_id: 2585 bytes in a key or index, and the limit is \
         2584",
        "3|output|table obs_events, column kind: a NUL character at byte 1",
    ];
    assert_eq!(dead_letters(dir.path()), expected);
    assert_eq!(dump(dir.path(), "obs_events").len(), 2);
    for command in [
        &["dead-letters", "retry", "--all"][..],
        &["rebuild", "obs-events"],
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(command)
            .env("LANTERN__DATA_DIR", dir.path())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&text)
        );
        assert_eq!(dead_letters(dir.path()), expected, "{command:?}");
        assert_eq!(dump(dir.path(), "obs_events").len(), 2, "{command:?}");
    }
    host.terminate();
    sound(dir.path());
}
