//! Converts results of the lifecycle and the store into the types of the API, where they differ. `tables` and `items`
//! convert the rows of tables.

use lantern_api as api;
use lantern_lifecycle as lifecycle;
use lantern_store as store;

/// A file or version that does not run.
pub fn load_failure(failure: lifecycle::LoadFailure) -> api::LoadFailure {
    api::LoadFailure {
        subject: failure.subject.to_string(),
        reason: failure.reason,
        blocks_messages: failure.blocks_messages,
        unsigned: failure.unsigned,
    }
}

/// The totals of retried dead letters.
pub fn retry_totals(totals: store::RetryTotals) -> api::RetryTotals {
    api::RetryTotals {
        retried: totals.tried,
        resolved: totals.resolved,
        inserted: totals.effects.inserted,
        updated: totals.effects.updated,
        present: totals.effects.present,
    }
}
