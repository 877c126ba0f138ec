//! Tests the OpenAPI document: it matches the file in the repository, contains every route, and describes each response
//! correctly. The tests send every read and every change and validate the responses.

use std::collections::BTreeSet;

use super::described::{Described, FILE};
use super::evolving;
use super::scene::{Scene, bearer, path_of};
use super::visits::{DAY, Visit, Visits};
use super::*;

/// Routes outside the API, which serve the dashboard.
const PAGES: [&str; 4] = [
    "/assets/{file}",
    "/api/v1/docs",
    "/api/v1/docs/style.css",
    "/api/v1/docs/icon.svg",
];

async fn served(api: &Router) -> String {
    let (status, text) = get(api, "/api/v1/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    text
}

async fn described(api: &Router) -> Described {
    Described::parse(&served(api).await)
}

/// Returns the status, the content type and the body. The body may be a component, which is not UTF-8.
async fn whole(api: &Router, request: Request<Body>) -> (u16, Option<String>, String) {
    let (response, body) = send(api, request).await;
    let kind = response.headers().get("content-type");
    let kind = kind.map(|kind| kind.to_str().unwrap().to_owned());
    (response.status().as_u16(), kind, body)
}

#[tokio::test]
async fn the_document_equals_the_one_in_the_repository() {
    let database = Database::new();
    let served = served(&router(database.state().await)).await;
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(FILE, &served).unwrap();
    }
    let kept = std::fs::read_to_string(FILE).unwrap();
    assert!(
        kept == served,
        "docs/openapi.json is not what the host serves. When the change is meant: \
         BLESS=1 cargo test -p lantern --test api openapi, then npm run types in web/"
    );
}

#[tokio::test]
async fn the_document_lists_exactly_the_routes() {
    let scene = Scene::near().await;
    let described = described(&scene.api).await;
    let is_page = |path: &str| {
        let of_dashboard =
            !path.starts_with("/api/") && !["/livez", "/readyz", "/healthz", "/metrics"].contains(&path);
        of_dashboard || PAGES.contains(&path)
    };
    let table: BTreeSet<String> = scene
        .routes
        .iter()
        .filter(|route| !is_page(route.path))
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert_eq!(described.operations(), table);
    for route in scene.routes.iter().filter(|route| !is_page(route.path)) {
        let operation = described.operation(route.method.as_str(), route.path);
        let role = match route.needs {
            lantern_http::Needs::Nothing => "none",
            lantern_http::Needs::Viewer => "viewer",
            lantern_http::Needs::Operator => "operator",
        };
        assert_eq!(operation["x-role"], role, "{}", route.path);
    }
}

/// Tests that the API rejects an unknown parameter with the list of valid ones.
#[tokio::test]
async fn documented_parameters_are_those_that_handlers_accept() {
    let scene = Scene::near().await;
    let described = described(&scene.api).await;
    let mut asked = 0;
    for route in &scene.routes {
        let Some(operation) = described.0["paths"].get(route.path) else {
            continue;
        };
        let operation = &operation[route.method.as_str().to_lowercase()];
        let mut path = path_of(route);
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str("unknown=1");
        let mut headers = vec![("authorization", bearer(&scene.operator))];
        if let Some(body) = operation["requestBody"]["content"].as_object() {
            headers.push(("content-type", body.keys().next().unwrap().clone()));
        }
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let (_, answer) = scene
            .call(route.method.as_str(), &path, &headers, Body::from("{}"))
            .await;
        let Some((_, list)) = answer.split_once("unknown parameter \\\"unknown\\\"; known parameters: ")
        else {
            // Health, metrics and changes without parameters ignore the query string.
            assert!(
                operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .all(|one| one["in"] != "query"),
                "{path}: {answer}"
            );
            continue;
        };
        let known: BTreeSet<&str> = list
            .split('"')
            .next()
            .unwrap()
            .split(", ")
            .filter(|name| !name.is_empty())
            .collect();
        let said = operation["parameters"].as_array().into_iter().flatten();
        let said: BTreeSet<&str> = said
            .filter(|one| one["in"] == "query")
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(said, known, "{} {}", route.method, route.path);
        asked += 1;
    }
    assert!(asked > 25, "{asked}");
}

