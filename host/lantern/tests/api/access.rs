//! Tests access control: sends forbidden requests to every route of the table; creates, uses and revokes tokens.

use futures_util::StreamExt as _;
use lantern_http::{Config, Needs, Route};
use lantern_model::schema::TokenName;

use super::scene::{Scene, bearer, path_of};
use super::*;

#[tokio::test]
async fn changes_require_an_operator_and_the_own_origin() {
    let routes = Scene::near().await.routes;
    let changes: Vec<&Route> = routes.iter().filter(|route| route.action.is_some()).collect();
    assert!(changes.len() >= 11);
    for route in changes {
        // The audit records a limited number of rejected requests per minute.
        let scene = Scene::near().await;
        let before = scene.contents();
        let (viewer, operator) = (bearer(&scene.viewer), bearer(&scene.operator));
        let (method, path) = (route.method.as_str(), path_of(route));
        assert_eq!(route.needs, Needs::Operator, "{method} {path}");
        let json = ("content-type", "application/json");
        let cases: &[(&[(&str, &str)], u16)] = &[
            (&[json], 401),
            (&[json, ("authorization", "Bearer lantern_wrong")], 401),
            (&[json, ("authorization", &viewer)], 403),
            (
                &[
                    json,
                    ("authorization", &operator),
                    ("origin", "https://evil.example"),
                ],
                403,
            ),
            (&[json, ("authorization", &operator), ("origin", "null")], 403),
            (
                &[
                    json,
                    ("authorization", &operator),
                    ("sec-fetch-site", "cross-site"),
                ],
                403,
            ),
            // A form on another site causes a navigation as well.
            (
                &[
                    json,
                    ("authorization", &operator),
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
                403,
            ),
            (
                &[json, ("authorization", &operator), ("host", "evil.example")],
                421,
            ),
            (
                &[
                    json,
                    ("authorization", &operator),
                    ("host", "localhost.evil.example:7070"),
                ],
                421,
            ),
        ];
        for (headers, expected) in cases {
            let (status, body) = scene.call(method, &path, headers, Body::from("{}")).await;
            assert_eq!(status, *expected, "{method} {path} {headers:?}: {body}");
        }
        let action = route.action.unwrap();
        let recorded = scene.audit(9);
        assert!(
            recorded
                .iter()
                .all(|entry| entry.contains(&format!("{action} refused"))),
            "{recorded:#?}"
        );
        for (entry, actor) in recorded
            .iter()
            .rev()
            .zip(["(nobody)", "(nobody)", "looks", "acts"])
        {
            assert!(entry.starts_with(actor), "{entry}");
        }
        assert_eq!(scene.contents(), before);
    }
}

#[tokio::test]
async fn bodies_that_other_pages_can_send_are_rejected() {
    let scene = Scene::near().await;
    let before = scene.contents();
    let operator = bearer(&scene.operator);
    for route in scene.routes.iter().filter(|route| route.action.is_some()) {
        let (method, path) = (route.method.as_str(), path_of(route));
        for content_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            "",
        ] {
            let mut headers = vec![("authorization", operator.as_str()), ("content-length", "2")];
            if !content_type.is_empty() {
                headers.push(("content-type", content_type));
            }
            let (status, body) = scene.call(method, &path, &headers, Body::from("{}")).await;
            let expected = if method == "DELETE" { 400 } else { 415 };
            assert_eq!(status, expected, "{method} {path} {content_type}: {body}");
        }
    }
    assert_eq!(scene.contents(), before);
}

