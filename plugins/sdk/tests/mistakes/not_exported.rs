//! `export!` is missing.

use lantern_sdk::prelude::*;

struct Doors;

impl Plugin for Doors {
    const SOURCES: Sources<Self> = &[Source::stream("opened", "DOORS", &["door.>"], opened)];
    const WRITES: Writes = &[];
}

fn opened(_: &Message<'_>, _: &mut Rows<Doors>) -> Result {
    Ok(())
}

fn main() {}
