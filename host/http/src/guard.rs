//! Where a request may come from, and what every answer carries.
//!
//! A web page that the operator visits can send requests to a server on his machine. It cannot choose the `Host`
//! (unless it has a name that resolves here, which is DNS rebinding), and it cannot hide `Origin` and
//! `Sec-Fetch-Site`. So those three are checked.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::assets::{self, OfPage};
use super::problem::Problem;

/// Adds what every answer carries, and gives problems their body.
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
        // Data loads nothing.
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

/// By which name a request calls the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// As this machine calls itself. Only a program on this machine means the host by it.
    Machine,
    /// By a name of the setting `http.hosts`. The request may have come through a proxy, from anywhere.
    Host,
}

/// By which name the request calls the host, when it is one of its own. `hosts` are in lower case.
pub fn named(request: &Request, hosts: &[String]) -> Result<Named, Problem> {
    let mut all = request.headers().get_all(header::HOST).iter();
    let in_header = match (all.next(), all.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        _ => return Err(Problem::bad_request("a request needs exactly one Host header")),
    };
    // A request to a proxy names the host a second time, and that one counts.
    let in_path = request.uri().authority();
    let names = [in_header.as_ref(), in_path.or(in_header.as_ref())].map(|name| name_of(name?, hosts));
    match names {
        [Some(Named::Machine), Some(Named::Machine)] => Ok(Named::Machine),
        [Some(_), Some(_)] => Ok(Named::Host),
        _ => Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong-host",
            "This host does not answer to that name",
            "use localhost, 127.0.0.1, [::1] or a name of the setting http.hosts as the host",
        )),
    }
}

/// `localhost` and loopback addresses, with any port, are this machine by themselves. Other names may resolve here as
/// well, and that is how a web page would come in; so only those that the operator has listed are ours.
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

/// Refuses what a page of somebody else sends.
pub fn own_page(request: &Request, named: Named) -> Result<(), Problem> {
    let headers = request.headers();
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let foreign_origin = text(header::ORIGIN).is_some_and(|origin| {
        // Only a proxy before the host speaks TLS, and then it is called by a name that was listed.
        let authority = match (origin.split_once("://"), named) {
            (Some(("http", authority)), _) | (Some(("https", authority)), Named::Host) => authority,
            _ => return true,
        };
        // Another port of this machine is another program, and its pages are foreign too.
        text(header::HOST) != Some(authority)
    });
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let mode = text(HeaderName::from_static("sec-fetch-mode"));
    // A link on another page may lead here: the answer is shown, and that page cannot read it. A form that is sent
    // from there is also a navigation, but no read.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let followed_link = is_read && mode == Some("navigate");
    let foreign_site = matches!(site, Some("cross-site" | "same-site")) && !followed_link;
    if foreign_origin || foreign_site {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign-page",
            "Pages of other sites may not ask",
            "the request comes from a page that this host did not serve",
        ));
    }
    Ok(())
}

/// The length that a request says its body has, in bytes.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
