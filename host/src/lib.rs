//! Lantern: a host that projects event streams into tables through WebAssembly plugins.
//!
//! Table of contents. The way of a message is `broker` -> `projection` (which asks `plugin`) -> `store`;
//! ARCHITECTURE.md draws it.

// What integration tests share with unit tests names this crate from outside.
#[cfg(test)]
extern crate self as lantern;

pub mod app;
pub mod batch;
pub mod broker;
pub mod cli;
pub mod config;
pub mod http;
pub mod identity;
pub mod lifecycle;
pub mod plugin;
pub mod private_files;
pub mod projection;
pub mod schema;
pub mod settings;
pub mod signature;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod workshop;
