//! A plugin that declares one table twice.

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../src/bindings.rs"]
mod bindings;

use bindings::{ColumnType, Guest, Manifest, Message, Outcome, column, manifest, skip_all, table, write};

#[cfg(target_arch = "wasm32")]
bindings::export!(TwoTablesSameName with_types_in bindings);

/// The plugin.
pub struct TwoTablesSameName;

impl Guest for TwoTablesSameName {
    fn describe() -> Manifest {
        let columns = || vec![column("n", ColumnType::Integer, true)];
        manifest(
            "two-tables-same-name",
            vec![table("evil_twin", columns()), table("evil_twin", columns())],
            vec![write("evil_twin", &["n"])],
        )
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        skip_all(&messages)
    }
}
