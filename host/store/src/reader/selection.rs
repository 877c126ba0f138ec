//! Row filters: conditions on columns, free text and a range of time, and the SQL for them. Values are always
//! parameters; a column is a position in a [`Shape`], whose names were checked.

use super::bound::Bound;
use super::search_function::{MATCHES, PreparedSearch};
use super::search_patterns;
use super::shape::Shape;
use super::text::CONTAINS;
use crate::search::{SearchQuery, Term, TermColumn};
use crate::sql::Engine;
use crate::statement::quote;
use lantern_model::batch::{Timestamp, Value};
use lantern_model::schema::ColumnType;
use lantern_model::schema::description::ColumnRole;

/// Alternatives of one condition up to which each is followed in the order of an index; more are filtered row by row.
const ALTERNATIVES_LED: usize = 20;

/// A row filter; the default matches all rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Conditions that must all hold.
    pub conditions: Vec<Condition>,
    /// Words that text and JSON columns contain.
    pub search: Option<SearchQuery>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
}

/// A condition on one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The position of the column.
    pub column: usize,
    /// The test for its value.
    pub test: Test,
}

/// A test for the value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// One of these values.
    OneOf {
        /// The values.
        values: Vec<Value>,
        /// Whether null matches too.
        null: bool,
    },
    /// Not this value; null matches.
    Not(Value),
    /// Compared with this value.
    Compare(Comparison, Value),
    /// Text that contains this, ignoring the case of ASCII letters.
    Contains(String),
    /// Null, or text that does not contain this.
    Lacks(String),
    /// Text that begins with this, case-sensitively.
    BeginsWith(String),
    /// Not null.
    Set,
}

/// A comparison of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Less.
    Less,
    /// Less or equal.
    AtMost,
    /// Greater.
    Greater,
    /// Greater or equal.
    AtLeast,
}

impl Comparison {
    fn sql(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

impl Selection {
    /// The same filter without its list of values for `column`.
    pub fn without_choice_of(&self, column: usize) -> Self {
        let mut selection = self.clone();
        selection
            .conditions
            .retain(|condition| condition.column != column || !matches!(condition.test, Test::OneOf { .. }));
        selection
    }

    /// Whether it limits the time.
    pub(super) fn has_range(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Whether it contains more than a range of time.
    pub(super) fn is_narrow(&self) -> bool {
        !self.conditions.is_empty() || self.search.is_some()
    }
}

/// How SQLite finds the rows. Without statistics it would have to guess, and a wrong guess sorts millions of rows to
/// return a hundred; so only the leading conditions are written in a form that an index can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// In the order of the result (or of time), with a check of each row.
    Order,
    /// By the alternatives of this condition, each in the order of the result.
    Choice(usize),
    /// By a key: very few rows, in any order.
    Key,
}

impl Lead {
    /// The best access to rows in the order of `sort`: a column, or the row numbers if none.
    pub(super) fn of(shape: &Shape, selection: &Selection, sort: Option<usize>) -> Self {
        if shape.proposed().is_some() {
            return Self::Order;
        }
        let one = |condition: &Condition| match &condition.test {
            Test::OneOf { values, null: false } if values.len() == 1 => Some(condition.column),
            _ => None,
        };
        let fixed: Vec<&str> = selection
            .conditions
            .iter()
            .filter_map(one)
            .map(|column| shape.columns[column].name.as_str())
            .collect();
        if shape.is_key(&fixed) {
            return Self::Key;
        }
        let sort_is_served = sort.is_none_or(|sort| shape.is_indexed(sort));
        let choices = selection.conditions.iter().enumerate();
        let best = choices
            .filter_map(|(position, condition)| match &condition.test {
                Test::OneOf { values, null: false } if values.len() <= ALTERNATIVES_LED => {
                    let column = condition.column;
                    let serves = shape.leads(column, sort) || (!sort_is_served && shape.is_indexed(column));
                    let is_entity = shape.columns[column].role == Some(ColumnRole::Entity);
                    serves.then_some((!is_entity, values.len(), position))
                }
                _ => None,
            })
            .min();
        best.map_or(Self::Order, |(.., position)| Self::Choice(position))
    }

    /// The best access to rows in any order, for counting.
    pub(super) fn to_count(shape: &Shape, selection: &Selection) -> Self {
        let by_time = Self::of(shape, selection, shape.time());
        if shape.proposed().is_some()
            || by_time != Self::Order
            || selection.from.is_some()
            || selection.to.is_some()
        {
            return by_time;
        }
        let found = selection.conditions.iter().position(|condition| {
            matches!(condition.test, Test::OneOf { null: false, .. }) && shape.is_indexed(condition.column)
        });
        found.map_or(Self::Order, Self::Choice)
    }

    fn admits(self, position: usize) -> bool {
        match self {
            Self::Order => false,
            Self::Choice(leading) => leading == position,
            Self::Key => true,
        }
    }
}

/// The conditions of a filter as SQL, for a table with the alias `t`.
pub(super) struct Conditions<'a> {
    pub(super) shape: &'a Shape,
    pub(super) selection: &'a Selection,
    pub(super) lead: Lead,
}

impl<'a> Conditions<'a> {
    /// For rows that are only counted.
    pub(super) fn to_count(shape: &'a Shape, selection: &'a Selection) -> Self {
        Self {
            shape,
            selection,
            lead: Lead::to_count(shape, selection),
        }
    }

