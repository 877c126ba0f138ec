//! The router: the table of routes, and the layers that every request and response passes.

use std::sync::Arc;

use axum::middleware;
use axum::{Extension, Router};
use tower_http::catch_panic::CatchPanicLayer;

use super::openapi::serve::Document;
use super::routes::{Route, Routes, host, plugins, records, tables};
use super::state::State;
use super::{guard, problem};

/// All routes with their layers.
pub fn router(state: State) -> Router {
    let routes = all_routes(&state);
    let document = Arc::new(Document::of(routes.table()));
    let routes = routes.into_router(&state.access).with_state(state);
    protected(routes.layer(Extension(document)))
}

/// All routes with their roles.
pub fn route_table(state: &State) -> Vec<Route> {
    all_routes(state).table()
}

fn all_routes(state: &State) -> Routes {
    all(state.lifecycle.module_bytes_max() as u64)
}

/// Adds the outer layers: handling of panics, then common response headers. Access control is in front of each route.
fn protected(routes: Router) -> Router {
    routes
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(middleware::from_fn(guard::finish))
}

/// The complete table. Uploaded components are limited to `component_bytes_max`.
pub(super) fn all(component_bytes_max: u64) -> Routes {
    let routes = records::routes(tables::routes(host::routes(Routes::default())));
    plugins::routes(routes, component_bytes_max)
}
