//! No code of its own: its documentation is `docs/plugins.md`, so that `cargo test --doc` compiles and runs what is shown there.
#![doc = include_str!("../../../docs/plugins.md")]
