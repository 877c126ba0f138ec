//! A plugin whose table has a name with a quote and a statement in it.

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../src/bindings.rs"]
mod bindings;

use bindings::{ColumnType, Guest, Manifest, Message, Outcome, column, manifest, skip_all, table, write};

#[cfg(target_arch = "wasm32")]
bindings::export!(BadTableName with_types_in bindings);

/// The plugin.
pub struct BadTableName;

impl Guest for BadTableName {
    fn describe() -> Manifest {
        let columns = || vec![column("n", ColumnType::Integer, true)];
        manifest(
            "bad-table-name",
            vec![table("evil\"; DROP TABLE obs_events; --", columns())],
            vec![write("evil\"; DROP TABLE obs_events; --", &["n"])],
        )
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        skip_all(&messages)
    }
}
