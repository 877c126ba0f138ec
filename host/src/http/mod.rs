//! The host's face to programs and browsers: health, figures and the read-only API. It asks the store's reader
//! and the projections' status, and cannot change anything. The only module that knows axum and hyper.

mod cursor;
mod guard;
mod health;
mod index;
mod parameters;
mod problem;
mod projections;
mod records;
mod rows;
mod server;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;

pub use health::Check;
pub use server::{Limits, serve, serve_with};

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
}

/// All routes, with everything that stands before them.
pub fn router(state: State) -> Router {
    let routes = Router::new()
        .route("/", get(index::page))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/healthz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/projections", get(projections::list))
        .route("/api/v1/tables", get(rows::tables))
        .route("/api/v1/tables/{table}/rows", get(rows::rows))
        .route("/api/v1/dead-letters", get(records::dead_letters))
        .route("/api/v1/gaps", get(records::gaps))
        .route("/api/v1/ledger", get(records::ledger))
        .fallback(problem::no_such_path)
        .with_state(state);
    protected(routes)
}

/// From the inside out: the time limit, who may ask, panics, and what every answer carries.
fn protected(routes: Router) -> Router {
    routes
        .layer(middleware::from_fn(guard::limit_time))
        .layer(middleware::from_fn(guard::admit))
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(middleware::from_fn(guard::finish))
}
