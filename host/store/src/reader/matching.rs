//! Whether a row in memory belongs to a selection: the same results as SQL, for the live tail, which reads a row once
//! for all followers. A test compares both.

use std::cmp::Ordering;

use super::cells::Cell;
use super::selection::{Comparison, Selection, Test};
use super::shape::Shape;
use super::text::{Needle, Stopped};
use crate::search::SearchedText;
use lantern_model::batch::Value;

/// A selection, prepared for matching many rows.
#[derive(Clone, Debug)]
pub struct Matcher {
    selection: Selection,
    /// For each condition, the text to search for.
    needles: Vec<Option<Needle>>,
}

impl Matcher {
    /// Prepares a selection.
    pub fn new(selection: Selection) -> Self {
        let needle = |text: &String| Needle::new(text.as_bytes());
        let needles = selection
            .conditions
            .iter()
            .map(|condition| match &condition.test {
                Test::Contains(text) | Test::Lacks(text) => Some(needle(text)),
                _ => None,
            });
        Self {
            needles: needles.collect(),
            selection,
        }
    }

    /// Whether a row belongs to the selection. `cells` are all columns of the table. `has_to_stop` is called before
    /// each condition and every few kilobytes of text.
    ///
    /// # Errors
    /// [`Stopped`] if `has_to_stop` returned true before the result was known.
    pub fn matches(
        &self,
        shape: &Shape,
        cells: &[Cell],
        mut has_to_stop: impl FnMut() -> bool,
    ) -> Result<bool, Stopped> {
        if !is_in_range(&self.selection, shape, cells) {
            return Ok(false);
        }
        for (condition, needle) in self.selection.conditions.iter().zip(&self.needles) {
            if has_to_stop() {
                return Err(Stopped);
            }
            let Some(cell) = cells.get(condition.column) else {
                return Ok(false);
            };
            if !holds(&condition.test, needle.as_ref(), cell, &mut has_to_stop)? {
                return Ok(false);
            }
        }
        let Some(search) = &self.selection.search else {
            return Ok(true);
        };
        let texts = cells.iter().enumerate().filter_map(|(column, cell)| {
            Some(SearchedText {
                column,
                text: text_of(cell)?,
                is_json: matches!(cell, Cell::Json(_)),
            })
        });
        search.matches(texts, has_to_stop)
    }
}

fn is_in_range(selection: &Selection, shape: &Shape, cells: &[Cell]) -> bool {
    if !selection.has_range() {
        return true;
    }
    match shape.time().and_then(|time| cells.get(time)) {
        Some(Cell::Timestamp(at)) => {
            selection.from.is_none_or(|from| *at >= from) && selection.to.is_none_or(|to| *at < to)
        }
        _ => false,
    }
}

/// Whether a test holds for a cell. `needle` is the text that the test searches for, if any.
fn holds(
    test: &Test,
    needle: Option<&Needle>,
    cell: &Cell,
    has_to_stop: &mut impl FnMut() -> bool,
) -> Result<bool, Stopped> {
    let is_null = matches!(cell, Cell::Null);
    Ok(match test {
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
        Test::Contains(_) => match needle {
            Some(needle) => has_text(cell, needle, has_to_stop)?,
            None => false,
        },
        Test::Lacks(_) => match needle {
            Some(needle) => !has_text(cell, needle, has_to_stop)?,
            None => false,
        },
        Test::BeginsWith(text) => text_of(cell).is_some_and(|own| own.starts_with(text.as_str())),
        Test::Set => !is_null,
    })
}

/// None if one of them is null, or if their types differ, which cannot occur in one column.
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

fn has_text(cell: &Cell, needle: &Needle, has_to_stop: impl FnMut() -> bool) -> Result<bool, Stopped> {
    match text_of(cell) {
        Some(text) => needle.is_in(text.as_bytes(), has_to_stop),
        None => Ok(false),
    }
}
