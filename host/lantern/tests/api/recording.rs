//! What the audit records of rejected calls, of changes and of reads.

use lantern_http::Config;

use super::scene::{Scene, bearer};
use super::*;

#[tokio::test]
async fn many_rejected_requests_do_not_fill_the_audit() {
    let scene = Scene::near().await;
    let mut statuses = std::collections::BTreeMap::new();
    for _ in 0..500 {
        let headers = [
            ("authorization", "Bearer lantern_wrong"),
            ("content-type", "application/json"),
        ];
        let (status, _) = scene
            .call("POST", "/api/v1/tokens", &headers, Body::from("{}"))
            .await;
        *statuses.entry(status).or_insert(0) += 1;
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [(401, 20), (429, 480)]);
    assert_eq!(scene.audit(1_000).len(), 30);
    // The flood of wrong tokens does not suppress audit entries of a token holder.
    let viewer = bearer(&scene.viewer);
    let headers = [
        ("authorization", viewer.as_str()),
        ("content-type", "application/json"),
    ];
    let body = Body::from(r#"{"name": "mine", "role": "operator"}"#);
    let (status, _) = scene.call("POST", "/api/v1/tokens", &headers, body).await;
    assert_eq!(status, 403);
    assert!(
        scene.audit(1)[0].starts_with("looks token.create refused"),
        "{:?}",
        scene.audit(1)
    );
    // The limit does not affect an operator either.
    let (status, _) = scene
        .post("/api/v1/tokens", r#"{"name": "ci", "role": "viewer"}"#)
        .await;
    assert_eq!(status, 201);
    assert_eq!(scene.audit(1)[0].split(' ').next(), Some("acts"));
}

#[tokio::test]
async fn a_change_without_an_audit_entry_is_rejected() {
    let scene = Scene::near().await;
    let before = scene.contents();
    let trigger =
        "CREATE TRIGGER full BEFORE INSERT ON _lantern_audit BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    scene.database.writer().execute_batch(trigger).unwrap();
    let body = r#"{"name": "ci", "role": "viewer"}"#;
    let (status, answer) = scene.post("/api/v1/tokens", body).await;
    assert_eq!(status, 503, "{answer}");
    let answer = answer.to_string();
    assert!(
        answer.contains("audit-unavailable") && answer.contains("disk full"),
        "{answer}"
    );
    assert_eq!(scene.contents(), before);
    scene
        .database
        .writer()
        .execute_batch("DROP TRIGGER full")
        .unwrap();
    assert_eq!(scene.post("/api/v1/tokens", body).await.0, 201);
}

#[tokio::test]
async fn reads_of_operators_and_exports_are_recorded() {
    let scene = Scene::at(Config {
        sql: true,
        ..Config::loopback()
    })
    .await;
    let operator = bearer(&scene.operator);
    let viewer = bearer(&scene.viewer);
    let long = "x".repeat(2_000);
    let component = "/api/v1/plugins/things/component?version=9.9.9";
    let export = "/api/v1/tables/things/export?format=csv";
    for (token, path, expected) in [
        (Some(&operator), "/api/v1/tokens", 200),
        (Some(&operator), "/api/v1/sql?query=SELECT%0a1%1b[31m", 400),
        (
            Some(&operator),
            "/api/v1/sql?query=SELECT%20count(*)%20FROM%20things",
            200,
        ),
        (
            Some(&operator),
            &format!("/api/v1/sql?query=SELECT%20'{long}'"),
            200,
        ),
        (Some(&viewer), "/api/v1/sql?query=SELECT%201", 403),
        (Some(&operator), component, 404),
        (Some(&viewer), export, 200),
        // The audit records none of these.
        (None, export, 200),
        (None, "/api/v1/tokens", 401),
        (None, "/api/v1/tables/things/rows", 200),
        (Some(&viewer), "/api/v1/tables/things/rows", 200),
    ] {
        let headers: Vec<(&str, &str)> = token
            .iter()
            .map(|token| ("authorization", token.as_str()))
            .collect();
        let (status, body) = scene.call("GET", path, &headers, Body::empty()).await;
        assert_eq!(status, expected, "{path}: {body}");
    }
    let recorded = scene.audit(100);
    for (entry, beginning) in recorded.iter().rev().zip([
        "acts token.list done GET /api/v1/tokens",
        "acts sql.query refused SELECT 1\u{fffd}[31m: query: ",
        "acts sql.query done SELECT count(*) FROM things",
        "acts sql.query done SELECT 'xxx",
        "looks sql.query refused GET /api/v1/sql?query=SELECT%201: this requires the role operator",
        "acts component.download refused GET /api/v1/plugins/things/component?version=9.9.9: ",
        "looks table.export done GET /api/v1/tables/things/export?format=csv",
    ]) {
        assert!(entry.starts_with(beginning), "{entry} instead of {beginning}");
    }
    assert_eq!(recorded.len(), 7, "{recorded:#?}");
    assert!(recorded[3].len() < 600, "{}", recorded[3]);
}

#[tokio::test]
async fn reads_of_one_token_do_not_fill_the_audit() {
    let scene = Scene::near().await;
    let operator = bearer(&scene.operator);
    let headers = [("authorization", operator.as_str())];
    for _ in 0..80 {
        let (status, _) = scene.call("GET", "/api/v1/tokens", &headers, Body::empty()).await;
        assert_eq!(status, 200);
    }
    assert_eq!(scene.audit(1_000).len(), 60);
    // Each token has its own budget, and the audit always records changes.
    let viewer = bearer(&scene.viewer);
    let (status, _) = scene
        .call(
            "GET",
            "/api/v1/dead-letters/export",
            &[("authorization", viewer.as_str())],
            Body::empty(),
        )
        .await;
    assert_eq!(status, 200);
    assert!(scene.audit(1)[0].starts_with("looks dead-letters.export done"));
    let (status, _) = scene
        .post("/api/v1/tokens", r#"{"name": "ci", "role": "viewer"}"#)
        .await;
    assert_eq!(status, 201);
    assert!(scene.audit(1)[0].starts_with("acts token.create done"));
}
