//! Tests dead letters through the API: list, export, retry, discard, and rejected requests.

use super::scene::Scene;
use super::*;

impl Scene {
    /// Inserts dead letters `first..=last` of plugin `things`; the first attempt of each was at second `id`.
    fn insert_dead_letters(&self, first: i64, last: i64, payload: &[u8]) {
        let writer = self.database.writer();
        for id in first..=last {
            writer
                .execute(
                    "INSERT INTO _lantern_dead_letter (id, origin, sequence, plugin_version, class, reason, subject,
                         published_ns, headers, payload, attempts, state, first_at, last_at)
                     VALUES (?1, 1, ?1, 2, ?2, 'because', 'a.b', 0, '[]', ?3, 1, 'open', ?1 * 1000000, 0)",
                    rusqlite::params![id, if id % 2 == 0 { "trap" } else { "invalid" }, payload],
                )
                .unwrap();
        }
    }

    async fn ids(&self, query: &str) -> Vec<i64> {
        let list = get_json(&self.api, &format!("/api/v1/dead-letters?{query}")).await;
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["id"].as_i64().unwrap()).collect()
    }
}

#[tokio::test]
async fn dead_letters_are_filtered_by_time_and_id() {
    let scene = Scene::near().await;
    scene.insert_dead_letters(11, 14, b"{}");
    assert_eq!(scene.ids("since=1970-01-01T00:00:12Z").await, [14, 13, 12]);
    assert_eq!(scene.ids("until=1970-01-01T00:00:12Z").await, [11, 7]);
    assert_eq!(
        scene
            .ids("since=1970-01-01T01:00:11%2B01:00&until=1970-01-01T00:00:13Z&class=trap")
            .await,
        [12]
    );
    let one = get_json(&scene.api, "/api/v1/dead-letters/7").await;
    assert_eq!(
        (&one["id"], &one["payload_text"], &one["state"]),
        (&7.into(), &"{}".into(), &"open".into())
    );
    for (path, status, words) in [
        (
            "/api/v1/dead-letters/8",
            StatusCode::NOT_FOUND,
            "no dead letter 8",
        ),
        ("/api/v1/dead-letters/x", StatusCode::BAD_REQUEST, ""),
        ("/api/v1/dead-letters/..%2f7", StatusCode::BAD_REQUEST, ""),
        ("/api/v1/dead-letters/7%00", StatusCode::BAD_REQUEST, ""),
        (
            "/api/v1/dead-letters/99999999999999999999",
            StatusCode::BAD_REQUEST,
            "",
        ),
        (
            "/api/v1/dead-letters?since=2h",
            StatusCode::BAD_REQUEST,
            "since must be a time in RFC 3339",
        ),
        (
            "/api/v1/dead-letters/export?until=x",
            StatusCode::BAD_REQUEST,
            "until must be a time",
        ),
        (
            "/api/v1/dead-letters/export?limit=1",
            StatusCode::BAD_REQUEST,
            "unknown parameter",
        ),
    ] {
        refused(&scene.api, path, status, words).await;
    }
}

#[tokio::test]
async fn dead_letters_are_grouped_by_reason() {
    let scene = Scene::near().await;
    scene.insert_dead_letters(100, 399, b"{}");
    for (change, ids) in [
        ("'no field [at] at line ' || id", "id BETWEEN 100 AND 299"),
        ("'what? ' || (id % 2)", "id >= 300"),
        ("'alone'", "id = 399"),
    ] {
        let sql = format!("UPDATE _lantern_dead_letter SET class = 'invalid', reason = {change} WHERE {ids}");
        scene.database.writer().execute(&sql, []).unwrap();
    }
    let path = "/api/v1/dead-letters/reasons?state=open&class=invalid";
    let answer = get_json(&scene.api, path).await;
    let [group] = answer["groups"].as_array().unwrap().as_slice() else {
        panic!("{answer}");
    };
    assert_eq!(
        (&group["plugin"], &group["dead_letters"]),
        (&"things".into(), &300.into())
    );
    assert_eq!(
        (&group["reasons_omitted"], &answer["exact"]),
        (&0.into(), &true.into())
    );
    let shown: Vec<_> = group["reasons"].as_array().unwrap().iter().collect();
    let words: Vec<_> = shown.iter().map(|one| one["like"].as_str().unwrap()).collect();
    assert_eq!(words, ["no field [at] at line *", "what? *", "alone"]);
    assert_eq!(shown[0]["dead_letters"], 200);

    // The reason in the response, including special characters, finds the dead letters it counts.
    assert_eq!(
        scene.ids("limit=1000&reason=no+field+[at]+at+line+*").await.len(),
        200
    );
    assert_eq!(scene.ids("limit=1000&reason=what%3F+*").await.len(), 99);
    assert_eq!(scene.ids("limit=1000&reason=wha%3F%3F+*").await.len(), 0);
    let long = format!("/api/v1/dead-letters?reason={}", "x".repeat(1_001));
    refused(&scene.api, &long, StatusCode::BAD_REQUEST, "at most 1000").await;

    let body = r#"{"plugin": "things", "reason": "what? *"}"#;
    let (_, done) = scene
        .act("POST", "/api/v1/dead-letters/discard", "application/json", body)
        .await;
    assert_eq!(done["discarded"], 99);
    let left = get_json(&scene.api, path).await;
    assert_eq!(left["groups"][0]["dead_letters"], 201);
}

