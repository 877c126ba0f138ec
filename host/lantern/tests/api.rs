//! Tests the API through its router over a real SQLite file: responses, rejected requests, and pagination that neither
//! loses nor repeats a row during writes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by them"
)]

#[path = "api/access.rs"]
mod access;
#[path = "api/counts.rs"]
mod counts;
#[path = "api/database.rs"]
mod database;
#[path = "api/dead_letters.rs"]
mod dead_letters;
#[path = "support/described.rs"]
mod described;
#[path = "support/evolving.rs"]
mod evolving;
#[path = "api/following.rs"]
mod following;
#[path = "api/guard.rs"]
mod guard;
#[path = "api/openapi.rs"]
mod openapi;
#[path = "api/page.rs"]
mod page;
#[path = "api/plugins.rs"]
mod plugins;
#[path = "api/scene.rs"]
mod scene;
#[path = "api/sql.rs"]
mod sql;
#[path = "api/tables.rs"]
mod tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use database::{Database, add, check, running};
use futures_util::StreamExt as _;
use lantern_http::{State, router};
use lantern_model::batch::Timestamp;
use lantern_model::status;
use serde_json::Value;
use tower::ServiceExt as _;

async fn send(api: &Router, request: Request<Body>) -> (Response<()>, String) {
    let response = api.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    // An event stream has no end while the client listens.
    let is_events = parts
        .headers
        .get("content-type")
        .is_some_and(|kind| kind == "text/event-stream");
    let bytes = match is_events {
        true => body.into_data_stream().next().await.unwrap().unwrap(),
        false => to_bytes(body, 64 << 20).await.unwrap(),
    };
    (
        Response::from_parts(parts, ()),
        String::from_utf8(bytes.to_vec()).unwrap(),
    )
}

async fn get(api: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path)
        .header("host", "localhost:7070")
        .body(Body::empty())
        .unwrap();
    let (response, body) = send(api, request).await;
    (response.status(), body)
}

async fn get_json(api: &Router, path: &str) -> Value {
    let (status, body) = get(api, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Asserts that the response is a problem with this status and that its detail contains these words.
async fn refused(api: &Router, path: &str, status: StatusCode, words: &str) {
    let request = Request::get(path)
        .header("host", "127.0.0.1")
        .body(Body::empty())
        .unwrap();
    let (response, body) = send(api, request).await;
    assert_eq!(response.status(), status, "{path}: {body}");
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json",
        "{path}"
    );
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], status.as_u16(), "{path}");
    assert!(
        problem["type"]
            .as_str()
            .unwrap()
            .starts_with("urn:lantern:problem:"),
        "{body}"
    );
    assert!(
        problem["title"].is_string() && problem["instance"].is_string(),
        "{body}"
    );
    assert!(
        problem["detail"].as_str().unwrap().contains(words),
        "{path}: {body}"
    );
}

#[tokio::test]
async fn every_page_answers_with_its_headers() {
    let database = Database::new();
    let api = router(database.state().await);
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/healthz",
        "/metrics",
        "/api/v1/projections",
        "/api/v1/tables",
        "/api/v1/tables/things/rows",
        "/api/v1/dead-letters",
        "/api/v1/gaps",
        "/api/v1/ledger",
        "/api/v1/audit",
        "/api/v1/whoami",
        "/api/v1/plugins",
        "/api/v1/plugin-files",
        "/api/v1/dead-letters/export",
    ] {
        let request = Request::get(path)
            .header("host", "[::1]:7070")
            .body(Body::empty())
            .unwrap();
        let (response, body) = send(&api, request).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}: {body}");
        for header in [
            "content-security-policy",
            "x-content-type-options",
            "cache-control",
        ] {
            assert!(response.headers().contains_key(header), "{path} has no {header}");
        }
    }
    let (_, metrics) = get(&api, "/metrics").await;
    assert!(metrics.contains("\nlantern_ready 1\n"), "{metrics}");
    refused(&api, "/api/v1/nothing", StatusCode::NOT_FOUND, "/api/v1").await;
    refused(&api, "/../../etc/passwd", StatusCode::NOT_FOUND, "").await;
}

