//! Tests where a request may come from: names of this machine, and pages of this host.

use super::*;

#[tokio::test]
async fn only_local_hosts_and_own_pages_are_accepted() {
    let database = Database::new();
    let api = router(database.state().await);
    type Case<'a> = (&'a [(&'a str, &'a str)], u16);
    let cases: &[Case] = &[
        (&[("host", "localhost")], 200),
        (&[("host", "LOCALHOST:1")], 200),
        (&[("host", "127.0.0.2:7070")], 200),
        (&[("host", "[::1]")], 200),
        (&[("host", "evil.example")], 421),
        (&[("host", "localhost.evil.example")], 421),
        (&[("host", "127.0.0.1.evil.example")], 421),
        (&[("host", "evil@localhost")], 421),
        (&[("host", "192.168.0.1")], 421),
        (&[("host", "")], 421),
        (&[("host", "a b")], 421),
        (&[("host", "localhost"), ("host", "evil.example")], 400),
        (&[], 400),
        (
            &[("host", "localhost:7070"), ("origin", "http://localhost:7070")],
            200,
        ),
        (
            &[("host", "localhost:7070"), ("origin", "http://localhost:3000")],
            403,
        ),
        (
            &[("host", "localhost:7070"), ("origin", "https://evil.example")],
            403,
        ),
        (&[("host", "localhost:7070"), ("origin", "null")], 403),
        (&[("host", "localhost"), ("sec-fetch-site", "same-origin")], 200),
        (&[("host", "localhost"), ("sec-fetch-site", "none")], 200),
        (&[("host", "localhost"), ("sec-fetch-site", "cross-site")], 403),
        (&[("host", "localhost"), ("sec-fetch-site", "same-site")], 403),
        (
            &[
                ("host", "localhost"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
            ],
            200,
        ),
        (&[("host", "localhost"), ("content-length", "1073741824")], 413),
    ];
    for (headers, expected) in cases {
        let mut request = Request::get("/api/v1/projections");
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        let (response, body) = send(&api, request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status().as_u16(), *expected, "{headers:?}: {body}");
        assert!(!response.headers().contains_key("access-control-allow-origin"));
    }
    let proxied = Request::get("http://evil.example/")
        .header("host", "localhost")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        send(&api, proxied).await.0.status(),
        StatusCode::MISDIRECTED_REQUEST
    );

    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for (path, status) in [("/", 405), ("/api/v1/tables", 405), ("/nothing", 404)] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "localhost")
                .body(Body::empty());
            let (response, body) = send(&api, request.unwrap()).await;
            assert_eq!(response.status(), status, "{method} {path}: {body}");
            assert_eq!(response.headers().contains_key("allow"), status == 405);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
    }
    let (response, _) = send(
        &api,
        Request::put("/api/v1/tokens")
            .header("host", "localhost")
            .body(Body::empty())
            .unwrap(),
    )
    .await;
    assert_eq!(response.headers()["allow"], "GET,HEAD,POST");
}
