//! Plugins: WebAssembly components that turn messages into rows. This is the only module that names wasmtime,
//! wasmtime_wasi and wit_component.
//!
//! [`Loader`] makes a [`Plugin`] from bytes: outline, compile (or cache), link, trial. [`Plugin::projector`] makes a
//! [`Projector`], which one projection owns. Here is everything that keeps a guest in its place: its limits, the
//! clock that interrupts it, the search for a message that it cannot bear, the check of what it answers. Where plugins come
//! from, what their rows are for and what happens to rejected messages is decided elsewhere.

// The guests of integration tests, which unit tests share, name this crate from outside.
#[cfg(test)]
extern crate self as lantern_plugin;

mod answer;
mod bindings;
mod build;
mod cache;
mod clock;
mod compile;
mod config;
mod digest;
mod engine;
mod instance;
mod isolate;
mod limits;
mod loader;
mod metadata;
mod outline;
mod pace;
mod projector;
mod wasi;

pub use bindings::Contract;
pub use build::{BuildError, Built, Compiled, EncodeError, Speed, Target, build, compile, encode, write};
pub use compile::{COMPILE_SUBCOMMAND, CompileError, compile_child_main};
pub use config::{Compiler, EngineConfig, Limits};
pub use digest::{Digest, DigestError};
pub use loader::{Facts, LoadError, Loader, LoaderError, Plugin};
pub use metadata::{Metadata, MetadataError, add as add_metadata, read as read_metadata};
pub use outline::{OutlineError, imports};
pub use projector::{Fault, NativeGuest, Projected, Projector};
