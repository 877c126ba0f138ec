//! Plain data and its validation: messages, rows and values, the identity of a row, the declarations of a plugin, their
//! limits, the settings of a plugin, the status of projections, the results of operations, and who performs an operation.
//! No I/O; depends on no other crate of the host.

pub mod actor;
pub mod batch;
pub mod identity;
pub mod limits;
pub mod metadata;
pub mod results;
pub mod schema;
pub mod settings;
pub mod status;
mod text;
mod timestamp;
pub mod value;
