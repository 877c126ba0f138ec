//! The plugin module against real components that were made to misbehave. Numbers like F4 are rows of the list of faults
//! that the host survives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as loudly as the test itself"
)]

mod calls;
mod guest;
mod loading;
mod misbehaving;
mod settings;
mod support;
mod wasi;
