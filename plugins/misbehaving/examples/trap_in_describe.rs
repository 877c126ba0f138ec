//! A plugin that traps in `describe`.

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../src/bindings.rs"]
mod bindings;

use bindings::{Guest, Manifest, Message, Outcome, skip_all};

#[cfg(target_arch = "wasm32")]
bindings::export!(TrapInDescribe with_types_in bindings);

/// The plugin.
pub struct TrapInDescribe;

impl Guest for TrapInDescribe {
    fn describe() -> Manifest {
        std::process::abort()
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        skip_all(&messages)
    }
}