#[tokio::test]
async fn loopback_reads_need_no_token_but_an_invalid_one_is_rejected() {
    let routes = Scene::near().await.routes;
    let mut scene = Scene::near().await;
    for (index, route) in routes.iter().filter(|route| route.action.is_none()).enumerate() {
        if index % 15 == 14 {
            // Twenty wrong tokens within a minute exceed the limit.
            scene = Scene::near().await;
        }
        let path = path_of(route);
        let (bare, _) = scene.call("GET", &path, &[], Body::empty()).await;
        let wrong = [("authorization", "Bearer lantern_wrong")];
        let (with_wrong, _) = scene.call("GET", &path, &wrong, Body::empty()).await;
        let expected = match route.needs {
            // The file does not exist, and the route is public.
            Needs::Nothing if route.path == "/assets/{file}" => (404, 404),
            Needs::Nothing => (200, 200),
            Needs::Viewer => (200, 401),
            Needs::Operator => (401, 401),
        };
        assert_eq!((bare, with_wrong), expected, "{path}");
    }
    // A proxy on this machine connects over loopback and sends its configured host name.
    let scene = Scene::at(Config {
        loopback: true,
        hosts: vec!["lantern.example".into()],
        sql: false,
        ..Config::loopback()
    })
    .await;
    let through_proxy = [("host", "lantern.example")];
    let (status, _) = scene
        .call("GET", "/api/v1/tables", &through_proxy, Body::empty())
        .await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn remote_requests_need_a_token_except_for_health() {
    let scene = Scene::at(Config {
        loopback: false,
        hosts: vec!["lantern.example".into(), "10.0.0.7".into(), "2001:db8::1".into()],
        sql: false,
        ..Config::loopback()
    })
    .await;
    let (viewer, operator) = (bearer(&scene.viewer), bearer(&scene.operator));
    let mut open = Vec::new();
    for route in &scene.routes {
        let (method, path) = (route.method.as_str(), path_of(route));
        let (status, _) = scene.call(method, &path, &[], Body::empty()).await;
        if status == 401 {
            let by_viewer = [
                ("authorization", viewer.as_str()),
                ("host", "Lantern.example:443"),
            ];
            let (status, body) = scene.call(method, &path, &by_viewer, Body::empty()).await;
            let expected = if route.needs == Needs::Viewer { 200 } else { 403 };
            assert_eq!(status, expected, "{method} {path}: {body}");
        } else {
            open.push(path);
        }
    }
    // The page contains no data, so it is public; users enter a token there.
    open.iter_mut()
        .for_each(|path| path.truncate(path.find('?').unwrap_or(path.len())));
    open.retain(|path| ["/livez", "/readyz"].contains(&path.as_str()) || path.starts_with("/api/"));
    assert_eq!(
        open,
        [
            "/api/v1/docs",
            "/api/v1/docs/style.css",
            "/api/v1/docs/icon.svg",
            "/livez",
            "/readyz",
            "/api/v1/info",
            "/api/v1/prove",
            "/api/v1/openapi.json"
        ]
    );
    for (method, path) in [("GET", "/nothing"), ("POST", "/nothing"), ("POST", "/livez")] {
        assert_eq!(
            scene.call(method, path, &[], Body::empty()).await.0,
            401,
            "{path}"
        );
    }
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[("host", "10.0.0.7:7070")], 200),
        (&[("host", "[2001:db8::1]:7070")], 200),
        (&[("host", "10.0.0.8")], 421),
        (&[("host", "sub.lantern.example")], 421),
        (
            &[("host", "lantern.example"), ("origin", "https://lantern.example")],
            200,
        ),
        (&[("host", "localhost"), ("origin", "https://localhost")], 403),
        (
            &[
                ("host", "lantern.example"),
                ("origin", "https://lantern.example.evil"),
            ],
            403,
        ),
    ];
    for (headers, expected) in cases {
        let headers = [*headers, &[("authorization", operator.as_str())]].concat();
        let (status, body) = scene.call("GET", "/api/v1/tokens", &headers, Body::empty()).await;
        assert_eq!(status, *expected, "{headers:?}: {body}");
    }
}

