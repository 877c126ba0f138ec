//! Runs a plugin in an ordinary program: for unit tests, and to compare a component's speed with. It is the code
//! that the component runs, without the boundary around it.

use crate::declare;
use crate::{Message, Plugin};

pub use crate::bindings::exports::lantern::projection::projector::{
    Column, Guard, Index, Manifest, MergeRule, OnConflict, Origin, Outcome, Role, Row, Source, StreamSource,
    Table, UpdateRule, Write,
};
pub use crate::declare::{ColumnType, Merge};
pub use crate::reject::{Rejection, RejectionClass};
pub use crate::value::Value;

/// What the plugin says of itself.
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
    declare::manifest::<P>()
}

/// What becomes of `messages` of the source at index `source`: one outcome for each, in the same order.
///
/// # Panics
///
/// When the plugin has no such source, or its handler panics.
pub fn project<P: Plugin>(source: usize, messages: &[Message<'_>]) -> Vec<Outcome> {
    let source = &P::SOURCES[source];
    messages.iter().map(|message| source.handle(message)).collect()
}
