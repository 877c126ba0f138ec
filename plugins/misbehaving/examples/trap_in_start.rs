//! A plugin that traps while it is instantiated.

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../src/bindings.rs"]
mod bindings;

use bindings::{ColumnType, Guest, Manifest, Message, Outcome, column, manifest, skip_all, table, write};

#[cfg(target_arch = "wasm32")]
bindings::export!(TrapInStart with_types_in bindings);

/// The plugin.
pub struct TrapInStart;

/// The start code of a toolchain, which runs when the component is instantiated.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    std::process::abort()
}

impl Guest for TrapInStart {
    fn describe() -> Manifest {
        let columns = || vec![column("n", ColumnType::Integer, true)];
        manifest(
            "trap-in-start",
            vec![table("trap_in_start", columns())],
            vec![write("trap_in_start", &["n"])],
        )
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        skip_all(&messages)
    }
}
