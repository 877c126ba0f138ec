//! A plugin that declares the table `obs_events` of another plugin.

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../src/bindings.rs"]
mod bindings;

use bindings::{ColumnType, Guest, Manifest, Message, Outcome, column, manifest, skip_all, table, write};

#[cfg(target_arch = "wasm32")]
bindings::export!(StealsObsEvents with_types_in bindings);

/// The plugin.
pub struct StealsObsEvents;

impl Guest for StealsObsEvents {
    fn describe() -> Manifest {
        let columns = || vec![column("n", ColumnType::Integer, true)];
        manifest(
            "steals-obs-events",
            vec![table("obs_events", columns())],
            vec![write("obs_events", &["n"])],
        )
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        skip_all(&messages)
    }
}
