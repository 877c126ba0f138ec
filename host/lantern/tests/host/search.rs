//! Tests full-text search against the real program: its index survives kills, rebuilds, rollbacks and erasures, and it never
//! changes which rows a search finds.

use super::*;

struct Scene {
    server: NatsServer,
    plugins: tempfile::TempDir,
    data: tempfile::TempDir,
}

impl Scene {
    fn host(&self) -> Host {
        let host = Host::start(self.data.path(), &self.server.url(), self.plugins.path());
        running(&host, "obs");
        host
    }

    /// Runs a command that must succeed, and returns its output.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        succeeds(self.data.path(), arguments)
    }

    fn publish(&self, first: usize, count: usize) {
        let messages: Vec<(String, String)> = (first..first + count)
            .map(|number| {
                let event = json!({
                    "pc_id": format!("pc-{}", number % 10), "at": "2026-05-28T10:41:00Z", "kind": "logon",
                    "source": "agent", "event_record_id": number.to_string(),
                    "payload": {"text": format!("Alpha beta{} gamma{number}", number % 7), "user": {"name": "Ada"}},
                });
                ("obs.pc-1".to_owned(), event.to_string())
            })
            .collect();
        publish(&self.server, &messages);
    }

    /// Whether the database or its write-ahead log contains a text.
    fn file_contains(&self, text: &str) -> bool {
        ["lantern.db", "lantern.db-wal"].iter().any(|file| {
            let bytes = std::fs::read(self.data.path().join(file)).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }
}

/// The number of rows that a search finds, in pages.
fn found(host: &Host, search: &str) -> usize {
    let (mut rows, mut cursor) = (0, String::new());
    loop {
        let page = host.json(&format!(
            "/api/v1/tables/obs_events/rows?limit=90&search={search}{cursor}"
        ));
        rows += page["items"].as_array().unwrap_or_else(|| panic!("{page}")).len();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

fn wait_for_index(host: &Host) {
    host.wait("the full-text index", LIMIT, |host| {
        let search = host.json("/api/v1/tables/obs_events")["search"].clone();
        search["enabled"] == true && search["rows_behind"] == 0
    });
}

#[test]
fn a_full_text_index_survives_kills_rebuilds_and_erasures() {
    let scene = Scene {
        server: NatsServer::start(),
        plugins: plugin_folder(&["obs-events"]),
        data: tempfile::tempdir().unwrap(),
    };
    let host = scene.host();
    scene.publish(0, 700);
    wait_for_rows(&host, scene.data.path(), "obs_events", 700);
    let searches = |host: &Host, rows: usize| {
        let expected = [
            ("alpha", rows),
            ("gamma77", 1),
            ("beta3+ALPHA", rows / 7),
            ("payload.user.name:ada", rows),
        ];
        for (search, expected) in expected {
            assert_eq!(found(host, search), expected, "{search}");
        }
        assert_eq!(found(host, "%22beta0+gamma77%22+-gamma70"), 1);
        assert_eq!(found(host, "gamma77+-beta0"), 0);
        assert_eq!(found(host, "user"), 0);
    };
    searches(&host, 700);
    let printed = scene.done(&["table", "search", "on", "obs_events"]);
    assert!(
        printed.contains("full-text search in obs_events is on"),
        "{printed}"
    );
    searches(&host, 700);
    host.kill();

    let host = scene.host();
    wait_for_index(&host);
    searches(&host, 700);
    let page = host.json("/api/v1/tables/obs_events/rows?search=alpha&limit=1");
    assert_eq!(page["search"], json!({"enabled": true, "rows_behind": 0}));
    scene.publish(700, 700);
    wait_for_rows(&host, scene.data.path(), "obs_events", 1_400);
    searches(&host, 1_400);
    wait_for_index(&host);

    scene.done(&["rebuild", "obs-events"]);
    searches(&host, 1_400);
    wait_for_index(&host);
    sound(scene.data.path());
    assert!(scene.done(&["table", "search", "list"]).contains("on"));

    assert!(scene.file_contains("gamma1399"));
    scene.done(&["forget", "event_record_id=1399", "--yes", "--vacuum"]);
    assert_eq!((found(&host, "gamma1399"), found(&host, "gamma1398")), (0, 1));
    assert!(!scene.file_contains("gamma1399"));
    sound(scene.data.path());

    scene.done(&["table", "search", "off", "obs_events"]);
    assert_eq!(found(&host, "gamma77"), 1);
    let left = "SELECT count(*) FROM sqlite_schema WHERE name GLOB '_lantern_search_[0-9]*'";
    host.wait("the removal of the index", LIMIT, |_| {
        query(scene.data.path(), left) == ["0"]
    });
}
