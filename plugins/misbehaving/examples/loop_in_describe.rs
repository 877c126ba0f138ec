//! A plugin whose `describe` never returns.

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../src/bindings.rs"]
mod bindings;

use bindings::{Guest, Manifest, Message, Outcome, skip_all};

#[cfg(target_arch = "wasm32")]
bindings::export!(LoopInDescribe with_types_in bindings);

/// The plugin.
pub struct LoopInDescribe;

impl Guest for LoopInDescribe {
    fn describe() -> Manifest {
        loop {
            std::hint::black_box(());
        }
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        skip_all(&messages)
    }
}