#[tokio::test]
async fn every_read_matches_the_document() {
    let scene = Scene::near().await;
    let described = described(&scene.api).await;
    let mut refused = Vec::new();
    for route in scene.routes.iter().filter(|route| route.action.is_none()) {
        if described.0["paths"].get(route.path).is_none() || route.path.ends_with("component") {
            continue;
        }
        let path = path_of(route);
        for (path, token) in [
            (path.as_str(), true),
            (path.as_str(), false),
            (
                &format!("{path}{}bad=%ff", if path.contains('?') { '&' } else { '?' }),
                true,
            ),
        ] {
            let mut request = Request::get(path).header("host", "localhost:7070");
            if token {
                request = request.header("authorization", bearer(&scene.operator));
            }
            let (status, kind, body) = whole(&scene.api, request.body(Body::empty()).unwrap()).await;
            described.check("GET", route.path, status, kind.as_deref(), &body);
            if token && !path.contains("bad") && status != 200 {
                refused.push(format!("{} {status}", route.path));
            }
        }
    }
    // SQL queries are disabled here.
    assert_eq!(refused, ["/api/v1/sql 404"]);
}

#[tokio::test]
async fn rows_of_every_type_match_the_document() {
    let visits = Visits::new().await;
    let described = described(&visits.api).await;
    visits.add(&[
        Visit {
            pc: "a",
            at: Some(DAY),
            kind: Some("x".into()),
            ok: Some(true),
            bytes: Some(i64::MAX),
            load: Some(0.5),
            note: Some("note".into()),
            body: Some(vec![1, 2]),
            extra: Some("{\"a\":[1,null]}".into()),
        },
        Visit {
            pc: "b",
            ..Visit::default()
        },
    ]);
    let one = "/api/v1/tables/{table}";
    for (route, path) in [
        (one, ""),
        ("/api/v1/tables/{table}/rows", "/rows?limit=1"),
        (
            "/api/v1/tables/{table}/rows",
            "/rows?integers=text&filter=bytes>=1&filter=note~o&sort=-at&columns=pc,bytes",
        ),
        ("/api/v1/tables/{table}/rows/{row}", "/rows/1:1:0"),
        ("/api/v1/tables/{table}/count", "/count?filter=ok=true"),
        (
            "/api/v1/tables/{table}/facets",
            "/facets?columns=kind,ok,bytes,load,at",
        ),
        (
            "/api/v1/tables/{table}/facets",
            "/facets?columns=bytes&integers=text",
        ),
        ("/api/v1/tables/{table}/histogram", "/histogram"),
        (
            "/api/v1/tables/{table}/histogram",
            "/histogram?by=kind&buckets=10",
        ),
        ("/api/v1/tables/{table}/histogram", "/histogram?filter=pc=none"),
        (
            "/api/v1/tables/{table}/series",
            "/series?measures=load,bytes&by=kind",
        ),
        ("/api/v1/tables/{table}/series", "/series?op=count"),
        ("/api/v1/tables/{table}/export", "/export?format=csv"),
        ("/api/v1/tables/{table}/export", "/export?format=jsonl"),
        ("/api/v1/tables/{table}/rows", "/rows?filter=bytes=x"),
        ("/api/v1/tables/{table}/series", "/series?measures=pc"),
    ] {
        let path = format!("/api/v1/tables/visits{path}").replace('>', "%3E");
        let request = Request::get(&path)
            .header("host", "localhost")
            .body(Body::empty())
            .unwrap();
        let (status, kind, body) = whole(&visits.api, request).await;
        let expected = if path.contains("bytes=x") || path.ends_with("measures=pc") {
            400
        } else {
            200
        };
        assert_eq!(status, expected, "{path}: {body}");
        described.check("GET", route, status, kind.as_deref(), &body);
    }
}

