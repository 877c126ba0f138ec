//! Protection against requests of foreign web pages, and common response headers.
//!
//! A web page that the operator visits can send requests to a server on the operator's machine. It cannot choose `Host`
//! (except by DNS rebinding, with a name that resolves to this machine), and it cannot hide `Origin` and
//! `Sec-Fetch-Site`. The guard checks these three headers.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::assets::{self, OfPage};
use super::problem::Problem;

/// Adds the common response headers and the body of errors.
pub async fn finish(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem.into_body(&uri);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let (policy, caching) = match response.extensions_mut().remove::<OfPage>() {
        Some(page) => (assets::CONTENT_SECURITY_POLICY, page.caching),
        // Data loads no resources.
        None => (
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "no-store",
        ),
    };
    let every: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (header::CACHE_CONTROL, caching),
    ];
    for (name, value) in every {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Kind of host name that a request uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A local name of this machine, which only programs on this machine use for the host.
    Machine,
    /// A name from the setting `http.hosts`. The request may come from anywhere, through a proxy.
    Host,
}

/// The kind of name that the request uses; an error if it is not a name of this host. `hosts` are lowercase.
pub fn named(request: &Request, hosts: &[String]) -> Result<Named, Problem> {
    let mut all = request.headers().get_all(header::HOST).iter();
    let in_header = match (all.next(), all.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        _ => {
            return Err(Problem::bad_request(
                "a request must have exactly one Host header",
            ));
        }
    };
    // A request in absolute form names the host twice; the name in the request line takes precedence.
    let in_path = request.uri().authority();
    let names = [in_header.as_ref(), in_path.or(in_header.as_ref())].map(|name| name_of(name?, hosts));
    match names {
        [Some(Named::Machine), Some(Named::Machine)] => Ok(Named::Machine),
        [Some(_), Some(_)] => Ok(Named::Host),
        _ => Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong-host",
            "The Host header does not name this host",
            "use localhost, 127.0.0.1, [::1] or a name from the setting http.hosts",
        )),
    }
}

/// `localhost` and loopback addresses, with any port, always name this machine. Another name that resolves to this
/// machine could be DNS rebinding, so only names from the setting are accepted.
fn name_of(authority: &Authority, hosts: &[String]) -> Option<Named> {
    let host = authority.host();
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let is_machine = host.eq_ignore_ascii_case("localhost")
        || literal
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    if authority.as_str().contains('@') {
        None
    } else if is_machine {
        Some(Named::Machine)
    } else {
        let listed = hosts.iter().any(|listed| literal.eq_ignore_ascii_case(listed));
        listed.then_some(Named::Host)
    }
}

/// Rejects requests that a page of another origin sent.
pub fn own_page(request: &Request, named: Named) -> Result<(), Problem> {
    let headers = request.headers();
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let foreign_origin = text(header::ORIGIN).is_some_and(|origin| {
        // The host itself has no TLS: https means a proxy, and then the request uses a configured name.
        let authority = match (origin.split_once("://"), named) {
            (Some(("http", authority)), _) | (Some(("https", authority)), Named::Host) => authority,
            _ => return true,
        };
        // Another port of this machine is another program; its pages are foreign too.
        text(header::HOST) != Some(authority)
    });
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let mode = text(HeaderName::from_static("sec-fetch-mode"));
    // A link on another page may lead here: the browser shows the response and the other page cannot read it. A form
    // submission is also a navigation, but not a read.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let followed_link = is_read && mode == Some("navigate");
    let foreign_site = matches!(site, Some("cross-site" | "same-site")) && !followed_link;
    if foreign_origin || foreign_site {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign-page",
            "Requests from other sites are rejected",
            "a page that this host did not serve sent the request",
        ));
    }
    Ok(())
}

/// The declared length of the body in bytes.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
