//! Tools for plugin authors, for the commands `lantern plugin new`, `test`, `run`, `dev` and `record`. A running host does not
//! use this crate.
//!
//! [`live`] and [`sample`] read messages, [`guess`] derives a table from them, [`scaffold`] creates a project with the SDK from
//! [`sdk`], [`project`] builds it, [`fixture`] reads and writes messages as files, and [`trial`] runs a component on them.

pub mod difference;
pub mod doctor;
pub mod fixture;
pub mod guess;
pub mod live;
pub mod metadata;
pub mod outcome;
pub mod project;
pub mod sample;
pub mod scaffold;
pub mod sdk;
pub mod trial;
pub mod watch;
