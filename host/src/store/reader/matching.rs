//! Whether a row that is in memory is one of a selection: the same answers as from SQL, for the live tail, which reads
//! a row once for all who listen. A test compares the two.

use super::cells::Cell;
use super::selection::{Comparison, Condition, Selection, Test};
use super::shape::Shape;
use crate::batch::Value;
use std::cmp::Ordering;

impl Selection {
    /// Whether a row is meant. `cells` are all columns of the table.
    pub fn matches(&self, shape: &Shape, cells: &[Cell]) -> bool {
        self.is_in_range(shape, cells)
            && self.conditions.iter().all(|condition| holds(condition, cells))
            && self
                .search
                .as_ref()
                .is_none_or(|text| cells.iter().any(|cell| has_text(cell, text)))
    }

    fn is_in_range(&self, shape: &Shape, cells: &[Cell]) -> bool {
        if self.from.is_none() && self.to.is_none() {
            return true;
        }
        match shape.time().and_then(|time| cells.get(time)) {
            Some(Cell::Timestamp(at)) => {
                self.from.is_none_or(|from| *at >= from) && self.to.is_none_or(|to| *at < to)
            }
            _ => false,
        }
    }
}

fn holds(condition: &Condition, cells: &[Cell]) -> bool {
    let Some(cell) = cells.get(condition.column) else {
        return false;
    };
    let is_null = matches!(cell, Cell::Null);
    match &condition.test {
        Test::OneOf { values, null } => {
            (*null && is_null)
                || values
                    .iter()
                    .any(|value| compare(cell, value) == Some(Ordering::Equal))
        }
        Test::Not(value) => compare(cell, value) != Some(Ordering::Equal),
        Test::Compare(comparison, value) => compare(cell, value).is_some_and(|order| match comparison {
            Comparison::Less => order.is_lt(),
            Comparison::AtMost => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::AtLeast => order.is_ge(),
        }),
        Test::Contains(text) => has_text(cell, text),
        Test::Lacks(text) => !has_text(cell, text),
        Test::BeginsWith(text) => text_of(cell).is_some_and(|own| own.starts_with(text.as_str())),
        Test::Set => !is_null,
    }
}

/// None where one of them is null, or they are of different types and so never stand in one column.
fn compare(cell: &Cell, value: &Value) -> Option<Ordering> {
    match (cell, value) {
        (Cell::Boolean(one), Value::Boolean(other)) => Some(one.cmp(other)),
        (Cell::Integer(one), Value::Integer(other)) => Some(one.cmp(other)),
        (Cell::Real(one), Value::Real(other)) => one.partial_cmp(other),
        (Cell::Text(one), Value::Text(other)) => Some(one.as_bytes().cmp(other.as_bytes())),
        (Cell::Blob(one), Value::Blob(other)) => Some(one.cmp(other)),
        (Cell::Timestamp(one), Value::Timestamp(other)) => Some(one.cmp(other)),
        (Cell::Json(one), Value::Json(other)) => Some(one.get().as_bytes().cmp(other.as_bytes())),
        _ => None,
    }
}

fn text_of(cell: &Cell) -> Option<&str> {
    match cell {
        Cell::Text(text) => Some(text),
        Cell::Json(document) => Some(document.get()),
        _ => None,
    }
}

/// Whether text has `sought` in it, whatever the case of ASCII letters, as SQLite's LIKE has it.
fn has_text(cell: &Cell, sought: &str) -> bool {
    let Some(text) = text_of(cell) else {
        return false;
    };
    let (text, sought) = (text.as_bytes(), sought.as_bytes());
    let Some(first) = sought.first() else {
        return true;
    };
    // Both are UTF-8, in which no letter begins within another.
    let mut rest = text;
    while let Some(position) = rest.iter().position(|byte| byte.eq_ignore_ascii_case(first)) {
        rest = &rest[position..];
        if rest.len() < sought.len() {
            return false;
        }
        if rest[..sought.len()].eq_ignore_ascii_case(sought) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_whatever_the_case_of_ascii_letters() {
        let text = |text: &str| Cell::Text(text.to_owned());
        for (own, sought, expected) in [
            ("aaab", "AAB", true),
            ("Straße", "sTRASSE", false),
            ("STRAßE", "straße", true),
            ("Ärger", "ärger", false),
            ("", "a", false),
            ("a", "", true),
            ("100%", "0%", true),
        ] {
            assert_eq!(has_text(&text(own), sought), expected, "{own} {sought}");
        }
        assert!(!has_text(&Cell::Null, ""));
    }
}