#[tokio::test]
async fn readiness_names_what_is_not_well() {
    let database = Database::new();
    let broker_is_there = Arc::new(AtomicBool::new(true));
    let seen = broker_is_there.clone();
    let state = State {
        health: Arc::new(move || vec![check("broker", seen.load(Ordering::Relaxed)), check("disk", true)]),
        ..database.state().await
    };
    let projection = add(&state.projections, running());
    let api = router(state);
    let failing = async || -> Vec<String> {
        let (status, body) = get(&api, "/readyz").await;
        let answer: Value = serde_json::from_str(&body).unwrap();
        let checks = answer["checks"].as_array().unwrap();
        assert_eq!(checks.len(), 3, "{body}");
        let failing: Vec<String> = checks
            .iter()
            .filter(|check| check["ok"] == false)
            .map(|check| {
                format!(
                    "{}: {}",
                    check["name"].as_str().unwrap(),
                    check["detail"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(answer["ready"], failing.is_empty(), "{body}");
        assert_eq!(status.as_u16(), if failing.is_empty() { 200 } else { 503 });
        failing
    };
    assert!(failing().await.is_empty());

    broker_is_there.store(false, Ordering::Relaxed);
    assert_eq!(failing().await, ["broker: as the test says"]);
    assert_eq!(get(&api, "/livez").await.0, StatusCode::OK);
    let (_, metrics) = get(&api, "/metrics").await;
    assert!(metrics.contains("\nlantern_ready 0\n"), "{metrics}");
    broker_is_there.store(true, Ordering::Relaxed);

    let now_ms = Timestamp::now().0 / 1_000;
    projection.send_modify(|status| status.stalled_since_ms = Some(now_ms - 5_000));
    assert!(failing().await.is_empty(), "five seconds may be one slow batch");
    projection.send_modify(|status| {
        status.stalled_since_ms = Some(now_ms - 11_000);
        status.last_error = Some("disk full".into());
        status.last_error_at_ms = Some(now_ms - 10_000);
    });
    let stuck = failing().await;
    assert!(
        stuck[0].starts_with("projection:things/events: no progress for 11 s"),
        "{stuck:?}"
    );
    assert!(stuck[0].ends_with("disk full"), "{stuck:?}");
    // An error from before the source stalled is not the cause.
    projection.send_modify(|status| status.last_error_at_ms = Some(now_ms - 80_000));
    let stuck = failing().await;
    assert!(stuck[0].ends_with("no error reported"), "{stuck:?}");

    projection.send_modify(|status| status.enter(status::ProjectionState::WaitingForStream));
    assert!(
        failing().await[0].contains("the broker has had no stream THINGS"),
        "it was there before"
    );
    projection.send_modify(|status| status.epoch = 0);
    assert!(
        failing().await.is_empty(),
        "the stream may be about to be created"
    );
    projection.send_modify(|status| status.state_since_ms = now_ms - 11_000);
    assert!(failing().await[0].contains("correct its name in the plugin"));
    projection.send_modify(|status| status.fail(status::ProjectionState::Failed, "disk full".into()));
    assert_eq!(failing().await, ["projection:things/events: halted: disk full"]);
}

#[tokio::test]
async fn projections_are_listed_with_their_fields() {
    let database = Database::new();
    let state = database.state().await;
    let _one = add(&state.projections, running());
    let _other = add(
        &state.projections,
        lantern_model::status::Status {
            plugin: "audit".into(),
            ..running()
        },
    );
    let list = get_json(&router(state), "/api/v1/projections").await;
    assert_eq!(list[0]["plugin"], "audit");
    let fields = [
        "plugin",
        "version",
        "digest",
        "source",
        "stream",
        "state",
        "epoch",
        "checkpoint",
        "last_sequence",
        "lag",
        "rows",
        "dead_letters",
        "last_error",
        "last_error_at_ms",
        "paused",
        "state_since_ms",
    ];
    for field in fields {
        assert!(list[1].get(field).is_some(), "{field} is missing in {list}");
    }
    assert_eq!(list[1]["state"], "running");
}

#[tokio::test]
async fn values_come_out_exactly_as_they_are_stored() {
    let database = Database::new();
    let depth = 10_000;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let documents = [
        r#"{"n":123456789012345678901234567890.50, "twice":1,"twice":2,"e":1e400}"#,
        deep.as_str(),
        r#""\ud800 lone""#,
    ];
    let texts = [
        "'; DROP TABLE things; --",
        "\"quoted\" <script>alert(1)</script> \u{feff}\u{202e}rtl\u{200b}",
        "line\nline\ttab \u{1b}[31m",
    ];
    let writer = database.writer();
    let numbers = [i64::MAX, i64::MIN, 9_007_199_254_740_993];
    for index in 0..3 {
        writer
            .execute(
                "INSERT INTO things VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, 0)",
                rusqlite::params![
                    numbers[index],
                    1_700_000_000_123_456_i64,
                    index as i64 % 2,
                    [0.1, 1e-300, f64::MAX][index],
                    texts[index],
                    [0_u8, 255, index as u8],
                    documents[index],
                    index as i64 + 1,
                ],
            )
            .unwrap();
    }
    writer
        .execute(
            "INSERT INTO things (id, _origin, _sequence, _row) VALUES (0, 99, 4, 0)",
            [],
        )
        .unwrap();

    let api = router(database.state().await);
    let (status, body) = get(&api, "/api/v1/tables/things/rows?order=asc&limit=1000").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    for exact in documents {
        assert!(
            body.contains(&format!("\"extra\":{exact}")),
            "{:.100} is not there to the byte",
            exact
        );
    }
    for exact in [
        "\"id\":9223372036854775807",
        "\"id\":-9223372036854775808",
        "\"id\":9007199254740993",
    ] {
        assert!(body.contains(exact), "{exact}");
    }
    let used: Vec<f64> = body
        .split("\"used\":")
        .skip(1)
        .filter_map(|rest| rest.split([',', '}']).next().unwrap().parse().ok())
        .collect();
    // By id: the second, null, the third, the first.
    assert_eq!(used, [1e-300, f64::MAX, 0.1]);
    assert!(body.contains("\"body\":\"AP8A\""));

    // The id equals the row number here, so ascending order starts with the smallest id. Remove the documents, because
    // a client's parser need not accept ten thousand nested brackets.
    let mut plain = body.clone();
    for document in documents {
        plain = plain.replace(document, "null");
    }
    let page: Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(page["next_cursor"], Value::Null);
    let item = &page["items"][0];
    assert_eq!(item["at"], "2023-11-14T22:13:20.123456Z");
    assert_eq!(item["ok"], true);
    assert_eq!(item["order"], texts[1]);
    assert_eq!(item["_id"], "1:2:0");
    let bare = &page["items"][1];
    assert_eq!(bare["at"], Value::Null);
    assert_eq!(bare["_sequence"], 4);
}

#[tokio::test]
async fn tables_are_described() {
    let database = Database::new();
    let writer = database.writer();
    insert(&writer, 1, 10_500);
    let tables = get_json(&router(database.state().await), "/api/v1/tables").await;
    assert_eq!(tables.as_array().unwrap().len(), 1);
    let table = &tables[0];
    assert_eq!(table["name"], "things");
    assert_eq!(table["plugin"], "things");
    assert_eq!(table["primary_key"][0], "id");
    assert_eq!(table["columns"][3]["unit"], "By");
    assert_eq!(table["columns"][3]["role"], "measure");
    assert_eq!(table["row_count"], 10_500);
    assert_eq!(table["row_count_exact"], false);
    writer.execute("DELETE FROM things WHERE id > 3", []).unwrap();
    let tables = get_json(&router(database.state().await), "/api/v1/tables").await;
    assert_eq!(tables[0]["row_count"], 3);
    assert_eq!(tables[0]["row_count_exact"], true);
}

fn insert(writer: &rusqlite::Connection, first: i64, last: i64) {
    writer
        .execute(
            "WITH RECURSIVE n(x) AS (SELECT ?1 UNION ALL SELECT x + 1 FROM n WHERE x < ?2)
             INSERT INTO things (id, _origin, _sequence, _row) SELECT x, 1, x, 0 FROM n",
            [first, last],
        )
        .unwrap();
}

/// Returns the ids of all pages, in the order received.
async fn walk(api: &Router, order: &str, after_page: impl Fn(usize)) -> Vec<i64> {
    let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = get_json(
            api,
            &format!("/api/v1/tables/things/rows?order={order}&limit=137{cursor}"),
        )
        .await;
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["id"].as_i64().unwrap()));
        pages += 1;
        after_page(pages);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[tokio::test]
async fn pages_neither_lose_nor_repeat_rows_while_rows_are_written() {
    let database = Database::new();
    let writer = database.writer();
    insert(&writer, 1, 10_000);
    let api = router(database.state().await);
    let next_id = std::cell::Cell::new(10_001);
    let write_more = |_| {
        insert(&writer, next_id.get(), next_id.get() + 49);
        next_id.set(next_id.get() + 50);
    };
    let newest_first = walk(&api, "desc", write_more).await;
    assert_eq!(newest_first, (1..=10_000).rev().collect::<Vec<_>>());

    let written_before = next_id.get() - 1;
    assert!(written_before > 10_000, "nothing was written in between");
    let oldest_first = walk(&api, "asc", |page| {
        if page < 20 {
            write_more(page);
        }
    })
    .await;
    assert_eq!(oldest_first, (1..next_id.get()).collect::<Vec<_>>());
}

#[tokio::test]
async fn names_that_are_no_names_are_refused() {
    let database = Database::new();
    let api = router(database.state().await);
    for name in [
        "..%2fx",
        "%2e%2e%2f",
        "..%5c",
        "%2fetc%2fpasswd",
        "a%00b",
        "CON",
        "Things",
        "%d1%82hings",
        "things%20",
        "things%22",
        "sqlite_master",
        "_lantern_checkpoint",
        "lantern_x",
        "things;drop",
        "%27",
        "%ff%fe",
    ] {
        refused(
            &api,
            &format!("/api/v1/tables/{name}/rows"),
            StatusCode::BAD_REQUEST,
            "",
        )
        .await;
    }
    let long = "a".repeat(300);
    refused(
        &api,
        &format!("/api/v1/tables/{long}/rows"),
        StatusCode::BAD_REQUEST,
        "longer than",
    )
    .await;
    refused(
        &api,
        "/api/v1/tables/absent/rows",
        StatusCode::NOT_FOUND,
        "no table absent",
    )
    .await;
    refused(&api, "/api/v1/tables/../things/rows", StatusCode::NOT_FOUND, "").await;
}

#[tokio::test]
async fn bad_queries_are_refused_with_what_to_do() {
    let database = Database::new();
    let api = router(database.state().await);
    let rows = "/api/v1/tables/things/rows";
    let gaps_cursor = "Z2FwcyAx";
    for (path, words) in [
        (
            format!("{rows}?limit=-1"),
            "limit must be an integer from 1 to 1000",
        ),
        (format!("{rows}?limit=0"), "limit must"),
        (format!("{rows}?limit=1001"), "limit must"),
        (format!("{rows}?limit=1%20OR%201=1"), "limit must"),
        (format!("{rows}?limit=1&limit=2"), "more than once"),
        (format!("{rows}?order=id;drop"), "order must be one of asc, desc"),
        (format!("{rows}?cursor=AAAA"), "cursor"),
        (format!("{rows}?cursor={gaps_cursor}"), "cursor"),
        (format!("{rows}?where=1"), "unknown parameter \"where\""),
        (format!("{rows}?%00=1"), "unknown parameter"),
        (
            "/api/v1/dead-letters?state='%20OR%201=1--".into(),
            "state must be one of open, resolved, discarded",
        ),
        (
            "/api/v1/dead-letters?class=x".into(),
            "class must be one of malformed",
        ),
        ("/api/v1/dead-letters?plugin=a'b".into(), "plugin name"),
        ("/api/v1/gaps?source=a%00".into(), "source name"),
        ("/api/v1/tables?x=1".into(), "unknown parameter"),
    ] {
        refused(&api, &path, StatusCode::BAD_REQUEST, words).await;
    }
    assert!(get_json(&api, &format!("/api/v1/gaps?cursor={gaps_cursor}")).await["items"].is_array());
}

#[tokio::test]
async fn records_are_filtered_and_paged() {
    let database = Database::new();
    let writer = database.writer();
    for id in 1..=5_i64 {
        writer
            .execute(
                "INSERT INTO _lantern_dead_letter (id, origin, sequence, plugin_version, class, reason, subject, published_ns,
                  headers, payload, attempts, state, first_at, last_at) VALUES
                 (?1, ?2, ?1, 1, ?3, 'because', 'a.b', 1700000000123456789, '[[\"h\",\"v\"],[\"h\",\"w\"]]', ?4,
                  1, 'open', 0, 1000000)",
                rusqlite::params![
                    id,
                    1 + id % 2,
                    if id < 4 { "malformed" } else { "trap" },
                    if id == 1 { b"{\"a\":1}".to_vec() } else { vec![0xff, 0x00] },
                ],
            )
            .unwrap();
    }
    writer
        .execute_batch(
            "INSERT INTO _lantern_gap VALUES (1, 1, 7, 9, 1, 'purged', 0);
             INSERT INTO _lantern_ledger VALUES (1, 1, 1, 1, 6, 6, 4, 1, 1, 0, 4, 4, 0, 1000000, 2, 1);
             INSERT INTO _lantern_ledger VALUES (2, 2, 1, 1, 2, 2, 2, 0, 0, 0, 2, 2, 0, 0, 2, 0);",
        )
        .unwrap();
    let api = router(database.state().await);
    let ids = async |query: &str| -> Vec<i64> {
        let list = get_json(&api, &format!("/api/v1/dead-letters?{query}")).await;
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(ids("").await, [5, 4, 3, 2, 1]);
    assert_eq!(ids("plugin=things").await, [4, 2]);
    assert_eq!(ids("plugin=other&source=input&class=malformed").await, [3, 1]);
    assert_eq!(ids("state=resolved").await, [] as [i64; 0]);

    let first = get_json(&api, "/api/v1/dead-letters?limit=4").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let last = get_json(&api, &format!("/api/v1/dead-letters?limit=4&cursor={cursor}")).await;
    assert_eq!(last["next_cursor"], Value::Null);
    let letter = &last["items"][0];
    assert_eq!(letter["payload_text"], "{\"a\":1}");
    assert_eq!(letter["payload_base64"], "eyJhIjoxfQ==");
    assert_eq!(letter["headers"], serde_json::json!([["h", "v"], ["h", "w"]]));
    assert_eq!(letter["published"], "2023-11-14T22:13:20.123456Z");
    assert_eq!(letter["digest"], "sha256:aa");
    assert_eq!(first["items"][0]["payload_text"], Value::Null);
    assert_eq!(first["items"][0]["payload_base64"], "/wA=");

    let gaps = get_json(&api, "/api/v1/gaps?plugin=things").await;
    assert_eq!(
        (&gaps["items"][0]["first_sequence"], &gaps["items"][0]["exact"]),
        (&7.into(), &true.into())
    );
    let ledger = get_json(&api, "/api/v1/ledger?source=events").await;
    assert_eq!(ledger["items"].as_array().unwrap().len(), 1);
    assert_eq!(ledger["items"][0]["skipped"], 1);
    assert_eq!(ledger["items"][0]["last_at"], "1970-01-01T00:00:01.000000Z");
}

#[tokio::test]
async fn a_handler_that_panics_is_an_answer() {
    let database = Database::new();
    let state = State {
        health: Arc::new(|| panic!("as the test wants")),
        ..database.state().await
    };
    let api = router(state);
    refused(&api, "/readyz", StatusCode::INTERNAL_SERVER_ERROR, "log").await;
    assert_eq!(get(&api, "/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_table_that_is_gone_is_a_failure_and_tells_nothing() {
    let database = Database::new();
    database.writer().execute_batch("DROP TABLE things").unwrap();
    let api = router(database.state().await);
    refused(
        &api,
        "/api/v1/tables/things/rows",
        StatusCode::INTERNAL_SERVER_ERROR,
        "log",
    )
    .await;
}
