//! Two hosts read the same streams, one into SQLite and one into PostgreSQL: every read route of the API answers alike.

use serde_json::Value;

use super::*;

/// Plugins with one source, so that both hosts handle the messages in the same order, and without retention: the source, and the
/// subject of the fixtures.
const PLUGINS: [(&str, &str, &str); 3] = [
    ("audit-log", "audit", "audit.test"),
    ("obs-events", "obs", "obs.pc-1"),
    ("github-webhooks", "hooks", "github.hooks"),
];

/// How often the fixtures are published, with other identifiers each time.
const ROUNDS: usize = 12;

/// The address of a new database of the server that `LANTERN_TEST_POSTGRES` names; none without it.
fn new_database() -> Option<String> {
    let address = std::env::var("LANTERN_TEST_POSTGRES").ok()?;
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    run(async {
        let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
    });
    let (server, _) = address.rsplit_once('/').unwrap();
    Some(format!("{server}/{name}"))
}

/// The payloads of the fixtures of a plugin, with their headers.
fn fixtures(plugin: &str) -> Vec<(async_nats::HeaderMap, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins")
        .join(plugin)
        .join("fixtures");
    let mut files: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        if name.ends_with(".md") || name.ends_with(".expected.json") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        let mut headers = async_nats::HeaderMap::new();
        if !name.ends_with(".message.json") {
            found.push((headers, bytes));
            continue;
        }
        let envelope: Value = serde_json::from_slice(&bytes).unwrap();
        for (name, value) in envelope["headers"].as_object().into_iter().flatten() {
            headers.insert(name.as_str(), value.as_str().unwrap());
        }
        found.push((headers, envelope["payload"].to_string().into_bytes()));
    }
    found
}

/// Changes the identifiers of a JSON object.
fn vary(payload: &[u8], round: usize) -> Vec<u8> {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(payload) else {
        return payload.to_vec();
    };
    for (name, value) in &mut object {
        if let (true, Some(text)) = (name.ends_with("id"), value.as_str()) {
            *value = format!("{text}-{}", round % 9).into();
        }
    }
    serde_json::to_vec(&object).unwrap()
}

fn publish_fixtures(server: &NatsServer, plugin: &str, subject: &str) {
    run(async {
        let context = server.jetstream().await;
        for round in 0..ROUNDS {
            for (headers, payload) in fixtures(plugin) {
                let payload = vary(&payload, round);
                let sent = context.publish_with_headers(subject.to_owned(), headers, payload.into());
                sent.await.unwrap().await.unwrap();
            }
        }
    });
}

/// Fields that differ between two hosts: times of the host, durations, identities.
const OWN: [&str; 25] = [
    "activated_at",
    "at",
    "began_at",
    "bytes",
    "changed_at",
    "committed_at",
    "created_at",
    "database",
    "database_bytes",
    "elapsed_ms",
    "first_at",
    "installed_at",
    "instance",
    "last_at",
    "last_error",
    "last_error_at",
    "loaded_at",
    "recorded_at",
    "seen_at",
    "stalled_since",
    "started_at",
    "state_since",
    "uptime_s",
    "used",
    "next_cursor",
];

/// An answer without what differs between two hosts. `at` and `recorded_at` are also columns of tables.
fn comparable(path: &str, mut answer: Value) -> Value {
    let is_row = path.contains("/tables/");
    remove(&mut answer, &|name| {
        OWN.contains(&name) && !(is_row && matches!(name, "at" | "recorded_at" | "bytes" | "started_at"))
    });
    answer
}

fn remove(value: &mut Value, is_own: &impl Fn(&str) -> bool) {
    match value {
        Value::Object(object) => {
            object.retain(|name, _| !is_own(name));
            object.values_mut().for_each(|value| remove(value, is_own));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| remove(value, is_own)),
        _ => {}
    }
}

/// Compares the answers of both hosts to a request. Returns that of the first.
fn same(hosts: [&Host; 2], path: &str) -> (u16, String) {
    let [(status, text), (other_status, other_text)] = hosts.map(|host| host.get(path).unwrap());
    assert_eq!(
        (status, other_status),
        (status, status),
        "{path}: {text} and {other_text}"
    );
    assert!(status < 500, "{path}: {text}");
    let parsed = |text: &str| -> Vec<Value> {
        let whole = serde_json::from_str(text).map(|value| vec![value]);
        // An export has a document in each line, or is no JSON.
        whole.unwrap_or_else(|_| {
            let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| line.into());
            text.lines().map(line).collect()
        })
    };
    let comparable = |text: &str| -> Vec<Value> {
        let values = parsed(text).into_iter();
        values.map(|value| comparable(path, value)).collect()
    };
    assert_eq!(comparable(&text), comparable(&other_text), "{path}");
    (status, text)
}