#[tokio::test]
async fn sql_answers_match_the_document() {
    let scene = Scene::at(lantern_http::Config {
        sql: true,
        ..lantern_http::Config::loopback()
    })
    .await;
    let described = described(&scene.api).await;
    let token = bearer(&scene.operator);
    for (query, expected) in [
        ("SELECT%201,9223372036854775807,0.5,'a',x'00',NULL", 200),
        ("SELECT%201&format=csv", 200),
        ("DROP%20TABLE%20things", 400),
    ] {
        let request = Request::get(format!("/api/v1/sql?query={query}"))
            .header("host", "localhost")
            .header("authorization", &token);
        let (status, kind, body) = whole(&scene.api, request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, expected, "{body}");
        described.check("GET", "/api/v1/sql", status, kind.as_deref(), &body);
    }
}

/// A sequence of calls.
struct Acts {
    scene: Scene,
    described: Described,
    done: BTreeSet<String>,
}

impl Acts {
    /// Sends a call of the operator. Asserts that the status is `expected` and that the response matches the document.
    /// An accepted request body must match the document as well.
    async fn act(&mut self, method: &str, route: &str, path: &str, body: &[u8], expected: u16) {
        let is_component = body.starts_with(b"\0asm");
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", bearer(&self.scene.operator));
        if !body.is_empty() {
            let kind = if is_component {
                "application/wasm"
            } else {
                "application/json"
            };
            request = request.header("content-type", kind);
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let (status, kind, answer) = whole(&self.scene.api, request).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
        self.described
            .check(method, route, status, kind.as_deref(), &answer);
        if !body.is_empty() && !is_component && status < 300 {
            let takes = &self.described.operation(method, route)["requestBody"]["content"];
            let schema = takes["application/json"]["schema"]["$ref"].as_str().unwrap();
            let name = schema.rsplit('/').next().unwrap();
            self.described.is(name, &serde_json::from_slice(body).unwrap());
        }
        self.done.insert(format!("{method} {route}"));
    }

    /// Like [`Acts::act`], for a route without path parameters.
    async fn at(&mut self, method: &str, path: &str, body: &str, expected: u16) {
        let route = path.split('?').next().unwrap();
        self.act(method, route, path, body.as_bytes(), expected).await;
    }

    /// Like [`Acts::act`], for the plugin `evolving`.
    async fn of_plugin(&mut self, method: &str, rest: &str, body: &str, expected: u16) {
        let route = format!("/api/v1/plugins/{{plugin}}{}", rest.split('?').next().unwrap());
        let path = format!("/api/v1/plugins/evolving{rest}");
        self.act(method, &route, &path, body.as_bytes(), expected).await;
    }

    async fn with_plugins(&mut self) {
        let (a, b) = (evolving::version(b'a'), evolving::version(b'b'));
        let all = "/api/v1/plugins";
        self.act("POST", all, &format!("{all}?activate=true"), &a, 201)
            .await;
        self.act("POST", all, all, &b, 201).await;
        self.act("POST", all, all, b"\0asm nonsense", 422).await;
        for (what, body, expected) in [
            ("/activate", r#"{"digest":"1.1.0"}"#, 200),
            ("/activate", r#"{"digest":"9.9.9"}"#, 404),
            ("/activate", "[]", 400),
            ("/rollback", "", 200),
            ("/pause", r#"{"reason":"a look"}"#, 200),
            ("/resume", "", 200),
            // The host has no broker.
            ("/take-over", "", 503),
            ("/canary", r#"{"version":"1.1.0","messages":0}"#, 422),
            ("/reproject", r#"{"version":"1.0.0"}"#, 409),
            ("/rebuild", r#"{"rate":0}"#, 400),
        ] {
            self.of_plugin("POST", what, body, expected).await;
        }
        // No source waits for a decision.
        self.act(
            "POST",
            "/api/v1/plugins/{plugin}/sources/{source}/accept",
            "/api/v1/plugins/evolving/sources/evolve/accept",
            br#"{"history":"same"}"#,
            409,
        )
        .await;
        let settings = r#"{"changes":{"limits.memory":"64 MiB","limits.message_time":"500ms",
            "dead_letters.policy":"drop-oldest","rollback.enabled":false,"wasi":null}}"#;
        self.of_plugin("PUT", "/settings", settings, 200).await;
        self.of_plugin("PUT", "/settings", r#"{"changes":{"limits.memory":"1 B"}}"#, 422)
            .await;
        for what in ["", "/settings", "/differences?from=1.0.0&to=1.1.0"] {
            self.of_plugin("GET", what, "", 200).await;
        }
        for (table, body, expected) in [
            ("evolved", r#"{"enabled":true}"#, 200),
            ("evolved", r#"{"enabled":false}"#, 200),
            ("evolved", r#"{"on":true}"#, 400),
            ("no_such_table", r#"{"enabled":true}"#, 404),
        ] {
            let path = format!("/api/v1/tables/{table}/search");
            self.act(
                "PUT",
                "/api/v1/tables/{table}/search",
                &path,
                body.as_bytes(),
                expected,
            )
            .await;
        }
        for path in [
            all,
            "/api/v1/projections",
            "/api/v1/projections/history",
            "/api/v1/audit",
        ] {
            self.at("GET", path, "", 200).await;
        }
        self.at("GET", "/readyz", "", 503).await;
        self.of_plugin("DELETE", "?tables=drop", "", 200).await;
    }

    async fn with_records_and_tokens(&mut self) {
        let (retry, discard) = ("/api/v1/dead-letters/retry", "/api/v1/dead-letters/discard");
        self.at("POST", retry, r#"{"source":"nothing"}"#, 200).await;
        self.at("POST", discard, "", 400).await;
        self.at("POST", discard, r#"{"id":7}"#, 200).await;
        self.at("POST", discard, r#"{"id":7}"#, 409).await;
        self.act("DELETE", "/api/v1/rebuilds/{id}", "/api/v1/rebuilds/7", b"", 409)
            .await;
        for (body, expected) in [
            (r#"{"column":"no_such_column","value":"x"}"#, 409),
            (r#"{"column":"n","value":"x","tables":["no_such_table"]}"#, 404),
            (r#"{"column":"n"}"#, 400),
            (r#"{"outstanding":true}"#, 200),
        ] {
            self.at("POST", "/api/v1/forget", body, expected).await;
        }
        let (tokens, token) = (
            "/api/v1/tokens",
            r#"{"name":"ci","role":"viewer","expires_in_days":1}"#,
        );
        self.at("POST", tokens, token, 201).await;
        self.at("POST", tokens, token, 409).await;
        for expected in [204, 404] {
            self.act(
                "DELETE",
                "/api/v1/tokens/{name}",
                "/api/v1/tokens/ci",
                b"",
                expected,
            )
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_matches_the_document() {
    let scene = Scene::near().await;
    let mut acts = Acts {
        described: described(&scene.api).await,
        scene,
        done: BTreeSet::new(),
    };
    acts.with_plugins().await;
    acts.with_records_and_tokens().await;
    let changes = acts.scene.routes.iter().filter(|route| route.action.is_some());
    let changes: BTreeSet<String> = changes
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    let missing: Vec<_> = changes.difference(&acts.done).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn the_reference_page_lists_every_route_and_loads_only_from_the_host() {
    let database = Database::new();
    // On a non-loopback interface, every route with data requires a token.
    let config = lantern_http::Config {
        loopback: false,
        ..lantern_http::Config::loopback()
    };
    let api = router(database.state_at(config).await);
    let (response, page) = send(
        &api,
        Request::get("/api/v1/docs")
            .header("host", "localhost")
            .header("accept", "text/html")
            .body(Body::empty())
            .unwrap(),
    )
    .await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("style-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    for refused in ["<script", "<style", "style=", "onclick", "https:", "src="] {
        assert!(!page.contains(refused), "{refused}");
    }
    let described = described(&api).await;
    for operation in described.operations() {
        let (method, path) = operation.split_once(' ').unwrap();
        let id = described.operation(method, path)["operationId"].as_str().unwrap();
        assert!(page.contains(&format!("<article id=\"{id}\">")), "{operation}");
        assert!(page.contains(&format!("href=\"#{id}\"")), "{operation}");
    }
    // Every link within the page has a target.
    for link in page
        .split("href=\"#")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
    {
        assert!(page.contains(&format!("id=\"{link}\"")), "{link}");
    }
    let mut links = page
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    for expected in ["image/svg+xml", "text/css; charset=utf-8"] {
        let request = Request::get(links.next().unwrap())
            .header("host", "localhost")
            .body(Body::empty())
            .unwrap();
        let (response, _) = send(&api, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], expected);
    }
}
