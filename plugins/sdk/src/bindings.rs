//! Generated Rust for the contract. Only this module uses wit-bindgen, and plugins use only the types that `lib.rs` exports.

#![allow(
    missing_docs,
    reason = "the contract in wit/ documents the types; the rest is glue code"
)]

wit_bindgen::generate!({
    path: "../../wit/projection@0.1.0",
    world: "plugin",
    additional_derives: [PartialEq],
    pub_export_macro: true,
    export_macro_name: "export_projector",
    default_bindings_module: "lantern_sdk::bindings",
});
