//! Runs the examples for plugin authors as components in a real host: each message of their fixtures becomes the rows
//! or the dead letter that the fixture expects.

use serde_json::Value;

use super::*;

/// An example, with the subject of its messages, its source and its table.
const EXAMPLES: [(&str, &str, &str, &str); 3] = [
    ("github-webhooks", "github.hooks", "hooks", "github_activity"),
    ("otel-logs", "otel.logs.my-service", "logs", "otel_logs"),
    ("syslog", "syslog.mymachine", "lines", "syslog_lines"),
];

/// A fixture: headers, payload, and the expected outcome.
struct Fixture {
    headers: async_nats::HeaderMap,
    payload: Vec<u8>,
    expected: Value,
}

fn fixtures(name: &str) -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins")
        .join(name)
        .join("fixtures");
    let mut files: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let text = file.to_string_lossy().into_owned();
        if text.ends_with(".md") || text.ends_with(".expected.json") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        let mut headers = async_nats::HeaderMap::new();
        let (payload, stem) = match text.strip_suffix(".message.json") {
            Some(stem) => {
                let envelope: Value = serde_json::from_slice(&bytes).unwrap();
                for (name, value) in envelope["headers"].as_object().unwrap() {
                    headers.insert(name.as_str(), value.as_str().unwrap());
                }
                (envelope["payload"].to_string().into_bytes(), stem)
            }
            None => (bytes, text.rsplit_once('.').unwrap().0),
        };
        let expected = std::fs::read(format!("{stem}.expected.json")).unwrap();
        found.push(Fixture {
            headers,
            payload,
            expected: serde_json::from_slice(&expected).unwrap(),
        });
    }
    found
}

fn send(server: &NatsServer, subject: &str, fixtures: &[Fixture]) {
    run(async {
        let context = server.jetstream().await;
        for Fixture { headers, payload, .. } in fixtures {
            let sent =
                context.publish_with_headers(subject.to_owned(), headers.clone(), payload.clone().into());
            sent.await.unwrap().await.unwrap();
        }
    });
}

#[test]
fn the_examples_pass_their_fixtures() {
    let server = NatsServer::start();
    let dir = tempfile::tempdir().unwrap();
    let plugins = tempfile::tempdir().unwrap();
    for (name, ..) in EXAMPLES {
        let file = plugins.path().join(format!("{name}.wasm"));
        std::fs::write(file, evolving::build(name)).unwrap();
    }
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    for (name, subject, source, table) in EXAMPLES {
        running(&host, source);
        let fixtures = fixtures(name);
        send(&server, subject, &fixtures);
        host.wait("all handled", LIMIT, |host| {
            host.projection(source)["checkpoint"] == fixtures.len()
        });
        let rows: usize = fixtures
            .iter()
            .map(|fixture| fixture.expected["rows"].as_array().map_or(0, Vec::len))
            .sum();
        assert!(rows > 0, "{name}");
        // The tables keep rows for thirty days and the fixtures are older, so the host may already have expired some
        // rows.
        let stored = format!(
            "SELECT (SELECT count(*) FROM {table}) + rows_expired FROM _lantern_table WHERE name = '{table}'"
        );
        assert_eq!(query(dir.path(), &stored), [rows.to_string()], "{name}");
        let mut reasons: Vec<_> = fixtures
            .iter()
            .filter_map(|fixture| fixture.expected["reject"]["reason"].as_str())
            .collect();
        reasons.sort_unstable();
        let sql = format!(
            "SELECT d.reason FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin \
             WHERE o.source = '{source}' ORDER BY d.reason"
        );
        assert_eq!(query(dir.path(), &sql), reasons, "{name}");
    }
    drop(host);
    sound(dir.path());
}
