//! A plugin whose instantiation never ends.

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../src/bindings.rs"]
mod bindings;

use bindings::{ColumnType, Guest, Manifest, Message, Outcome, column, manifest, skip_all, table, write};

#[cfg(target_arch = "wasm32")]
bindings::export!(LoopInStart with_types_in bindings);

/// The plugin.
pub struct LoopInStart;

/// The start code of a toolchain, which runs when the component is instantiated.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    loop {
        std::hint::black_box(());
    }
}

impl Guest for LoopInStart {
    fn describe() -> Manifest {
        let columns = || vec![column("n", ColumnType::Integer, true)];
        manifest(
            "loop-in-start",
            vec![table("loop_in_start", columns())],
            vec![write("loop_in_start", &["n"])],
        )
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        skip_all(&messages)
    }
}
