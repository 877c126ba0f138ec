//! Lantern: a host that projects event streams into tables through WebAssembly plugins.
//!
//! This crate wires the others together: configuration, start and stop, and the command line. A message passes
//! `lantern_broker` -> `lantern_projection` (which calls `lantern_plugin`) -> `lantern_store`; ARCHITECTURE.md draws it.

pub mod app;
pub mod cli;
pub mod config;
mod jobs;
