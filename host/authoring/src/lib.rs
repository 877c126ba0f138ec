//! What the author of a plugin works with: a project to begin with, a guess at a table from a sample, fixtures, and
//! runs of the real component on them. Nothing here is part of a running host; the command line drives it and prints
//! what it answers.
//!
//! [`live`], [`sample`] and [`guess`] look at messages, [`scaffold`] writes a project with the SDK from [`sdk`] beside it,
//! [`project`] builds one, [`fixture`] reads and writes messages as files, and [`trial`] runs a component on them.

pub mod about;
pub mod difference;
pub mod doctor;
pub mod fixture;
pub mod guess;
pub mod live;
pub mod outcome;
pub mod project;
pub mod sample;
pub mod scaffold;
pub mod sdk;
pub mod trial;
pub mod watch;
