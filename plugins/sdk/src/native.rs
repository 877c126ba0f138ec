//! Runs a plugin in a native program, for unit tests and performance comparisons: the code of the component without the
//! WebAssembly boundary.

use crate::manifest;
use crate::{Message, Plugin};

pub use crate::bindings::exports::lantern::projection::projector::{
    Column, Guard, Index, Manifest, MergeRule, OnConflict, Origin, Outcome, Role, Row, Source, StreamSource,
    Table, UpdateRule, Write,
};
pub use crate::declare::{ColumnType, Merge};
pub use crate::reject::{Rejection, RejectionClass};
pub use crate::value::Value;

/// The manifest of the plugin.
///
/// ```
/// # use lantern_sdk::prelude::*;
/// # lantern_sdk::export!(Empty);
/// # struct Empty;
/// # impl Plugin for Empty {
/// #     const SOURCES: Sources<Self> = &[Source::stream("all", "ALL", &[], |_, _| Ok(()))];
/// #     const WRITES: Writes = &[];
/// # }
/// let manifest = lantern_sdk::native::describe::<Empty>();
/// assert_eq!(manifest.sources[0].name, "all");
/// ```
pub fn describe<P: Plugin>() -> Manifest {
    manifest::of_plugin::<P>()
}

/// Processes `messages` of the source at index `source`, and returns one outcome per message in the same order.
///
/// # Panics
///
/// If the plugin has no such source, or its handler panics.
pub fn project<P: Plugin>(source: usize, messages: &[Message<'_>]) -> Vec<Outcome> {
    let source = &P::SOURCES[source];
    messages.iter().map(|message| source.handle(message)).collect()
}