    /// `FROM … WHERE …` for all rows of the filter.
    pub(super) fn all_rows(&self, bound: &mut Bound) -> String {
        let mut every = self.leading(bound);
        every.extend(self.range(bound, true));
        every.extend(self.following(bound));
        format!("{} WHERE {}", self.source(bound), all(&every))
    }

    /// `FROM …` for all rows that a query may read.
    pub(super) fn source(&self, bound: &mut Bound) -> String {
        match self.shape.proposed() {
            Some(proposed) => proposed.as_t(bound),
            None => format!("FROM {} AS t", quote(&self.shape.entry.name)),
        }
    }

    /// The same for the newest `rows` rows that an index finds, before the other conditions are applied: the cost does
    /// not depend on their number.
    pub(super) fn newest_rows(&self, bound: &mut Bound, rows: u32) -> String {
        let table = quote(&self.shape.entry.name);
        // Several alternatives have no common order in an index.
        let one = |position: usize| {
            let test = &self.selection.conditions[position].test;
            matches!(test, Test::OneOf { values, .. } if values.len() == 1)
        };
        let conditions = match self.lead {
            Lead::Choice(position) if !one(position) => Conditions {
                lead: Lead::Order,
                ..*self
            },
            _ => Conditions { ..*self },
        };
        let mut found = conditions.leading(bound);
        found.extend(conditions.range(bound, true));
        found.extend(conditions.timed());
        let order = match self.shape.time() {
            Some(time) => format!("{} DESC, t._rowid_ DESC", self.column(time, true)),
            None => "t._rowid_ DESC".to_owned(),
        };
        let found = all(&found);
        let following = all(&conditions.following(bound));
        format!(
            "FROM (SELECT t._rowid_ AS r FROM {table} AS t WHERE {found} ORDER BY {order} LIMIT {rows}) AS p \
             CROSS JOIN {table} AS t ON t._rowid_ = p.r WHERE {following}"
        )
    }

    /// In PostgreSQL, null is greater than every time: rows without a time would be the newest ones.
    fn timed(&self) -> Option<String> {
        let time = self.shape.time()?;
        let comes_first = self.shape.engine() == Engine::Postgres
            && self.shape.columns[time].nullable
            && !self.selection.has_range();
        comes_first.then(|| format!("{} IS NOT NULL", self.column(time, true)))
    }

    /// The column in a condition; a sign before it keeps SQLite from using an index.
    fn column(&self, position: usize, leads: bool) -> String {
        let sign = if leads { "" } else { "+" };
        format!("{sign}t.{}", quote(&self.shape.columns[position].name))
    }

    /// The range of time. `leads` says whether an index may serve it.
    pub(super) fn range(&self, bound: &mut Bound, leads: bool) -> Vec<String> {
        let Some(time) = self.shape.time() else {
            return Vec::new();
        };
        let column = self.column(time, leads);
        let limits = [(">=", self.selection.from), ("<", self.selection.to)];
        limits
            .into_iter()
            .filter_map(|(sign, limit)| Some(format!("{column} {sign} {}", bound.integer(limit?.0))))
            .collect()
    }

    /// The leading condition, if any.
    pub(super) fn leading(&self, bound: &mut Bound) -> Vec<String> {
        self.some(bound, |position| self.lead.admits(position))
    }

    /// All other conditions, and the free text.
    pub(super) fn following(&self, bound: &mut Bound) -> Vec<String> {
        let mut all = self.some(bound, |position| !self.lead.admits(position));
        all.extend(self.search(bound));
        all
    }

