//! A list cannot be a column.

use lantern_sdk::prelude::*;

#[derive(Table, Row)]
#[table(name = "orders")]
struct Order {
    id: i64,
    tags: Vec<String>,
}

fn main() {}
