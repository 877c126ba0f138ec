//! No code: the documentation of this crate is `docs/plugins.md`, so that `cargo test --doc` runs its examples.
#![doc = include_str!("../../../docs/plugins.md")]
