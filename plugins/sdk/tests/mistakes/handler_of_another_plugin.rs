//! The handler is written for another plugin's rows.

use lantern_sdk::prelude::*;

lantern_sdk::export!(Doors);

struct Doors;
struct Windows;

impl Plugin for Doors {
    const SOURCES: Sources<Self> = &[Source::stream("opened", "DOORS", &["door.>"], opened)];
    const WRITES: Writes = &[];
}

fn opened(_: &Message<'_>, _: &mut Rows<Windows>) -> Result {
    Ok(())
}

fn main() {}
