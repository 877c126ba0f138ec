//! Tests the plugin module against misbehaving components. Numbers like F4 refer to rows in the list of faults that the
//! host survives.

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
