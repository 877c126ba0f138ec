//! The host's face to programs and browsers: health, figures and the API. It asks the store's reader and the
//! projections' status; whoever asks for a change has to be an operator (`access`, `gate`), and every change stands in
//! the audit (`change`). The only module that knows axum and hyper.

mod access;
mod assets;
mod audit;
mod budget;
mod change;
mod csv;
mod cursor;
mod dead_letters;
mod forget;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod guard;
mod health;
mod info;
mod live;
mod openapi;
mod parameters;
mod plugins;
mod problem;
mod projections;
mod proof;
mod rebuilds;
mod records;
mod routes;
mod server;
mod sql;
mod tables;
mod tokens;
mod trials;

use std::sync::Arc;

use axum::middleware;
use axum::{Extension, Router};
use tower_http::catch_panic::CatchPanicLayer;

pub use access::{Access, AccessError, Config, LOCAL_TOKEN, Principal, Role, TokenText};
pub use budget::{ANSWER_BYTES_DEFAULT, Peer};
pub use change::{AuditNote, Change};
pub use gate::Needs;
pub use lantern_api::Check;
pub use live::Live;
pub use plugins::SIGNATURE_HEADER;
pub use routes::Route;
pub use server::{Limits, Threads, serve_with};

use openapi::Document;
use routes::Routes;

use lantern_lifecycle::Lifecycle;
use lantern_model::batch::Timestamp;
use lantern_model::status::Registry;
use lantern_store::Reader;
use lantern_telemetry::Metrics;
use lantern_trust::identity::Identity;

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
    /// The plugins, to be asked and changed.
    pub lifecycle: Lifecycle,
    /// What is kept for those who watch.
    pub live: Live,
    /// Proves to commands on this machine which host this is.
    pub identity: Identity,
    /// When the host started.
    pub started: Timestamp,
}

/// All routes, with everything that stands before them.
pub fn router(state: State) -> Router {
    let routes = routes(&state);
    let document = Arc::new(Document::of(routes.table()));
    let routes = routes.into_router(&state.access).with_state(state);
    protected(routes.layer(Extension(document)))
}

/// What there is, and who may use it.
pub fn route_table(state: &State) -> Vec<Route> {
    routes(state).table()
}

fn routes(state: &State) -> Routes {
    routes::all(state.lifecycle.module_bytes_max() as u64)
}

/// From the inside out: panics, and what every answer carries. Who may ask is before each route.
fn protected(routes: Router) -> Router {
    routes
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(middleware::from_fn(guard::finish))
}
