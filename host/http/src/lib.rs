//! The host's face to programs and browsers: health, figures and the API. It asks the store's reader and the
//! projections' status; whoever asks for a change has to be an operator (`access`, `gate`), and every change stands in
//! the audit (`change`). The only module that knows axum and hyper.

mod access;
mod assets;
mod audit;
mod budget;
mod cells;
mod change;
mod csv;
mod cursor;
mod dead_letters;
mod doc;
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
mod room;
mod router;
mod routes;
mod server;
mod sql;
mod state;
mod tables;
mod tokens;
mod trials;

pub use access::{Access, AccessError, Config, LOCAL_TOKEN, Principal, Role, TokenText};
pub use budget::{ANSWER_BYTES_DEFAULT, Peer};
pub use change::{AuditNote, Change};
pub use gate::Needs;
pub use lantern_api::Check;
pub use live::Live;
pub use plugins::SIGNATURE_HEADER;
pub use router::{route_table, router};
pub use routes::Route;
pub use server::{Limits, Threads, serve_with};
pub use state::{Health, State};
