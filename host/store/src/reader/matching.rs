//! Whether a row in memory belongs to a selection: the same results as SQL, for the live tail, which reads a row once
//! for all followers. A test compares both.

use std::cmp::Ordering;

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

    /// Whether a row belongs to the selection. `values` are all columns of the table. `has_to_stop` is called before
    /// each condition and every few kilobytes of text.
    ///
    /// # Errors
    /// [`Stopped`] if `has_to_stop` returned true before the result was known.
    pub fn matches(
        &self,
        shape: &Shape,
        values: &[Value],
        mut has_to_stop: impl FnMut() -> bool,
    ) -> Result<bool, Stopped> {
        if !is_in_range(&self.selection, shape, values) {
            return Ok(false);
        }
        for (condition, needle) in self.selection.conditions.iter().zip(&self.needles) {
            if has_to_stop() {
                return Err(Stopped);
            }
            let Some(value) = values.get(condition.column) else {
                return Ok(false);
            };
            if !holds(&condition.test, needle.as_ref(), value, &mut has_to_stop)? {
                return Ok(false);
            }
        }
        let Some(search) = &self.selection.search else {
            return Ok(true);
        };
        let texts = values.iter().enumerate().filter_map(|(column, value)| {
            Some(SearchedText {
                column,
                text: value.as_text()?,
                is_json: matches!(value, Value::Json(_)),
            })
        });
        search.matches(texts, has_to_stop)
    }
}

fn is_in_range(selection: &Selection, shape: &Shape, values: &[Value]) -> bool {
    if !selection.has_range() {
        return true;
    }
    match shape.time().and_then(|time| values.get(time)) {
        Some(Value::Timestamp(at)) => {
            selection.from.is_none_or(|from| *at >= from) && selection.to.is_none_or(|to| *at < to)
        }
        _ => false,
    }
}

/// Whether a test holds for a stored value. `needle` is the text that the test searches for, if any.
fn holds(
    test: &Test,
    needle: Option<&Needle>,
    stored: &Value,
    has_to_stop: &mut impl FnMut() -> bool,
) -> Result<bool, Stopped> {
    let is_null = stored.is_null();
    Ok(match test {
        Test::OneOf { values, null } => {
            (*null && is_null)
                || values
                    .iter()
                    .any(|value| stored.compare(value) == Some(Ordering::Equal))
        }
        Test::Not(value) => stored.compare(value) != Some(Ordering::Equal),
        Test::Compare(comparison, value) => stored.compare(value).is_some_and(|order| match comparison {
            Comparison::Less => order.is_lt(),
            Comparison::AtMost => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::AtLeast => order.is_ge(),
        }),
        Test::Contains(_) => match needle {
            Some(needle) => has_text(stored, needle, has_to_stop)?,
            None => false,
        },
        Test::Lacks(_) => match needle {
            Some(needle) => !has_text(stored, needle, has_to_stop)?,
            None => false,
        },
        Test::BeginsWith(text) => stored.as_text().is_some_and(|own| own.starts_with(text.as_str())),
        Test::Set => !is_null,
    })
}

fn has_text(value: &Value, needle: &Needle, has_to_stop: impl FnMut() -> bool) -> Result<bool, Stopped> {
    match value.as_text() {
        Some(text) => needle.is_in(text.as_bytes(), has_to_stop),
        None => Ok(false),
    }
}
