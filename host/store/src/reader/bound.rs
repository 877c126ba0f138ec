//! The parameters of a statement while it is written.

use crate::values::into_parameter;
use lantern_model::batch::Value;

/// Parameters of a statement, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Bound(Vec<Value>);

impl Bound {
    /// Adds a parameter and returns its placeholder.
    pub(super) fn add(&mut self, value: Value) -> String {
        self.0.push(value);
        format!("?{}", self.0.len())
    }

    pub(super) fn integer(&mut self, number: i64) -> String {
        self.add(Value::Integer(number))
    }

    #[cfg(test)]
    pub(super) fn into_values(self) -> Vec<Value> {
        self.0
    }

    pub(super) fn arguments(self) -> Vec<rusqlite::types::Value> {
        self.0.into_iter().map(into_parameter).collect()
    }
}