#[tokio::test]
async fn a_token_is_returned_once_and_can_be_revoked() {
    let scene = Scene::near().await;
    let (status, body) = scene
        .post(
            "/api/v1/tokens",
            r#"{"name": "ci", "role": "viewer", "expires_in_days": 30}"#,
        )
        .await;
    assert_eq!(status, 201, "{body}");
    let created: Value = serde_json::from_str(&body).unwrap();
    let token = format!("Bearer {}", created["token"].as_str().unwrap());
    let who = async || {
        let headers = [("authorization", token.as_str())];
        scene.call("GET", "/api/v1/whoami", &headers, Body::empty()).await
    };
    assert_eq!(who().await, (200, r#"{"name":"ci","role":"viewer"}"#.into()));
    assert_eq!(
        get_json(&scene.api, "/api/v1/whoami").await,
        serde_json::json!({"name": null, "role": "viewer"})
    );

    let operator = bearer(&scene.operator);
    let as_operator = [("authorization", operator.as_str())];
    let (_, list) = scene
        .call("GET", "/api/v1/tokens", &as_operator, Body::empty())
        .await;
    assert!(
        !list.contains(created["token"].as_str().unwrap()) && !list.contains("sha256"),
        "{list}"
    );
    let list: Value = serde_json::from_str(&list).unwrap();
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["acts", "ci", "looks"]);
    assert_eq!(list[1]["created_by"], "acts");
    assert_eq!(list[1]["expires_at"], created["expires_at"]);

    let (status, _) = scene
        .post("/api/v1/tokens", r#"{"name": "ci", "role": "operator"}"#)
        .await;
    assert_eq!(status, 409);
    for expected in [204, 404] {
        let (status, _) = scene
            .call("DELETE", "/api/v1/tokens/ci", &as_operator, Body::empty())
            .await;
        assert_eq!(status, expected);
    }
    assert_eq!(who().await.0, 401);

    let audit = get_json(&scene.api, "/api/v1/audit?actor=acts&limit=3").await;
    let outcomes: Vec<String> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            format!(
                "{} {}: {}",
                entry["action"].as_str().unwrap(),
                entry["outcome"].as_str().unwrap(),
                entry["detail"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        outcomes[0],
        "token.revoke refused: token ci: there is no token ci"
    );
    assert_eq!(outcomes[1], "token.revoke done: token ci");
    assert!(
        outcomes[2].starts_with("token.create refused: token ci, role operator"),
        "{outcomes:?}"
    );
    let next = audit["next_cursor"].as_str().unwrap();
    let rest = get_json(&scene.api, &format!("/api/v1/audit?actor=acts&cursor={next}")).await;
    // The audit holds the creation of the token and the listing of tokens.
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
    assert!(!format!("{audit}{rest}").contains(created["token"].as_str().unwrap()));
    let done = get_json(&scene.api, "/api/v1/audit?action=token.create").await;
    assert_eq!(done["items"][1]["outcome"], "done");
}

#[tokio::test]
async fn streaming_responses_end_when_the_token_is_revoked() {
    let scene = Scene::near().await;
    let token = TokenName::parse("looks").unwrap();
    let follow = async |headers: &[(&str, &str)]| {
        let mut request = Request::get("/api/v1/tables/things/tail").header("host", "localhost:7070");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = scene.api.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut received = response.into_body().into_data_stream();
        received.next().await.expect("a greeting").unwrap();
        received
    };
    let viewer = bearer(&scene.viewer);
    let mut with = follow(&[("authorization", &viewer)]).await;
    let mut without = follow(&[]).await;
    let add = async |id: i64| {
        let sql = "INSERT INTO things (id, _origin, _sequence, _row) VALUES (?1, 1, ?1, 0)";
        scene.database.writer().execute(sql, [id]).unwrap();
        scene.database.wake().await;
    };
    add(101).await;
    for received in [&mut with, &mut without] {
        let part = received.next().await.expect("a row").unwrap();
        assert!(part.starts_with(b"event: rows"), "{part:?}");
    }
    let operator = bearer(&scene.operator);
    let as_operator = [("authorization", operator.as_str())];
    let (status, _) = scene
        .call(
            "DELETE",
            &format!("/api/v1/tokens/{token}"),
            &as_operator,
            Body::empty(),
        )
        .await;
    assert_eq!(status, 204);
    add(102).await;
    with.next().await.expect("an end that is none").unwrap_err();
    without.next().await.expect("a row").unwrap();
}

#[tokio::test]
async fn invalid_names_and_bodies_change_nothing() {
    let scene = Scene::near().await;
    let before = scene.contents();
    let long = "a".repeat(300);
    for name in [
        "", "../x", "..", "a/b", "a\\b", "a\0b", "A", "ä", "а", "a b", "a\n", "(host)", "1a", "local", &long,
    ] {
        let body = serde_json::json!({"name": name, "role": "viewer"}).to_string();
        let (status, answer) = scene.post("/api/v1/tokens", &body).await;
        assert_eq!(status, 400, "{name:?}: {answer}");
    }
    let operator = bearer(&scene.operator);
    let as_operator = [("authorization", operator.as_str())];
    for name in [
        "..%2fx",
        "%2e%2e%2f",
        "a%00b",
        "%d0%b0",
        "CON",
        "%27%20OR%201=1",
        "%ff",
        &long,
    ] {
        let (status, _) = scene
            .call(
                "DELETE",
                &format!("/api/v1/tokens/{name}"),
                &as_operator,
                Body::empty(),
            )
            .await;
        assert_eq!(status, 400, "{name}");
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        r#"{"name": "x"}"#,
        r#"{"name": "x", "role": "admin"}"#,
        r#"{"name": "x", "role": "viewer", "more": 1}"#,
        r#"{"name": "x", "name": "y", "role": "viewer"}"#,
        r#"{"name": "x", "role": "viewer", "expires_in_days": 0}"#,
        r#"{"name": "x", "role": "viewer", "expires_in_days": -1}"#,
        r#"{"name": "x", "role": "viewer", "expires_in_days": 4000}"#,
    ] {
        let (status, answer) = scene.post("/api/v1/tokens", body).await;
        assert_eq!(status, 400, "{body}: {answer}");
    }
    let large = format!(
        r#"{{"name": "x", "role": "viewer", "pad": "{}"}}"#,
        "x".repeat(70_000)
    );
    assert_eq!(scene.post("/api/v1/tokens", &large).await.0, 413);
    assert_eq!(scene.contents(), before);
}

#[tokio::test]
async fn a_setting_requires_a_token_for_loopback_reads() {
    let scene = Scene::at(Config {
        reads_need_token: true,
        ..Config::loopback()
    })
    .await;
    let viewer = bearer(&scene.viewer);
    let with_token = [("authorization", viewer.as_str())];
    for path in [
        "/api/v1/tables",
        "/api/v1/tables/things/tail",
        "/healthz",
        "/metrics",
    ] {
        let (bare, _) = scene.call("GET", path, &[], Body::empty()).await;
        assert_eq!(bare, 401, "{path}");
    }
    let (status, _) = scene
        .call("GET", "/api/v1/tables", &with_token, Body::empty())
        .await;
    assert_eq!(status, 200);
    let info = async |headers: &[(&str, &str)]| -> serde_json::Value {
        let (_, text) = scene.call("GET", "/api/v1/info", headers, Body::empty()).await;
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(info(&[]).await["needs_token"], true);
    // Readiness is public; its reasons require read access.
    for (headers, expected) in [
        (&[][..], "details require a token"),
        (&with_token[..], "as the test says"),
    ] {
        let (status, text) = scene.call("GET", "/readyz", headers, Body::empty()).await;
        assert_eq!(status, 200);
        let ready: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(ready["checks"][0]["name"], "broker");
        let detail = ready["checks"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{detail}");
    }
}
