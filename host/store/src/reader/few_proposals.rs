//! The rows that a full-text index proposes, if they are few.

use super::bound::Bound;
use crate::sql::Engine;
use lantern_model::batch::Value;

/// All rows that an index proposes for a search.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FewProposals {
    pub(super) table: String,
    pub(super) engine: Engine,
    /// Indexed rows.
    pub(super) rows: Vec<i64>,
    /// All rows after this one are proposed too.
    pub(super) through: i64,
}

impl FewProposals {
    /// `FROM …` for the rows, with the alias `t`.
    pub(super) fn as_t(&self, bound: &mut Bound) -> String {
        let table = &self.table;
        let rows = bound.add(Value::Text(serde_json::json!(self.rows).to_string()));
        let rows = self.engine.listed_numbers(&rows);
        let through = bound.integer(self.through);
        format!(
            "FROM ({rows} UNION ALL SELECT _rowid_ FROM {table} WHERE _rowid_ > {through}) \
             AS j CROSS JOIN {table} AS t ON t._rowid_ = j.r"
        )
    }
}
