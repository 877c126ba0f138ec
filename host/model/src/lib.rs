//! Plain data and its validation: messages, rows and values, the declarations of a plugin, the settings of a plugin,
//! and the status of projections. No I/O; depends on no other crate of the host.

pub mod batch;
pub mod schema;
pub mod settings;
pub mod status;
