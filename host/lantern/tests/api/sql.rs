//! Tests SQL queries: disabled by default, for operators only, and limited to the rows of plugins.

use super::scene::{Scene, bearer};
use super::*;

async fn scene() -> Scene {
    let config = lantern_http::Config {
        sql: true,
        ..lantern_http::Config::loopback()
    };
    Scene::at(config).await
}

async fn ask(scene: &Scene, query: &str, more: &str) -> (u16, String) {
    let token = bearer(&scene.operator);
    let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let path = format!("/api/v1/sql?query={query}{more}");
    scene
        .call("GET", &path, &[("authorization", &token)], Body::empty())
        .await
}

#[tokio::test]
async fn sql_requires_the_setting_and_an_operator() {
    let off = Scene::near().await;
    let (status, body) = ask(&off, "SELECT 1", "").await;
    assert_eq!(status, 404);
    assert!(body.contains("http.sql"), "{body}");
    let on = scene().await;
    let viewer = bearer(&on.viewer);
    let (status, _) = on
        .call(
            "GET",
            "/api/v1/sql?query=SELECT%201",
            &[("authorization", &viewer)],
            Body::empty(),
        )
        .await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn sql_answers_are_exact_and_bounded() {
    let scene = scene().await;
    let (status, body) = ask(
        &scene,
        "SELECT id, 9223372036854775807 AS large, x'ff' AS b, NULL AS n FROM things",
        "",
    )
    .await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["columns"], serde_json::json!(["id", "large", "b", "n"]));
    assert_eq!(
        answer["rows"],
        serde_json::json!([[1, "9223372036854775807", "/w==", null]])
    );
    assert_eq!(answer["truncated"], false);
    let many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";
    let (_, body) = ask(&scene, many, "").await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["rows"].as_array().unwrap().len(), 1_000);
    assert_eq!(answer["truncated"], true);
    let (_, csv) = ask(&scene, "SELECT '=1' AS a, -1 AS \"b,c\"", "&format=csv").await;
    assert_eq!(csv, "a,\"b,c\"\r\n'=1,-1\r\n");
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
    let (status, body) = ask(&scene, endless, "").await;
    assert_eq!(status, 422, "{body}");
    assert!(body.contains("interrupted after"), "{body}");
}

#[tokio::test]
async fn sql_reads_only_rows_of_plugins() {
    let scene = scene().await;
    big(&scene, 1);
    let before = scene.contents();
    for query in [
        "SELECT * FROM _lantern_token",
        "SELECT * FROM _LANTERN_TOKEN",
        "SELECT (SELECT max(sha256) FROM \"_lantern_token\")",
        "SELECT count(*) FROM _lantern_audit",
        "ATTACH DATABASE '/etc/passwd' AS x",
        "PRAGMA query_only = OFF",
        "PRAGMA table_info(things)",
        "SELECT * FROM pragma_table_info('_lantern_token')",
        "SELECT * FROM dbstat",
        "SELECT * FROM sqlite_dbpage",
        "SELECT load_extension('x')",
        "SELECT count(*) FROM dbstat",
        "SELECT count(*) FROM dbstat('main', 1)",
        "SELECT count(*) FROM pragma_table_list",
        "SELECT count(*) FROM sqlite_stmt",
        "SELECT randomblob(1000)",
        "SELECT unhex('00', 'x')",
        "SELECT 1 FROM big WHERE 'a' LIKE \"order\"",
        "SELECT replace(\"order\", 'a', \"order\") FROM big",
        "SELECT replace(hex(\"order\"), '6', hex(\"order\")) FROM big",
        "INSERT INTO things (id, _origin, _sequence, _row) VALUES (9, 1, 1, 1)",
        "DELETE FROM things",
        "DROP TABLE things",
        "CREATE TEMP TABLE x AS SELECT 1",
        "VACUUM INTO '/tmp/stolen.db'",
        "BEGIN",
        "SELECT 1; DELETE FROM things",
        "SELECT ?1",
        "SELECT",
        "",
        "SELECT zeroblob(1000000000)",
    ] {
        let (status, body) = ask(&scene, query, "").await;
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body.contains("query"), "{query}: {body}");
    }
    assert_eq!(scene.contents(), before);
    let (status, body) = ask(&scene, "SELECT name FROM sqlite_schema WHERE name = 'things'", "").await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = ask(
        &scene,
        "WITH a AS (SELECT id FROM things) SELECT count(*), upper('x') FROM a, json_each('[1]')",
        "",
    )
    .await;
    assert_eq!(status, 200, "{body}");
}

/// Creates a plugin's table with rows of 800 kB of text.
fn big(scene: &Scene, rows: usize) {
    let writer = scene.database.writer();
    writer
        .execute_batch(
            "CREATE TABLE big (\"order\" TEXT) STRICT;
             INSERT INTO _lantern_table (name, plugin, description, updates) VALUES ('big', 'things', '{}', 0);",
        )
        .unwrap();
    for _ in 0..rows {
        writer
            .execute("INSERT INTO big VALUES (?1)", ["a".repeat(800_000)])
            .unwrap();
    }
}

#[tokio::test]
async fn the_size_of_an_answer_is_checked_before_it_is_copied() {
    let scene = scene().await;
    big(&scene, 40);
    // 40 rows of 800 kB exceed the response limit.
    let (status, body) = ask(&scene, "SELECT \"order\" FROM big", "").await;
    assert_eq!(status, 200);
    assert!(body.len() <= 17 << 20, "{}", body.len());
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["truncated"], true);
    // A wide row gets a lower limit per value, so that the row's total size is bounded.
    let wide = vec!["\"order\""; 100].join(", ");
    let (status, body) = ask(&scene, &format!("SELECT {wide} FROM big"), "").await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("too big"), "{body}");
}

#[tokio::test]
async fn functions_are_linear_so_that_the_time_limit_holds() {
    let scene = scene().await;
    big(&scene, 1);
    // With SQLite's own functions each of them takes minutes. The limit only ends a test that would not end.
    let limit = std::time::Duration::from_secs(60);
    for (query, expected) in [
        (
            "SELECT instr(\"order\", substr(\"order\", 1, 400000) || 'b') AS x FROM big",
            "0",
        ),
        (
            "SELECT length(replace(\"order\", substr(\"order\", 1, 400000) || 'b', '')) AS x FROM big",
            "800000",
        ),
        (
            "SELECT length(trim(\"order\", replace(\"order\", 'a', 'b'))) AS x FROM big",
            "800000",
        ),
    ] {
        let answer = tokio::time::timeout(limit, ask(&scene, query, "")).await;
        let (status, body) = answer.unwrap_or_else(|_| panic!("no answer: {query}"));
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["rows"][0][0].to_string(), expected, "{query}");
    }
}
