//! Plugins: WebAssembly components that turn messages into rows. The only crate that uses wasmtime, wasmtime_wasi and
//! wit_component.
//!
//! [`Loader`] creates a [`Plugin`] from bytes: outline, compile (or cache), link, trial. [`Plugin::projector`] creates
//! a [`Projector`], which one projection owns. This crate contains everything that restricts a guest: its limits, the
//! clock that interrupts it, the search for a message that makes it fail, the check of its answers. The origin of
//! plugins, the use of their rows and the treatment of rejected messages are decided elsewhere.

// Integration tests and unit tests share guests that refer to this crate by its name.
#[cfg(test)]
extern crate self as lantern_plugin;

mod answer;
mod bindings;
mod build;
mod cache;
mod call_size;
mod clock;
mod compile;
mod config;
mod digest;
mod engine;
mod guest_state;
mod instance;
mod interrupt;
mod isolate;
mod limits;
mod loader;
mod log;
mod metadata;
mod outline;
mod projector;
mod wasi;

pub use bindings::Contract;
pub use build::{BuildError, Built, Compiled, EncodeError, Speed, Target, build, compile, encode, write};
pub use compile::{COMPILE_SUBCOMMAND, CompileError, compile_child_main};
pub use config::{Compiler, EngineConfig, Limits};
pub use digest::{Digest, DigestError};
pub use interrupt::Interrupt;
pub use loader::{Facts, LoadError, Loader, LoaderCounters, LoaderError, Plugin};
pub use metadata::{Metadata, MetadataError, add as add_metadata, read as read_metadata};
pub use outline::{OutlineError, imports};
pub use projector::{Fault, NativeGuest, Projected, Projector};