fn json_of(hosts: [&Host; 2], path: &str) -> Value {
    let (status, text) = same(hosts, path);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// All requests about rows of a table.
fn compare_table(hosts: [&Host; 2], table: &str) {
    let base = format!("/api/v1/tables/{table}");
    let described = json_of(hosts, &base);
    let columns = described["columns"]
        .as_array()
        .unwrap_or_else(|| panic!("{described}"));
    let named = |test: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let names = columns.iter().filter(|column| test(column));
        names
            .map(|column| column["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = named(&|_| true);
    let numbers = named(&|column| matches!(column["type"].as_str(), Some("integer" | "real")));
    let texts = named(&|column| column["type"] == "text");
    let times = named(&|column| column["role"] == "time");
    let mut selections = vec![
        String::new(),
        "search=disk".to_owned(),
        "search=a*+-error".to_owned(),
    ];
    for column in &texts {
        selections.push(format!("filter={column}:set"));
        selections.push(format!("filter={column}~E"));
        selections.push(format!("filter={column}!~o&filter={column}:null"));
        selections.push(format!("filter={column}!=x&filter={column}>=A"));
    }
    for column in &numbers {
        selections.push(format!("filter={column}>=1"));
    }
    if !times.is_empty() {
        selections.push("from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z".to_owned());
        selections.push("from=2026-05-28T00:00:00Z".to_owned());
    }
    for (number, selection) in selections.iter().enumerate() {
        same(hosts, &format!("{base}/rows?{selection}&limit=500"));
        same(hosts, &format!("{base}/count?{selection}"));
        same(
            hosts,
            &format!("{base}/facets?{selection}&columns={}", all.join(",")),
        );
        same(hosts, &format!("{base}/export?format=csv&{selection}"));
        same(hosts, &format!("{base}/export?format=jsonl&{selection}"));
        // All groupings for some selections, because each request needs some milliseconds.
        let grouped = texts.iter().filter(|_| number < 4);
        for by in std::iter::once("").chain(grouped.map(String::as_str)) {
            let by = if by.is_empty() {
                String::new()
            } else {
                format!("&by={by}")
            };
            same(hosts, &format!("{base}/histogram?{selection}&buckets=40{by}"));
            same(hosts, &format!("{base}/series?{selection}&op=count{by}"));
            for op in ["avg", "min", "max", "sum", "p50", "p95"] {
                same(
                    hosts,
                    &format!(
                        "{base}/series?{selection}&measures={}&op={op}{by}",
                        numbers.join(",")
                    ),
                );
            }
        }
    }
    for column in &all {
        for sign in ["", "-"] {
            same(hosts, &format!("{base}/rows?sort={sign}{column}&limit=500"));
        }
    }
    for order in ["asc", "desc"] {
        same(hosts, &format!("{base}/rows?order={order}&limit=500"));
    }
    let rows = json_of(hosts, &format!("{base}/rows?limit=3"));
    for row in rows["items"].as_array().unwrap() {
        let id = row["_id"]
            .as_str()
            .or(row["id"].as_str())
            .unwrap_or_else(|| panic!("{row}"));
        same(hosts, &format!("{base}/rows/{id}"));
        same(hosts, &format!("/api/v1/trace?table={table}&key={id}"));
    }
    for bad in [
        "rows?sort=none",
        "rows?cursor=x",
        "rows/9:9:9",
        "facets?columns=none",
        "series?op=no",
        "rows/x",
    ] {
        same(hosts, &format!("{base}/{bad}"));
    }
}

#[test]
fn both_engines_answer_every_read_of_the_api_alike() {
    let Some(database) = new_database() else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    let server = NatsServer::start();
    let plugins = tempfile::tempdir().unwrap();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let command = |dir: &tempfile::TempDir, prefix: &str| {
        let mut command = Host::command(dir.path(), &server.url(), plugins.path());
        command.env("LANTERN__BROKER__CONSUMER_PREFIX", prefix);
        command
    };
    let file = Host::spawn(command(&dirs[0], "one"));
    let mut other = command(&dirs[1], "two");
    other.env("LANTERN__STORE__URL", &database);
    let other = Host::spawn(other);
    let hosts = [&file, &other];
    // One after the other, so that both databases number their sources alike.
    for (plugin, source, subject) in PLUGINS {
        let component = match plugin {
            "audit-log" | "obs-events" => {
                std::fs::read(host::plugins().join(format!("{plugin}.wasm"))).unwrap()
            }
            example => evolving::build(example),
        };
        std::fs::write(plugins.path().join(format!("{plugin}.wasm")), component).unwrap();
        for host in hosts {
            host.wait("the plugin", LIMIT, |host| {
                host.json("/api/v1/projections").to_string().contains(source)
            });
            running(host, source);
        }
        publish_fixtures(&server, plugin, subject);
        let count = ROUNDS * fixtures(plugin).len();
        for host in hosts {
            host.wait("all handled", LIMIT, |host| {
                host.projection(source)["checkpoint"] == count
            });
        }
    }
    let tables = json_of(hosts, "/api/v1/tables");
    let tables: Vec<String> = tables
        .as_array()
        .or(tables["items"].as_array())
        .unwrap_or_else(|| panic!("{tables}"))
        .iter()
        .map(|table| table["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(tables.len() >= 3, "{tables:?}");
    for table in &tables {
        compare_table(hosts, table);
    }
    for path in [
        "/api/v1/plugins",
        "/api/v1/plugins/obs-events",
        "/api/v1/plugins/obs-events/description",
        "/api/v1/plugins/obs-events/settings",
        "/api/v1/plugins/none",
        "/api/v1/plugin-files",
        "/api/v1/gaps",
        "/api/v1/ledger",
        "/api/v1/dead-letters",
        "/api/v1/dead-letters?class=malformed&limit=2",
        "/api/v1/dead-letters/1",
        "/api/v1/dead-letters/999999",
        "/api/v1/dead-letters/reasons",
        "/api/v1/dead-letters/reasons?reason=*a*",
        "/api/v1/dead-letters/export",
        "/api/v1/rebuilds",
        "/api/v1/rebuilds/1",
        "/api/v1/whoami",
        "/livez",
    ] {
        same(hosts, path);
    }
    for path in [
        "/api/v1/info",
        "/api/v1/projections",
        "/api/v1/projections/history",
        "/readyz",
        "/metrics",
    ] {
        for host in hosts {
            let (status, text) = host.get(path).unwrap();
            assert_eq!(status, 200, "{path}: {text}");
        }
    }
}
