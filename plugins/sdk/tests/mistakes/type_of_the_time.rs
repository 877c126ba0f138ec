//! Text has no place on a time axis.

use lantern_sdk::prelude::*;

#[derive(Table, Row)]
#[table(name = "openings")]
struct Opening {
    #[column(time)]
    at: String,
}

fn main() {}
