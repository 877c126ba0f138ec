//! The table of routes with the role that each requires. Only routes in the table are reachable.
//!
//! ```text
//! Routes::default()
//!     .page("/", page)                                    no token; not part of the API
//!     .open("/livez", live, doc)                          no token
//!     .read("/api/v1/tables", tables, doc)                role viewer; no token over loopback
//!     .read_as_operator("/api/v1/tokens", "token.list", list, doc)    role operator, recorded in the audit
//!     .change(Change::delete("/api/v1/tokens/{name}", "token.revoke"), revoke, doc)
//! ```
//!
//! A change requires the role operator, a request that no page of another origin sent, and a body of the expected media
//! type and size; the audit records it (see [`Change`]). A test sends every route requests that it must reject. The last
//! argument describes the route for the OpenAPI document.
//!
//! Each module below contains one part of the table; `router` joins them.

pub(super) mod host;
pub(super) mod plugins;
pub(super) mod records;
pub(super) mod tables;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, get, on};

use super::access::Access;
use super::assets;
use super::change::Change;
use super::doc::Doc;
use super::gate::{self, Gate, Needs};
use super::problem;
use super::state::State;

/// A route of the table.
#[derive(Clone, Debug)]
pub struct Route {
    /// Method; GET includes HEAD.
    pub method: Method,
    /// Path, with parameters in braces.
    pub path: &'static str,
    /// Required role.
    pub needs: Needs,
    /// Action in the audit; none for a read.
    pub action: Option<&'static str>,
    /// Action of a recorded read in the audit; none for other reads.
    pub recorded: Option<&'static str>,
    /// Description; none for routes that are not part of the API.
    pub(super) doc: Option<Doc>,
}

/// Collects the routes.
#[derive(Default)]
pub struct Routes(Vec<(Route, Option<Change>, MethodRouter<State>)>);

impl Routes {
    /// A page that needs no token and is not part of the API.
    pub fn page<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        self.add_read(path, Needs::Nothing, None, get(handler), None)
    }

    /// A read that needs no token.
    pub fn open<H, T>(self, path: &'static str, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        self.add_read(path, Needs::Nothing, None, get(handler), Some(doc))
    }

    /// A read for viewers.
    pub fn read<H, T>(self, path: &'static str, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        self.add_read(path, Needs::Viewer, None, get(handler), Some(doc))
    }

    /// A read for viewers that returns much data, such as an export. With a token, the audit records it as `action`.
    pub fn read_recorded<H, T>(self, path: &'static str, action: &'static str, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        self.add_read(path, Needs::Viewer, Some(action), get(handler), Some(doc))
    }

    /// A read for operators, which the audit records as `action`. Its handler can take `AuditNote`.
    pub fn read_as_operator<H, T>(
        self,
        path: &'static str,
        action: &'static str,
        handler: H,
        doc: Doc,
    ) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        self.add_read(path, Needs::Operator, Some(action), get(handler), Some(doc))
    }

    /// A change. Its handler can take `Operator`, `AuditNote` and, as the last argument, `Input` or `Bytes`.
    pub fn change<H, T>(mut self, change: Change, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        let filter = match change.method {
            Method::PUT => MethodFilter::PUT,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::POST,
        };
        let route = Route {
            method: change.method.clone(),
            path: change.path,
            needs: Needs::Operator,
            action: Some(change.action),
            recorded: None,
            doc: Some(doc),
        };
        self.0.push((route, Some(change), on(filter, handler)));
        self
    }

    fn add_read(
        mut self,
        path: &'static str,
        needs: Needs,
        recorded: Option<&'static str>,
        handler: MethodRouter<State>,
        doc: Option<Doc>,
    ) -> Self {
        let route = Route {
            method: Method::GET,
            path,
            needs,
            action: None,
            recorded,
            doc,
        };
        self.0.push((route, None, handler));
        self
    }

    /// The table.
    pub fn table(&self) -> Vec<Route> {
        self.0.iter().map(|(route, ..)| route.clone()).collect()
    }

    /// The router, with a [`Gate`] in front of each route.
    pub(super) fn into_router(self, access: &Access) -> Router<State> {
        let gate = |needs, change, recorded| {
            let access = access.clone();
            from_fn_with_state(
                Gate {
                    access,
                    needs,
                    change,
                    recorded,
                },
                gate::pass,
            )
        };
        let fallback = gate(Needs::Viewer, None, None);
        let mut router = Router::new();
        for (route, change, handler) in self.0 {
            router = router.route(
                route.path,
                handler.route_layer(gate(route.needs, change, route.recorded)),
            );
        }
        router
            .method_not_allowed_fallback(problem::no_such_method.layer(fallback.clone()))
            .fallback(assets::unknown_path.layer(fallback))
            // The gate enforces limits per route.
            .layer(DefaultBodyLimit::disable())
    }
}
