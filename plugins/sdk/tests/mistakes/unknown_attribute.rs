//! `timestamp` is no role; `time` is.

use lantern_sdk::prelude::*;

#[derive(Table, Row)]
#[table(name = "openings")]
struct Opening {
    #[column(timestamp)]
    at: Timestamp,
}

fn main() {}
