//! The contract as generated Rust. No other module of the SDK names wit-bindgen, and nobody outside the SDK names
//! this one: plugins see the types that `lib.rs` chooses from here.

#![allow(
    missing_docs,
    reason = "the contract in wit/ documents what it documents; the rest is glue"
)]

wit_bindgen::generate!({
    path: "../../wit/projection@0.1.0",
    world: "plugin",
    additional_derives: [PartialEq],
    pub_export_macro: true,
    export_macro_name: "export_projector",
    default_bindings_module: "lantern_sdk::bindings",
});
