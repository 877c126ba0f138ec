//! A plugin whose manifest differs between calls and instances.

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../src/bindings.rs"]
mod bindings;

use std::sync::atomic::{AtomicUsize, Ordering};

use bindings::{ColumnType, Guest, Manifest, Message, Outcome, column, manifest, skip_all, table, write};

#[cfg(target_arch = "wasm32")]
bindings::export!(UnsteadyDescribe with_types_in bindings);

/// The plugin.
pub struct UnsteadyDescribe;

static CALLS: AtomicUsize = AtomicUsize::new(0);

impl Guest for UnsteadyDescribe {
    fn describe() -> Manifest {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed);
        let name = format!("evil_{calls}");
        let columns = vec![column("n", ColumnType::Integer, true)];
        manifest(
            "unsteady-describe",
            vec![table(&name, columns)],
            vec![write(&name, &["n"])],
        )
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        skip_all(&messages)
    }
}
