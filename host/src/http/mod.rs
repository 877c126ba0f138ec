//! The host's face to programs and browsers: health, figures and the API. It asks the store's reader and the
//! projections' status; whoever asks for a change has to be an operator (`access`, `gate`), and every change stands in
//! the audit (`change`). The only module that knows axum and hyper.

mod access;
mod assets;
mod audit;
mod change;
mod csv;
mod cursor;
mod dead_letters;
mod gate;
mod guard;
mod health;
mod info;
mod live;
mod parameters;
mod plugins;
mod problem;
mod projections;
mod rebuilds;
mod records;
mod routes;
mod server;
mod sql;
mod tables;
mod tokens;
mod trials;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;

pub use access::{Access, AccessError, Config, LOCAL_TOKEN, Principal, Role, TokenText};
pub use change::{AuditNote, Change};
pub use gate::Needs;
pub use health::Check;
pub use live::Live;
pub use plugins::SIGNATURE_HEADER;
pub use routes::Route;
pub use server::{Limits, serve, serve_with};

use routes::Routes;

use crate::batch::Timestamp;
use crate::lifecycle::Lifecycle;
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
    /// The plugins, to be asked and changed.
    pub lifecycle: Lifecycle,
    /// What is kept for those who watch.
    pub live: Live,
    /// When the host started.
    pub started: Timestamp,
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

fn routes(state: &State) -> Routes {
    let pages = assets::PAGES
        .into_iter()
        .fold(Routes::default(), |routes, path| routes.open(path, assets::page));
    let routes = pages
        .open("/livez", health::live)
        .open("/readyz", health::ready)
        .open("/api/v1/info", info::info)
        .open("/assets/{file}", assets::file)
        .read("/healthz", health::ready)
        .read("/metrics", health::metrics)
        .read("/api/v1/projections", projections::list)
        .read("/api/v1/projections/history", projections::history)
        .read("/api/v1/gaps", records::gaps)
        .read("/api/v1/ledger", records::ledger)
        .read("/api/v1/whoami", tokens::who_am_i)
        .read("/api/v1/audit", audit::list)
        .read_as_operator("/api/v1/tokens", tokens::list)
        .read_as_operator("/api/v1/sql", sql::sql)
        .change(Change::post("/api/v1/tokens", "token.create"), tokens::create)
        .change(
            Change::delete("/api/v1/tokens/{name}", "token.revoke"),
            tokens::revoke,
        );
    let routes = table_routes(routes);
    trial_routes(rebuild_routes(dead_letter_routes(plugin_routes(routes, state))))
}

fn table_routes(routes: Routes) -> Routes {
    routes
        .read("/api/v1/tables", tables::list)
        .read("/api/v1/tables/{table}", tables::one)
        .read("/api/v1/tables/{table}/rows", tables::rows)
        .read("/api/v1/tables/{table}/rows/{row}", tables::detail)
        .read("/api/v1/tables/{table}/count", tables::count)
        .read("/api/v1/tables/{table}/facets", tables::facets)
        .read("/api/v1/tables/{table}/histogram", tables::histogram)
        .read("/api/v1/tables/{table}/series", tables::series)
        .read("/api/v1/tables/{table}/tail", tables::tail)
        .read("/api/v1/tables/{table}/export", tables::export)
}

fn rebuild_routes(routes: Routes) -> Routes {
    routes
        .read("/api/v1/rebuilds", rebuilds::list)
        .read("/api/v1/rebuilds/{id}", rebuilds::show)
        .read("/api/v1/rebuilds/{id}/events", rebuilds::events)
        .change(
            Change::post("/api/v1/plugins/{plugin}/rebuild", "rebuild.begin").within(plugins::INSTALL_TIME),
            rebuilds::begin,
        )
        .change(
            Change::delete("/api/v1/rebuilds/{id}", "rebuild.cancel"),
            rebuilds::cancel,
        )
}

fn trial_routes(routes: Routes) -> Routes {
    routes
        .read("/api/v1/trace", trials::trace)
        .read("/api/v1/plugins/{plugin}/written", trials::written)
        .change(
            Change::post("/api/v1/plugins/{plugin}/canary", "plugin.canary").within(trials::TRIAL_TIME),
            trials::canary,
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/reproject", "plugin.reproject").within(trials::TRIAL_TIME),
            trials::reproject,
        )
}

fn plugin_routes(routes: Routes, state: &State) -> Routes {
    let component_bytes_max = state.lifecycle.module_bytes_max() as u64;
    routes
        .read("/api/v1/plugins", plugins::list)
        .read("/api/v1/plugins/{plugin}", plugins::show)
        .read("/api/v1/plugins/{plugin}/differences", plugins::differences)
        .read("/api/v1/plugins/{plugin}/description", plugins::description)
        .read_as_operator("/api/v1/plugins/{plugin}/component", plugins::component)
        .read("/api/v1/plugins/{plugin}/settings", plugins::settings)
        .read("/api/v1/plugin-files", plugins::refusals)
        .change(
            Change::post("/api/v1/plugins", "plugin.install")
                .with_component(component_bytes_max)
                .within(plugins::INSTALL_TIME),
            plugins::install,
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/activate", "plugin.activate")
                .within(plugins::INSTALL_TIME),
            plugins::activate,
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/rollback", "plugin.rollback")
                .within(plugins::INSTALL_TIME),
            plugins::rollback,
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/pause", "plugin.pause"),
            plugins::pause,
        )
        .change(
            Change::post("/api/v1/plugins/{plugin}/resume", "plugin.resume"),
            plugins::resume,
        )
        .change(
            Change::put("/api/v1/plugins/{plugin}/settings", "plugin.set"),
            plugins::change_settings,
        )
        .change(
            Change::delete("/api/v1/plugins/{plugin}", "plugin.remove"),
            plugins::remove,
        )
}

fn dead_letter_routes(routes: Routes) -> Routes {
    routes
        .read("/api/v1/dead-letters", dead_letters::list)
        .read("/api/v1/dead-letters/reasons", dead_letters::reasons)
        .read("/api/v1/dead-letters/export", dead_letters::export)
        .read("/api/v1/dead-letters/{id}", dead_letters::one)
        .change(
            Change::post("/api/v1/dead-letters/retry", "dead-letters.retry").within(dead_letters::RETRY_TIME),
            dead_letters::retry,
        )
        .change(
            Change::post("/api/v1/dead-letters/discard", "dead-letters.discard"),
            dead_letters::discard,
        )
}

/// From the inside out: panics, and what every answer carries. Who may ask is before each route.
fn protected(routes: Router) -> Router {
    routes
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(middleware::from_fn(guard::finish))
}
