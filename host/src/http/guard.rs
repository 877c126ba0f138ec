//! What stands before and after every handler: who may ask, for how long, and what every answer carries.
//!
//! A web page that the operator visits can send requests to a server on his machine. It cannot choose the `Host`
//! (unless it has a name that resolves here, which is DNS rebinding), and it cannot hide `Origin` and
//! `Sec-Fetch-Site`. So those three are checked.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;

/// A read ends after two seconds and a page takes a few of them at worst. What is not done now never will be.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Nothing that the API takes has a body; a client that sends one is mistaken or hostile.
const BODY_BYTES_MAX: u64 = 64 * 1024;

/// Ends a request that takes too long.
pub async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::busy("the request took too long and was given up").into_response(),
    }
}

/// Refuses what is not a read by a program or a page of this host.
pub async fn admit(request: Request, next: Next) -> Response {
    match refusal(&request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

/// Adds what every answer carries, and gives problems their body.
pub async fn finish(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.into_body(&uri);
    }
    const EVERY: [(HeaderName, &str); 6] = [
        // No page of the host loads anything yet, and none may be framed.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in EVERY {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn refusal(request: &Request) -> Option<Problem> {
    wrong_host(request)
        .or_else(|| wrong_method(request.method()))
        .or_else(|| foreign_page(request.headers()))
        .or_else(|| too_large(request.headers()))
}

fn wrong_host(request: &Request) -> Option<Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        _ => return Some(Problem::bad_request("a request needs exactly one Host header")),
    };
    // A request to a proxy names the host a second time, and that one counts.
    let in_path = request.uri().authority();
    let ours = named.as_ref().is_some_and(is_this_machine) && in_path.is_none_or(is_this_machine);
    (!ours).then(|| {
        Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong-host",
            "This host does not answer to that name",
            "use localhost, 127.0.0.1 or [::1] as the host",
        )
    })
}

/// Whether an authority names this machine by itself: `localhost` or a loopback address, with any port. Other
/// names may resolve here as well, and that is how a web page would come in.
fn is_this_machine(authority: &Authority) -> bool {
    let host = authority.host();
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    !authority.as_str().contains('@')
        && (host.eq_ignore_ascii_case("localhost")
            || literal
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback()))
}

fn wrong_method(method: &Method) -> Option<Problem> {
    (!matches!(*method, Method::GET | Method::HEAD)).then(|| {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "read-only",
            "The API is read-only",
            format!("{method} is not possible here"),
        )
    })
}

fn foreign_page(headers: &HeaderMap) -> Option<Problem> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let origin = text(header::ORIGIN);
    let foreign_origin = origin.is_some_and(|origin| {
        let authority = origin.strip_prefix("http://").map(str::parse::<Authority>);
        // Another port of this machine is another program, and its pages are foreign too.
        !authority.is_some_and(|parsed| {
            parsed.is_ok_and(|authority| Some(authority.as_str()) == text(header::HOST))
        })
    });
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let mode = text(HeaderName::from_static("sec-fetch-mode"));
    // A link on another page may lead here: the answer is shown, and that page cannot read it.
    let foreign_site = matches!(site, Some("cross-site" | "same-site")) && mode != Some("navigate");
    (foreign_origin || foreign_site).then(|| {
        Problem::new(
            StatusCode::FORBIDDEN,
            "foreign-page",
            "Pages of other sites may not ask",
            "the request comes from a page that this host did not serve",
        )
    })
}

fn too_large(headers: &HeaderMap) -> Option<Problem> {
    let length = headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse::<u64>()
        .ok()?;
    (length > BODY_BYTES_MAX).then(|| {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "The request is too large",
            "a read has no body",
        )
    })
}
