//! Rebuilds: state, progress and result.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A rebuild.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rebuild {
    /// Its number.
    pub id: i64,
    /// The plugin.
    pub plugin: String,
    /// The digest of the version that fills the new tables.
    pub digest: String,
    /// Its state.
    pub state: RebuildState,
    /// When it started (RFC 3339).
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// Why it failed, or what blocks it.
    pub reason: Option<String>,
    /// Its progress, while it runs.
    pub progress: Option<RebuildProgress>,
    /// The result, when it is done.
    pub outcome: Option<RebuildOutcome>,
    /// Until when the tables that it replaced are kept (RFC 3339); a rollback restores them.
    pub previous_until: Option<String>,
}

/// The state of a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RebuildState {
    /// It fills the new tables, or resumes when the host starts.
    Running,
    /// It ended because of an error; the tables in use did not change.
    Failed,
    /// An operator or another operation ended it; the tables in use did not change.
    Cancelled,
    /// Its tables replaced the former ones.
    Done,
}

impl RebuildState {
    /// All states, in the order of declaration.
    pub const ALL: [Self; 4] = [Self::Running, Self::Failed, Self::Cancelled, Self::Done];

    /// The name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }
}

impl fmt::Display for RebuildState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for RebuildState {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut states = Self::ALL.into_iter();
        states
            .find(|state| state.as_str() == name)
            .ok_or_else(|| format!("{name:?} is not the state of a rebuild"))
    }
}

/// The progress of a rebuild.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RebuildProgress {
    /// Messages handled so far: projected, skipped and dead together.
    pub messages: u64,
    /// Remaining messages, as last reported by the broker.
    pub messages_left: u64,
    /// Messages per second since the rebuild started or resumed.
    pub rate: f64,
    /// Remaining seconds at this rate; none while unknown.
    pub eta_seconds: Option<f64>,
}

/// The result of a rebuild.
// The database stores it as JSON; the aliases are the names that earlier versions stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebuildOutcome {
    /// Messages handled: projected, skipped and dead together.
    pub messages: u64,
    /// Number of rows in the rebuilt tables.
    #[serde(alias = "rows")]
    pub row_count: u64,
    /// Rows that were carried over, because their messages were not read again.
    #[serde(alias = "carried_over")]
    pub rows_carried_over: u64,
    /// Rows that the tables lost in total.
    #[serde(alias = "left_out")]
    pub rows_lost: u64,
    /// The plugin's tables.
    pub tables: Vec<TableOutcome>,
    /// Differences that the operator accepted.
    #[serde(default)]
    #[schema(required)]
    pub accepted: Vec<String>,
}

/// The result of a rebuild for one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableOutcome {
    /// Its name.
    pub table: String,
    /// What happened to it.
    pub change: TableChange,
    /// Number of rows before.
    pub rows_before: u64,
    /// Number of rows after.
    pub rows_after: u64,
}

/// What a rebuild did with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TableChange {
    /// The new table replaced it.
    Rebuilt,
    /// It did not exist before.
    Added,
    /// The new version does not declare it; it stays as it is.
    Kept,
    /// The new version does not declare it, and the operator asked to drop it.
    Dropped,
}

impl TableChange {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rebuilt => "rebuilt",
            Self::Added => "added",
            Self::Kept => "kept",
            Self::Dropped => "dropped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_name_of_a_state_is_its_name_in_the_api() {
        for state in RebuildState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(
            "swapped".parse::<RebuildState>().unwrap_err(),
            r#""swapped" is not the state of a rebuild"#
        );
    }

    #[test]
    fn an_outcome_that_an_earlier_version_stored_is_read() {
        let stored = r#"{"messages":7,"rows":5,"carried_over":2,"left_out":1,
            "tables":[{"table":"t","change":"rebuilt","rows_before":6,"rows_after":5}]}"#;
        let outcome: RebuildOutcome = serde_json::from_str(stored).unwrap();
        assert_eq!(
            (outcome.row_count, outcome.rows_carried_over, outcome.rows_lost),
            (5, 2, 1)
        );
        assert_eq!(outcome.tables[0].change, TableChange::Rebuilt);
        let again: RebuildOutcome = serde_json::from_str(&serde_json::to_string(&outcome).unwrap()).unwrap();
        assert_eq!(again, outcome);
    }
}
