//! The key names a column that is not there.

use lantern_sdk::prelude::*;

#[derive(Table, Row)]
#[table(name = "openings", primary_key = [door_id])]
struct Opening {
    door: String,
}

fn main() {}