    fn some(&self, bound: &mut Bound, wanted: impl Fn(usize) -> bool) -> Vec<String> {
        let conditions = self.selection.conditions.iter().enumerate();
        conditions
            .filter(|(position, _)| wanted(*position))
            .map(|(position, condition)| self.condition(bound, condition, self.lead.admits(position)))
            .collect()
    }

    fn condition(&self, bound: &mut Bound, condition: &Condition, leads: bool) -> String {
        let column = self.column(condition.column, leads);
        match &condition.test {
            Test::OneOf { values, null } => {
                let names: Vec<String> = values.iter().map(|value| bound.add(value.clone())).collect();
                let among = match names.as_slice() {
                    [] => None,
                    [one] => Some(format!("{column} = {one}")),
                    many => Some(format!("{column} IN ({})", many.join(", "))),
                };
                let is_null = null.then(|| format!("{column} IS NULL"));
                let either: Vec<String> = among.into_iter().chain(is_null).collect();
                format!("({})", either.join(" OR "))
            }
            Test::Not(value) => format!("{column} IS DISTINCT FROM {}", bound.add(value.clone())),
            Test::Compare(comparison, value) => {
                format!("{column} {} {}", comparison.sql(), bound.add(value.clone()))
            }
            Test::Contains(text) => contains(&column, &bound.add(Value::Text(text.clone()))),
            Test::Lacks(text) => format!(
                "({column} IS NULL OR NOT {})",
                contains(&column, &bound.add(Value::Text(text.clone())))
            ),
            Test::BeginsWith(text) => {
                let mut limits = vec![format!("{column} >= {}", bound.add(Value::Text(text.clone())))];
                if let Some(after) = upper_bound_of_prefix(text) {
                    limits.push(format!("{column} < {}", bound.add(Value::Text(after))));
                }
                format!("({})", limits.join(" AND "))
            }
            Test::Set => format!("{column} IS NOT NULL"),
        }
    }

    fn search(&self, bound: &mut Bound) -> Option<String> {
        let query = self.selection.search.as_ref()?;
        Some(search_condition(self.shape, query, bound))
    }
}

/// The condition that a column contains text, ignoring the case of ASCII letters. SQLite's `LIKE` is quadratic, and
/// cannot be interrupted within one value.
fn contains(column: &str, needle: &str) -> String {
    format!("{CONTAINS}({column}, {needle})")
}

/// The smallest text that is greater than every text with the prefix `text`; none if there is none.
fn upper_bound_of_prefix(text: &str) -> Option<String> {
    let mut letters: Vec<char> = text.chars().collect();
    while let Some(last) = letters.pop() {
        let next = match last {
            // Surrogates are not characters.
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            letters.push(next);
            return Some(letters.into_iter().collect());
        }
    }
    None
}

/// All conditions joined; true if there are none.
pub(super) fn all(conditions: &[String]) -> String {
    match conditions {
        [] => "TRUE".to_owned(),
        conditions => conditions.join(" AND "),
    }
}

/// The condition that the row with the alias `t` matches a search.
fn search_condition(shape: &Shape, query: &SearchQuery, bound: &mut Bound) -> String {
    if shape.engine() == Engine::Postgres {
        return search_patterns::condition(shape, query, bound);
    }
    let columns: Vec<usize> = shape.searched().collect();
    let argument = |scope: &TermColumn| TermColumn {
        // A term whose column is not read matches nothing.
        column: columns
            .iter()
            .position(|column| *column == scope.column)
            .unwrap_or(usize::MAX),
        members: scope.members.clone(),
    };
    let terms = query.terms.iter().map(|term| Term {
        scope: term.scope.as_ref().map(argument),
        ..term.clone()
    });
    let prepared = PreparedSearch {
        query: SearchQuery {
            terms: terms.collect(),
        },
        json: columns
            .iter()
            .map(|&column| shape.columns[column].column_type == ColumnType::Json)
            .collect(),
    };
    let prepared = serde_json::json!(prepared).to_string();
    let texts: String = columns
        .iter()
        .map(|&column| format!(", t.{}", quote(&shape.columns[column].name)))
        .collect();
    format!("{MATCHES}({}{texts})", bound.add(Value::Text(prepared)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_bound_of_a_prefix() {
        for (text, expected) in [
            ("ab", Some("ac")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("", None),
        ] {
            assert_eq!(upper_bound_of_prefix(text).as_deref(), expected, "{text:?}");
        }
    }
}
