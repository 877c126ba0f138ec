//! Serves the dashboard: the files that `web/` builds, embedded in the program, with headers for caching and security. They
//! contain no data and need no token; users enter their token on the page.
//!
//! A library for static files would bring its own router, which would bypass the table of routes.

use std::sync::LazyLock;

use axum::extract::{Path, Request};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::problem::{self, Problem};

/// Paths of the dashboard. Each serves the page, so that it can be opened, reloaded and shared.
pub const PAGES: [&str; 12] = [
    "/",
    "/tables/{table}",
    "/tables/{table}/charts",
    "/tables/{table}/live",
    "/timeline",
    "/dead-letters",
    "/gaps",
    "/plugins",
    "/plugins/{plugin}",
    "/audit",
    "/sql",
    "/sign-in",
];

/// The page loads resources only from this host, has no inline scripts, and cannot be framed.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types svelte-trusted-html";

/// A file of the dashboard.
struct File {
    path: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// Entity tags, by index in `FILES`.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |file: &File| {
        URL_SAFE_NO_PAD
            .encode(Sha256::digest(file.plain))
            .get(..22)
            .map(str::to_owned)
    };
    FILES.iter().map(|file| tag(file).unwrap_or_default()).collect()
});

/// Marks a response of the dashboard, which has different headers than the API.
#[derive(Clone, Copy, Debug)]
pub struct OfPage {
    /// Value of `Cache-Control`.
    pub caching: &'static str,
}

/// Replacement for the dashboard if it was not built.
const WITHOUT_PAGE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>Lantern</title>
<h1>Lantern</h1>
<p>Streams go in, tables come out.</p>
<p>This program was built without the dashboard. Building it requires Node 20.19 or later (<code>nodejs.org</code>).
In the repository, run:</p>
<pre>cargo xtask web
cargo build --release</pre>
<p>The API is available:</p>
<ul>
<li><a href=\"/api/v1/docs\">/api/v1/docs</a>: API reference
<li><a href=\"/readyz\">/readyz</a>: readiness, with every failed check
<li><a href=\"/livez\">/livez</a>: liveness
<li><a href=\"/metrics\">/metrics</a>: Prometheus metrics
<li><a href=\"/api/v1/projections\">/api/v1/projections</a>: sources and their progress
<li><a href=\"/api/v1/plugins\">/api/v1/plugins</a>: installed plugins and versions
<li><a href=\"/api/v1/tables\">/api/v1/tables</a>: tables; <code>/api/v1/tables/NAME/rows</code> lists rows
<li><a href=\"/api/v1/dead-letters\">/api/v1/dead-letters</a>: messages that the host could not project
<li><a href=\"/api/v1/gaps\">/api/v1/gaps</a>: messages that the stream lost before the host read them
<li><a href=\"/api/v1/ledger\">/api/v1/ledger</a>: which version handled which messages
</ul>
</html>
";

/// The page, for each of its paths; it routes on the client.
pub async fn page(headers: HeaderMap) -> Response {
    answer("index.html", &headers).unwrap_or_else(|| Html(WITHOUT_PAGE).into_response())
}

/// A file of the page. Its name contains a digest, so browsers may cache it forever.
pub async fn file(Path(file): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    answer(&format!("assets/{file}"), &headers).ok_or_else(|| {
        Problem::not_found("the dashboard has no such file; reload the page, it may be from an older version")
    })
}

/// Handles unknown paths: browsers receive the page, programs a problem.
pub async fn unknown_path(request: Request) -> Response {
    let headers = request.headers();
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let wants_page = request.method() == Method::GET
        && !request.uri().path().starts_with("/api/")
        && accepted.is_some_and(|accepted| accepted.contains("text/html"));
    match wants_page.then(|| answer("index.html", headers)).flatten() {
        Some(mut page) => {
            *page.status_mut() = StatusCode::NOT_FOUND;
            page
        }
        None => problem::no_such_path().await.into_response(),
    }
}

/// The file at `path` in an encoding that the browser accepts, or 304 if the browser has it.
fn answer(path: &str, headers: &HeaderMap) -> Option<Response> {
    let index = FILES.iter().position(|file| file.path == path)?;
    let file = &FILES[index];
    let accepts = |encoding: &str| {
        let all = headers.get_all(header::ACCEPT_ENCODING).iter();
        all.filter_map(|value| value.to_str().ok())
            .any(|value| accepts(value, encoding))
    };
    let (bytes, encoding) = match (file.brotli, file.gzip) {
        (Some(bytes), _) if accepts("br") => (bytes, "br"),
        (_, Some(bytes)) if accepts("gzip") => (bytes, "gzip"),
        _ => (file.plain, "identity"),
    };
    // Each encoding has its own entity tag.
    let tag = format!("\"{}-{encoding}\"", TAGS.get(index)?);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|known| has_tag(known, &tag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        bytes.into_response()
    };
    let out = response.headers_mut();
    out.remove(header::CONTENT_TYPE);
    set(out, header::ETAG, &tag);
    set(out, header::VARY, "accept-encoding");
    if !known {
        set(out, header::CONTENT_TYPE, content_type(path));
        if encoding != "identity" {
            set(out, header::CONTENT_ENCODING, encoding);
        }
    }
    let caching = match path.starts_with("assets/") {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    response.extensions_mut().insert(OfPage { caching });
    Some(response)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Encoding names and base64 are valid header values.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether `Accept-Encoding` accepts an encoding, that is, lists it with a weight other than zero.
fn accepts(value: &str, encoding: &str) -> bool {
    value.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        named && weight != Some(0.0)
    })
}

fn has_tag(known: &str, tag: &str) -> bool {
    known
        .split(',')
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("txt") => "text/plain; charset=utf-8",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_accepted_by_name_and_weight() {
        for (value, expected) in [
            ("br", true),
            ("gzip, deflate, BR;q=0.5", true),
            ("br;q=0", false),
            ("br;q=0.0, gzip", false),
            ("brotli", false),
            ("", false),
        ] {
            assert_eq!(accepts(value, "br"), expected, "{value}");
        }
    }

    #[test]
    fn entity_tags_match() {
        assert!(has_tag("\"a-br\"", "\"a-br\""));
        assert!(has_tag("W/\"x\", W/\"a-br\"", "\"a-br\""));
        assert!(has_tag("*", "\"a-br\""));
        assert!(!has_tag("\"a-gzip\"", "\"a-br\""));
    }

    #[tokio::test]
    async fn all_files_are_served_or_the_replacement_page_is() {
        let response = page(HeaderMap::new()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let built = response.extensions().get::<OfPage>().is_some();
        assert_eq!(built, !FILES.is_empty());
        for file in FILES {
            assert_ne!(
                content_type(file.path),
                "application/octet-stream",
                "{}",
                file.path
            );
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
            let first = answer(file.path, &headers).unwrap();
            assert_eq!(first.status(), StatusCode::OK);
            headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
            let second = answer(file.path, &headers).unwrap();
            assert_eq!(second.status(), StatusCode::NOT_MODIFIED, "{}", file.path);
        }
    }
}
