//! What the author of a Lantern plugin depends on. A plugin turns the messages of a stream into rows of tables;
//! this crate lets it say so in plain Rust, and makes the WebAssembly component's exports from it.
//!
//! A whole plugin:
//!
//! ```
//! use lantern_sdk::prelude::*;
//! use serde::Deserialize;
//!
//! lantern_sdk::export!(Logons);
//!
//! /// Who logged on where.
//! struct Logons;
//!
//! impl Plugin for Logons {
//!     const SOURCES: &'static [Source<Self>] = &[Source::stream("logons", "LOGONS", &["logon.>"], logon)];
//!     const WRITES: &'static [Write] = &[Logon::WRITE];
//! }
//!
//! /// A logon.
//! #[derive(Deserialize, Table, Row)]
//! #[table(name = "logons", primary_key = [id], index = [host, at])]
//! #[row(on_conflict = ignore)]
//! struct Logon {
//!     id: String,
//!     /// The machine.
//!     #[column(entity)]
//!     host: String,
//!     #[column(time)]
//!     at: Timestamp,
//!     user: Option<String>,
//! }
//!
//! fn logon(message: &Message<'_>, rows: &mut Rows<Logons>) -> Result {
//!     rows.put(message.json::<Logon>()?); // an error makes the message a dead letter, and the stream goes on
//!     Ok(())
//! }
//! ```
//!
//! It is tested like any Rust, with [`native`], or with files beside it, with [`testing`]. It is built with
//! `lantern plugin build`, which compiles for `wasm32-unknown-unknown` and makes a component that imports nothing,
//! or only the host's log if it writes lines with [`info!`] and its like.

// The derives name this crate from outside, and its own tests use them from inside.
#[cfg(test)]
extern crate self as lantern_sdk;

#[doc(hidden)]
pub mod bindings;
pub mod declare;
#[doc(hidden)]
pub mod guest;
pub mod log;
mod message;
pub mod native;
mod plugin;
mod reject;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod timestamp;
mod value;

pub use lantern_sdk_macros::{Row, Table};
pub use message::Message;
pub use plugin::{Handler, Package, Plugin, Row, Rows, Source, Table};
pub use reject::{Rejection, RejectionClass, Result};
pub use timestamp::Timestamp;
pub use value::{ColumnValue, Json, Value};

/// What nearly every plugin uses, for `use lantern_sdk::prelude::*`.
pub mod prelude {
    pub use crate::declare::Write;
    pub use crate::{Json, Message, Plugin, Rejection, Result, Row, Rows, Source, Table, Timestamp};
}
