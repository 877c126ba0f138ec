//! The HTTP server: the API, health, metrics and the dashboard. Reads go to the store's reader and the status of
//! projections. Changes require the role operator (`access`, `gate`) and are written to the audit (`change`). The only
//! crate that uses axum and hyper.

mod access;
mod assets;
mod audit;
mod budget;
mod change;
mod csv;
mod cursor;
mod dead_letters;
mod doc;
mod forget;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod guard;
mod health;
mod info;
mod items;
mod live;
mod nodes;
mod openapi;
mod parameters;
mod pieces;
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
pub mod views;

pub use access::{Access, AccessError, Config, LOCAL_TOKEN, LOCAL_TOKEN_OF_NODE, Principal, Role, TokenText};
pub use budget::{ANSWER_BYTES_DEFAULT, Peer};
pub use change::{AuditNote, Change};
pub use forward::Forwarding;
pub use gate::Needs;
pub use lantern_api::Check;
pub use live::Live;
pub use plugins::SIGNATURE_HEADER;
pub use router::{route_table, router};
pub use routes::Route;
pub use server::{Limits, Threads, serve_with};
pub use state::{Health, State};
