//! Headers, readiness, the list of projections, and a handler that panics.

use super::*;

#[tokio::test]
async fn every_page_has_its_headers() {
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
async fn readiness_lists_failed_checks() {
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
async fn a_panicking_handler_returns_an_internal_error() {
    let database = Database::new();
    let state = State {
        health: Arc::new(|| panic!("as the test wants")),
        ..database.state().await
    };
    let api = router(state);
    refused(&api, "/readyz", StatusCode::INTERNAL_SERVER_ERROR, "log").await;
    assert_eq!(get(&api, "/livez").await.0, StatusCode::OK);
}
