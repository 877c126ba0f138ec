//! The statements that find the rows of a page by an index and read them.

use super::{KEY_BYTES_MAX, Key, Part, RowPosition, RowQuery, Sort};
use crate::reader::bound::Bound;
use crate::reader::segments::segments_as_t;
use crate::reader::selection::{Conditions, Lead, Selection, Test, all};
use crate::reader::shape::Shape;
use crate::sql::Engine;
use crate::statement::quote;
use lantern_model::batch::Value;
use lantern_model::schema::ColumnType;

/// The selection once for each value of its leading condition.
fn alternatives(selection: &Selection, position: usize) -> impl Iterator<Item = Selection> {
    let values = match selection
        .conditions
        .get(position)
        .map(|condition| &condition.test)
    {
        Some(Test::OneOf { values, .. }) => values.clone(),
        _ => Vec::new(),
    };
    values.into_iter().map(move |value| {
        let mut selection = selection.clone();
        selection.conditions[position].test = Test::OneOf {
            values: vec![value],
            null: false,
        };
        selection
    })
}

/// Finds the numbers of the rows of a page.
pub(super) struct Finder<'a> {
    shape: &'a Shape,
    selection: &'a Selection,
    lead: Lead,
    sort: Sort,
    part: Part,
    after: Option<&'a RowPosition>,
    /// Whether rows are read from segments, so that no condition may lead to an index.
    in_segments: bool,
}

impl<'a> Finder<'a> {
    pub(super) fn new(
        shape: &'a Shape,
        query: &'a RowQuery,
        part: Part,
        after: Option<&'a RowPosition>,
    ) -> Self {
        Self {
            shape,
            selection: &query.selection,
            lead: Lead::of(shape, &query.selection, query.sort.column),
            sort: query.sort,
            part,
            after,
            in_segments: false,
        }
    }

