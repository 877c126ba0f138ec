//! Plain data and its validation: messages, rows and values, what a plugin declares, what an operator may set for one plugin,
//! and what projections report. No I/O; depends on no other crate of the host.

pub mod batch;
pub mod schema;
pub mod settings;
pub mod status;
