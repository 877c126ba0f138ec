//! Tests where the dashboard page is served, its headers, and that it does not shadow other routes, whether or not the
//! page was built. Browser tests cover its content.

use super::*;

async fn ask(api: &Router, path: &str, headers: &[(&str, &str)]) -> (Response<()>, String) {
    let mut request = Request::get(path).header("host", "localhost:7070");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(api, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn every_dashboard_address_returns_the_page() {
    let database = Database::new();
    let api = router(database.state().await);
    for path in [
        "/",
        "/tables/things",
        "/tables/nothing/live",
        "/timeline?entity=x",
        "/dead-letters",
        "/plugins/things",
        "/audit",
        "/sql",
        "/sign-in",
    ] {
        let (response, body) = ask(&api, path, &[("accept", "text/html")]).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(
            response.headers()["content-type"],
            "text/html; charset=utf-8",
            "{path}"
        );
        assert!(body.contains("<title>Lantern</title>"), "{path}: {body}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn the_page_never_replaces_an_api_response() {
    let database = Database::new();
    let api = router(database.state().await);
    let html = [("accept", "text/html,*/*")];
    let (response, _) = ask(&api, "/api/v1/nothing", &html).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let (response, _) = ask(&api, "/assets/nothing.js", &html).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    // The page itself handles an unknown address; other programs receive a problem.
    assert_eq!(
        ask(&api, "/nothing", &html).await.0.status(),
        StatusCode::NOT_FOUND
    );
    let (response, _) = ask(&api, "/nothing", &[]).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
#[cfg_attr(dashboard_built, ignore = "the dashboard is built")]
async fn a_host_without_its_dashboard_explains_how_to_build_it() {
    let database = Database::new();
    let api = router(database.state().await);
    let (response, body) = ask(&api, "/", &[]).await;
    assert_eq!(response.headers().get("etag"), None);
    assert!(body.contains("built without the dashboard"), "{body}");
}

#[tokio::test]
#[cfg_attr(
    not(dashboard_built),
    ignore = "the dashboard is not built: `cargo xtask test` builds it"
)]
async fn a_built_page_is_compressed_and_cached() {
    let database = Database::new();
    let api = router(database.state().await);
    let (response, body) = ask(&api, "/", &[]).await;
    let tag = response.headers()["etag"].to_str().unwrap();
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["vary"], "accept-encoding");
    let (again, _) = ask(&api, "/", &[("if-none-match", tag)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let script = body
        .split('"')
        .find(|word| word.starts_with("/assets/") && word.ends_with(".js"))
        .unwrap();
    let request = Request::get(script)
        .header("host", "localhost:7070")
        .header("accept-encoding", "gzip, br")
        .body(Body::empty())
        .unwrap();
    let response = tower::ServiceExt::oneshot(api.clone(), request).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "br");
    assert_eq!(
        response.headers()["content-type"],
        "text/javascript; charset=utf-8"
    );
    assert_eq!(
        response.headers()["cache-control"],
        "public, max-age=31536000, immutable"
    );
}
