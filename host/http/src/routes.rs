//! The table of routes: each with who may use it, and nothing reachable that is not in it.
//!
//! ```text
//! Routes::default()
//!     .page("/", page)                                    everybody; no part of the API
//!     .open("/livez", live, doc)                          everybody
//!     .read("/api/v1/tables", tables, doc)                a viewer; on the loopback interface everybody
//!     .read_as_operator("/api/v1/tokens", "token.list", list, doc)    an operator, recorded in the audit
//!     .change(Change::delete("/api/v1/tokens/{name}", "token.revoke"), revoke, doc)
//! ```
//!
//! A change needs an operator, comes from no foreign page, has a body of the right type and size, and stands in the
//! audit: see [`Change`] for what can be said of one. A test sends every route of the table what has to be refused.
//! The last argument is what the route says of itself, of which `openapi` makes the API's document.
//!
//! The modules below are the table itself, a part in each; `router` joins them.

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

/// A route as the table has it.
#[derive(Clone, Debug)]
pub struct Route {
    /// What it answers to; GET stands for HEAD as well.
    pub method: Method,
    /// Its path, with parameters in braces.
    pub path: &'static str,
    /// Who may use it.
    pub needs: Needs,
    /// What the audit calls it; none for a read.
    pub action: Option<&'static str>,
    /// What the audit calls a read with a token; none for a read that is not recorded.
    pub recorded: Option<&'static str>,
    /// What it says of itself; none for what is no part of the API.
    pub(super) doc: Option<Doc>,
}

/// Collects the routes.
#[derive(Default)]
pub struct Routes(Vec<(Route, Option<Change>, MethodRouter<State>)>);

impl Routes {
    /// Something for people's eyes, for everybody who can connect: no part of the API.
    pub fn page<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        self.add_read(path, Needs::Nothing, None, get(handler), None)
    }

    /// A read for everybody who can connect.
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

    /// A read for viewers that takes much at once, such as an export. The audit has it as `action` where a token is used.
    pub fn read_recorded<H, T>(self, path: &'static str, action: &'static str, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        self.add_read(path, Needs::Viewer, Some(action), get(handler), Some(doc))
    }

    /// A read for operators, which the audit has as `action`. Its handler can take `AuditNote`.
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

    /// Something that changes. Its handler can take `Operator`, `AuditNote` and, last, `Input` or `Bytes`.
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

    /// The router, with a gate before each route.
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
        let elsewhere = gate(Needs::Viewer, None, None);
        let mut router = Router::new();
        for (route, change, handler) in self.0 {
            router = router.route(
                route.path,
                handler.route_layer(gate(route.needs, change, route.recorded)),
            );
        }
        router
            .method_not_allowed_fallback(problem::no_such_method.layer(elsewhere.clone()))
            .fallback(assets::elsewhere.layer(elsewhere))
            // The gate has limits of its own, which differ from route to route.
            .layer(DefaultBodyLimit::disable())
    }
}
