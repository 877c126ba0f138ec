//! The SDK for Lantern plugins. A plugin converts the messages of a stream into rows of tables. This crate declares plugins in
//! plain Rust, and generates the exports of the WebAssembly component.
//!
//! A complete plugin:
//!
//! ```
//! use lantern_sdk::prelude::*;
//! use serde::Deserialize;
//!
//! lantern_sdk::export!(Logons);
//!
//! /// Logons by machine.
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
//!     rows.put(message.json::<Logon>()?); // on an error, the message becomes a dead letter and the stream continues
//!     Ok(())
//! }
//! ```
//!
//! Test a plugin like any Rust code with [`native`], or with fixture files with [`testing`]. Build it with
//! `lantern plugin build`, which compiles for `wasm32-unknown-unknown` and produces a component whose only import is the log of
//! the host, for [`info!`] and similar macros, and for panic messages.

// The derives refer to this crate by name, and its own tests use them.
#[cfg(test)]
extern crate self as lantern_sdk;

#[doc(hidden)]
pub mod bindings;
pub mod declare;
#[doc(hidden)]
pub mod guest;
pub mod log;
mod manifest;
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

/// The items that nearly every plugin uses.
pub mod prelude {
    #[cfg(feature = "regex")]
    pub use crate::Pattern;
    pub use crate::declare::Write;
    pub use crate::{
        Json, Message, OrReject, Plugin, Rejection, Result, Row, Rows, Source, Sources, Table, Timestamp,
        Tree, UnixMicros, UnixMillis, UnixNanos, UnixSeconds, Writes,
    };
}
