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
//!     const SOURCES: Sources<Self> = &[Source::stream("logons", "LOGONS", &["logon.>"], logon)];
//!     const WRITES: Writes = &[Logon::WRITE];
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
//! but the host's log: for the lines that a plugin writes with [`info!`]
//! and its like, and for where it panicked.

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
#[cfg(feature = "regex")]
mod pattern;
mod plugin;
mod reject;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod timestamp;
mod tree;
mod unix;
mod value;

pub use lantern_sdk_macros::{Row, Table};
pub use message::Message;
#[cfg(feature = "regex")]
pub use pattern::{Parts, Pattern};
pub use plugin::{Handler, Package, Plugin, Row, Rows, Source, Sources, Table, Writes};
pub use reject::{OrReject, Rejection, RejectionClass, Result};
pub use timestamp::{NoTimestamp, Timestamp};
pub use tree::Tree;
pub use unix::{Unix, UnixMicros, UnixMillis, UnixNanos, UnixSeconds};
pub use value::{ColumnValue, Json, Value};

/// What nearly every plugin uses, for `use lantern_sdk::prelude::*`.
pub mod prelude {
    #[cfg(feature = "regex")]
    pub use crate::Pattern;
    pub use crate::declare::Write;
    pub use crate::{
        Json, Message, OrReject, Plugin, Rejection, Result, Row, Rows, Source, Sources, Table, Timestamp,
        Tree, UnixMicros, UnixMillis, UnixNanos, UnixSeconds, Writes,
    };
}
