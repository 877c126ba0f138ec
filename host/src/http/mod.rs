//! The host's face to programs and browsers: health, figures and the API. It asks the store's reader and the
//! projections' status; whoever asks for a change has to be an operator (`access`, `gate`), and every change stands in
//! the audit (`change`). The only module that knows axum and hyper.

mod access;
mod audit;
mod change;
mod cursor;
mod gate;
mod guard;
mod health;
mod index;
mod parameters;
mod problem;
mod projections;
mod records;
mod routes;
mod rows;
mod server;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;

pub use access::{Access, AccessError, Config, LOCAL_TOKEN, Principal, Role, TokenText};
pub use change::{AuditNote, Change};
pub use gate::Needs;
pub use health::Check;
pub use routes::Route;
pub use server::{Limits, serve, serve_with};

use routes::Routes;

use crate::status::Registry;
use crate::store::Reader;
use crate::telemetry::Metrics;

/// Answers the checks that the host as a whole has to pass: broker, database, disk. Called for each question after
/// readiness, so it only looks at what is known already and never waits.
pub type Health = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// What the answers are made of.
#[derive(Clone)]
pub struct State {
    /// The projections and what they say of themselves.
    pub projections: Registry,
    /// Answers questions to the database.
    pub reader: Reader,
    /// What the host as a whole has to pass.
    pub health: Health,
    /// The figures.
    pub metrics: Metrics,
    /// Who may ask for what.
    pub access: Access,
}

/// All routes, with everything that stands before them.
pub fn router(state: State) -> Router {
    let routes = routes(&state).into_router(&state.access);
    protected(routes.with_state(state))
}

/// What there is, and who may use it.
pub fn route_table(state: &State) -> Vec<Route> {
    routes(state).table()
}

fn routes(_state: &State) -> Routes {
    Routes::default()
        .open("/livez", health::live)
        .open("/readyz", health::ready)
        .read("/", index::page)
        .read("/healthz", health::ready)
        .read("/metrics", health::metrics)
        .read("/api/v1/projections", projections::list)
        .read("/api/v1/tables", rows::tables)
        .read("/api/v1/tables/{table}/rows", rows::rows)
        .read("/api/v1/dead-letters", records::dead_letters)
        .read("/api/v1/gaps", records::gaps)
        .read("/api/v1/ledger", records::ledger)
        .read("/api/v1/whoami", tokens::who_am_i)
        .read("/api/v1/audit", audit::list)
        .read_as_operator("/api/v1/tokens", tokens::list)
        .change(Change::post("/api/v1/tokens", "token.create"), tokens::create)
        .change(
            Change::delete("/api/v1/tokens/{name}", "token.revoke"),
            tokens::revoke,
        )
}

/// From the inside out: panics, and what every answer carries. Who may ask is before each route.
fn protected(routes: Router) -> Router {
    routes
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(middleware::from_fn(guard::finish))
}