    /// The same for the rows of segments.
    pub(super) fn in_segments(self) -> Self {
        Self {
            lead: Lead::Order,
            in_segments: true,
            ..self
        }
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            shape: self.shape,
            selection: self.selection,
            lead: self.lead,
        }
    }

    /// Whether rows are scanned that may not match.
    pub(super) fn is_in_stretches(&self) -> bool {
        let led = match self.lead {
            Lead::Order => 0,
            Lead::Choice(_) => 1,
            Lead::Key => self.selection.conditions.len(),
        };
        let range_follows = self.selection.has_range() && !self.range_leads();
        self.selection.conditions.len() > led || self.selection.search.is_some() || range_follows
    }

    fn is_sorted_by_time(&self) -> bool {
        self.sort.column.is_some() && self.sort.column == self.shape.time()
    }

    /// Whether rows are found by their time. In another order they have to be sorted then.
    fn range_leads(&self) -> bool {
        let sort_is_served = self
            .sort
            .column
            .is_some_and(|column| self.shape.is_indexed(column));
        self.is_sorted_by_time()
            || (self.selection.has_range() && (self.lead == Lead::Order || !sort_is_served))
    }

    /// Reads the found rows, in their order: `p` is scanned as it is produced and nothing is sorted again, so that at
    /// most one row is in memory.
    pub(super) fn page(&self, columns: &[usize], limit: usize, stretch: usize) -> (String, Bound) {
        let mut bound = Bound::default();
        let found = self.find(&mut bound, if self.is_in_stretches() { stretch } else { limit });
        let SelectRows { mut sql, order } = select_rows(self.shape, columns, &found);
        if self.is_in_stretches() {
            let mut following = self.conditions().following(&mut bound);
            if !self.range_leads() {
                following.extend(self.conditions().range(&mut bound, false));
            }
            sql = format!("{sql} WHERE {}{order} LIMIT {limit}", all(&following));
        } else {
            sql.push_str(order);
        }
        (sql, bound)
    }

    /// The numbers of the selection's rows in these segments, in order.
    pub(super) fn find_in_segments(
        &self,
        bound: &mut Bound,
        segments: impl Iterator<Item = i64>,
        limit: usize,
    ) -> String {
        let from = segments_as_t(self.shape, segments, bound);
        self.find_among(&from, bound, limit)
    }

    /// The numbers of the selection's rows among those that `from` returns with the alias `t`, in order.
    pub(super) fn find_among(&self, from: &str, bound: &mut Bound, limit: usize) -> String {
        let conditions = self.conditions();
        let mut every = conditions.range(bound, false);
        every.extend(conditions.following(bound));
        every.extend(self.behind(bound));
        format!(
            "SELECT t._rowid_ AS r, {} AS k {from} WHERE {} ORDER BY {} LIMIT {limit}",
            self.returned_key(),
            all(&every),
            self.order(),
        )
    }

    /// The numbers of rows in order, found by the leading condition; their values in the sort column as `k`.
    pub(super) fn find(&self, bound: &mut Bound, limit: usize) -> String {
        let branches: Vec<String> = match self.lead {
            Lead::Choice(position) => alternatives(self.selection, position)
                .map(|selection| self.select(bound, &selection, limit))
                .collect(),
            Lead::Order | Lead::Key => vec![self.select(bound, self.selection, limit)],
        };
        match branches.as_slice() {
            [one] => one.clone(),
            many => {
                let each: Vec<String> = many
                    .iter()
                    .map(|one| format!("SELECT r, k FROM ({one}) AS one"))
                    .collect();
                let direction = self.sort.direction();
                format!(
                    "{} ORDER BY 2 {direction}, 1 {direction} LIMIT {limit}",
                    each.join(" UNION ALL ")
                )
            }
        }
    }

    fn select(&self, bound: &mut Bound, selection: &Selection, limit: usize) -> String {
        let conditions = Conditions {
            selection,
            ..self.conditions()
        };
        let mut every = conditions.leading(bound);
        if self.range_leads() {
            every.extend(conditions.range(bound, true));
        }
        every.extend(self.behind(bound));
        format!(
            "SELECT t._rowid_ AS r, {} AS k FROM {} AS t WHERE {} ORDER BY {} LIMIT {limit}",
            self.returned_key(),
            quote(&self.shape.entry.name),
            all(&every),
            self.order(),
        )
    }

    fn order(&self) -> String {
        let direction = self.sort.direction();
        match (self.key(), self.part) {
            (Some(key), Part::Filled) => format!("{key} {direction}, t._rowid_ {direction}"),
            _ => format!("t._rowid_ {direction}"),
        }
    }

    /// The value of a row in the sort column. A blob replaces a long text, so that a page does not contain each of them
    /// twice; it is read again where it is needed. If several alternatives are merged by it, it has to be whole.
    fn returned_key(&self) -> String {
        let Some(column) = self.sort.column.filter(|_| self.part == Part::Filled) else {
            return "NULL".to_owned();
        };
        let column = &self.shape.columns[column];
        let name = format!("t.{}", quote(&column.name));
        let is_merged = matches!(self.lead, Lead::Choice(_));
        if column.column_type == ColumnType::Text && !is_merged {
            // A column of PostgreSQL has one type, so that its texts are bytes with a mark.
            let short = match self.shape.engine() {
                Engine::Sqlite => name.clone(),
                Engine::Postgres => format!("'\\x01'::bytea || convert_to({name}, 'UTF8')"),
            };
            format!("CASE WHEN octet_length({name}) > {KEY_BYTES_MAX} THEN x'' ELSE {short} END")
        } else {
            name
        }
    }

    fn key(&self) -> Option<String> {
        let column = self.sort.column?;
        // The sign keeps SQLite from using the index of the order if the range of time leads.
        let leads = self.is_sorted_by_time() || !(self.range_leads() && self.selection.has_range());
        let sign = if leads && !self.in_segments { "" } else { "+" };
        Some(format!("{sign}t.{}", quote(&self.shape.columns[column].name)))
    }

    /// The conditions for the part of a row, and for its position after the previous page.
    fn behind(&self, bound: &mut Bound) -> Vec<String> {
        let sign = if self.sort.descending { "<" } else { ">" };
        let mut conditions = Vec::new();
        match (self.part, self.key()) {
            (Part::Filled, Some(key)) if self.sort_is_nullable() => {
                conditions.push(format!("{key} IS NOT NULL"))
            }
            (Part::Empty, Some(key)) => conditions.push(format!("{key} IS NULL")),
            _ => {}
        }
        let Some(place) = self.after else {
            return conditions;
        };
        let key = match (&place.key, self.part) {
            (Key::Integer(number), Part::Filled) => Some(Value::Integer(*number)),
            (Key::Real(number), Part::Filled) => Some(Value::Real(*number)),
            (Key::Text(text), Part::Filled) => Some(Value::Text(text.clone())),
            _ => None,
        };
        let row = bound.integer(place.row);
        conditions.push(match (self.key(), key) {
            (Some(column), Some(value)) => {
                let value = bound.add(value);
                format!("({column}, t._rowid_) {sign} ({value}, {row})")
            }
            _ => format!("t._rowid_ {sign} {row}"),
        });
        conditions
    }

    fn sort_is_nullable(&self) -> bool {
        self.sort
            .column
            .is_some_and(|column| self.shape.columns[column].nullable)
    }
}

/// A statement that reads found rows.
pub(super) struct SelectRows {
    pub(super) sql: String,
    /// Its order, after all conditions: that in which the rows were found.
    pub(super) order: &'static str,
}

/// Reads the rows whose numbers `found` returns, in the order in which it returns them.
pub(super) fn select_rows(shape: &Shape, columns: &[usize], found: &str) -> SelectRows {
    let names: Vec<String> = columns
        .iter()
        .map(|&position| format!(", t.{}", quote(&shape.columns[position].name)))
        .collect();
    // SQLite keeps the order of `p`, and sorts nothing.
    let (numbered, order) = match shape.engine() {
        Engine::Sqlite => ("p", ""),
        Engine::Postgres => (
            "(SELECT r, k, row_number() OVER () AS place FROM p) AS p",
            " ORDER BY p.place",
        ),
    };
    let sql = format!(
        "WITH p (r, k) AS MATERIALIZED ({found}) \
         SELECT t._rowid_, p.k, t._origin, t._sequence, t._row{} FROM {numbered} \
         CROSS JOIN {} AS t ON t._rowid_ = p.r",
        names.concat(),
        quote(&shape.entry.name)
    );
    SelectRows { sql, order }
}
