//! The rows name no table.

use lantern_sdk::prelude::*;

#[derive(Row)]
struct Opening {
    door: String,
}

fn main() {}