#[tokio::test]
async fn an_export_contains_every_dead_letter_once() {
    let scene = Scene::near().await;
    // The export needs more than one page by count and more than one by bytes.
    scene.insert_dead_letters(100, 399, &vec![0xff; 100_000]);
    let (status, body) = get(&scene.api, "/api/v1/dead-letters/export?plugin=things").await;
    assert_eq!(status, StatusCode::OK);
    let lines: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<i64> = lines
        .iter()
        .map(|letter| letter["id"].as_i64().unwrap())
        .collect();
    let expected: Vec<i64> = (100..=399).rev().chain([7]).collect();
    assert_eq!(ids, expected);
    assert_eq!(lines[0]["payload_text"], Value::Null);
    assert_eq!(lines[0]["payload_base64"].as_str().unwrap().len(), 133_336);
    assert_eq!(lines[300]["payload_text"], "{}");
    let (_, none) = get(&scene.api, "/api/v1/dead-letters/export?state=resolved").await;
    assert_eq!(none, "");
}

#[tokio::test]
async fn discarding_dead_letters_requires_a_filter() {
    let scene = Scene::near().await;
    scene.insert_dead_letters(11, 14, b"{}");
    let before = scene.contents();
    let json = "application/json";
    for (body, status) in [
        ("", 400),
        ("{}", 400),
        (r#"{"all": false}"#, 400),
        (r#"{"id": "7"}"#, 400),
        (r#"{"plugin": "../x"}"#, 400),
        (r#"{"plugin": "things", "souce": "events"}"#, 400),
        (r#"{"class": "x"}"#, 400),
        (r#"{"since": "2h"}"#, 400),
        (r#"{"id": 8}"#, 404),
    ] {
        let (found, answer) = scene
            .act("POST", "/api/v1/dead-letters/discard", json, body)
            .await;
        assert_eq!(found, status, "{body}: {answer}");
    }
    assert_eq!(scene.ids("state=open").await.len(), 5);
    assert_eq!(scene.contents(), before);

    let discard = async |body: &'static str| {
        scene
            .act("POST", "/api/v1/dead-letters/discard", json, body)
            .await
    };
    assert_eq!(
        discard(r#"{"id": 7}"#).await,
        (200, serde_json::json!({"discarded": 1}))
    );
    let (status, again) = discard(r#"{"id": 7}"#).await;
    assert_eq!(status, 409, "{again}");
    let (_, some) =
        discard(r#"{"plugin": "things", "class": "trap", "until": "1970-01-01T00:00:14Z"}"#).await;
    assert_eq!(some["discarded"], 1);
    assert_eq!(scene.ids("state=open").await, [14, 13, 11]);
    assert_eq!(discard(r#"{"all": true}"#).await.1["discarded"], 3);
    assert_eq!(scene.ids("state=discarded").await.len(), 5);
    assert_eq!(
        scene.audit(1),
        ["acts dead-letters.discard done all open dead letters: 3 discarded"]
    );
}

#[tokio::test]
async fn a_retry_requires_an_installed_plugin() {
    let scene = Scene::near().await;
    let json = "application/json";
    for (body, status) in [
        (r#"{"plugin": "absent"}"#, 404),
        (r#"{"id": 8}"#, 404),
        (r#"{"source": "A"}"#, 400),
        // The plugin is installed but not running.
        (r#"{"plugin": "things"}"#, 200),
        ("", 200),
    ] {
        let (found, answer) = scene.act("POST", "/api/v1/dead-letters/retry", json, body).await;
        assert_eq!(found, status, "{body}: {answer}");
        if status == 200 {
            assert_eq!(
                answer,
                serde_json::json!({"retried": 0, "resolved": 0, "inserted": 0, "updated": 0, "present": 0})
            );
        }
    }
}

#[tokio::test]
async fn unread_dead_letters_hold_their_memory_until_they_are_sent() {
    let scene = Scene::near().await;
    // As JSON, each of these payloads is more than seven times as long.
    scene.insert_dead_letters(101, 103, &vec![1; 7 << 20]);
    let request = |path: &str| {
        let request = Request::get(path).header("host", "localhost:7070");
        request.body(Body::empty()).unwrap()
    };
    let unread = scene
        .api
        .clone()
        .oneshot(request("/api/v1/dead-letters?limit=3"))
        .await
        .unwrap();
    assert_eq!(unread.status(), StatusCode::OK);
    for path in ["/api/v1/dead-letters/101", "/api/v1/dead-letters/export"] {
        let (busy, text) = send(&scene.api, request(path)).await;
        assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}: {text}");
        assert!(text.contains("http.answer_memory"), "{path}: {text}");
    }
    drop(unread);
    let one = get_json(&scene.api, "/api/v1/dead-letters/101").await;
    assert_eq!(one["payload_text"].as_str().unwrap().len(), 7 << 20);
    // A page ends where the memory ends.
    let list = get_json(&scene.api, "/api/v1/dead-letters?limit=3").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let next = list["next_cursor"].as_str().unwrap();
    assert_eq!(scene.ids(&format!("limit=1&cursor={next}")).await, [102]);
}
