//! The request of an erasure: plain data.

use lantern_store::forget::ForgetQuery;

/// What is to be erased, and how.
#[derive(Clone, Debug)]
pub struct ForgetRequest {
    /// Which rows and dead letters; none to delete only the messages that earlier erasures have left in their streams.
    pub query: Option<ForgetQuery>,
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// Whether the database file is rewritten at the end; none for doing so where it takes seconds.
    pub vacuum: Option<bool>,
}
