//! The rows that a full-text index proposes for a search. The index may propose rows that do not match, but it proposes all that do, except those it does not contain yet.

use std::borrow::Cow;

use rusqlite::types::Value as Stored;

use super::bound::Bound;
use super::few_proposals::FewProposals;
use super::selection::Selection;
use super::shape::Shape;
use super::snapshot::Snapshot;
use super::{ReadError, Reader};
use crate::search::{self, SearchIndex, SearchQuery, indexed_word};
use crate::sql::Engine;
use crate::statement::quote;
use lantern_model::batch::Value;
use lantern_model::schema::TableName;

/// Changed rows that a search reads in addition to the proposed ones.
const CHANGED_MAX: usize = 10_000;

/// Rows that are not indexed yet and that a search of few rows reads in addition.
const TAIL_FEW: i64 = if cfg!(test) { 50 } else { 5_000 };

/// Proposed rows that counts and aggregates read: some tenths of a second.
const COUNTED_MAX: usize = 50_000;

/// How far the full-text index of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchProgress {
    /// Rows that are not indexed yet, approximately. A search reads them one by one.
    pub rows_behind: u64,
}

/// The rows that may match a search, on one state of the database.
pub(super) struct Proposals<'a> {
    snapshot: &'a Snapshot<'a>,
    table: String,
    index: SearchIndex,
    engine: Engine,
    /// The words that a row contains.
    expression: String,
    /// Rows that were changed since they were indexed.
    changed: Vec<i64>,
}

impl<'a> Proposals<'a> {
    /// The proposed rows of a selection. None if the table has no index, or if it does not serve the search.
    pub(super) fn of(
        snapshot: &'a Snapshot<'a>,
        shape: &Shape,
        selection: &Selection,
    ) -> Result<Option<Self>, ReadError> {
        let Some(words) = selection.search.as_ref().and_then(SearchQuery::required_words) else {
            return Ok(None);
        };
        let index = snapshot.with(|connection| search::index_of(connection, shape.entry.name.as_str()))?;
        let is_indexed =
            |index: &SearchIndex, name: &str| index.columns.iter().any(|column| column.name == name);
        let Some(index) = index.filter(|index| {
            shape
                .searched()
                .all(|column| is_indexed(index, shape.columns[column].name.as_str()))
        }) else {
            return Ok(None);
        };
        let mut changed = Vec::new();
        let sql = format!(
            "SELECT row FROM _lantern_search_change WHERE search = ?1 LIMIT {}",
            CHANGED_MAX + 1
        );
        snapshot.for_each(&sql, vec![index.id.into()], |row| {
            changed.push(row.get(0)?);
            Ok(())
        })?;
        let words = words.iter().map(|word| indexed_word(word));
        let engine = shape.engine();
        Ok((changed.len() <= CHANGED_MAX).then(|| Self {
            snapshot,
            table: quote(&shape.entry.name),
            index,
            engine,
            expression: search::expression(engine, words),
            changed,
        }))
    }

    /// All proposed rows as the source of a statement: a table with the column `r`. None if they are more than `limit`, or if
    /// many rows are not indexed yet.
    pub(super) fn few(&self, limit: usize) -> Result<Option<FewProposals>, ReadError> {
        let through = self.index.through;
        let tail = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} WHERE _rowid_ > ?1 LIMIT {}) AS counted",
            self.table,
            TAIL_FEW + 1
        );
        if self.snapshot.number(&tail, vec![through.into()])? > TAIL_FEW {
            return Ok(None);
        }
        let mut rows = self.proposed(i64::MIN, through, true, limit + 1)?;
        if rows.len() > limit {
            return Ok(None);
        }
        rows.extend(self.changed.iter().filter(|row| **row <= through));
        rows.sort_unstable();
        rows.dedup();
        Ok(Some(FewProposals {
            table: self.table.clone(),
            engine: self.engine,
            rows,
            through,
        }))
    }

    /// Rows of the index from `first` to `last` that contain the words.
    fn proposed(&self, first: i64, last: i64, descending: bool, limit: usize) -> Result<Vec<i64>, ReadError> {
        let (fts, contains) = (self.index.fts(), self.index.contains(self.engine, "?1"));
        let direction = if descending { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT rowid FROM {fts} WHERE {contains} AND rowid BETWEEN ?2 AND ?3 ORDER BY rowid {direction} LIMIT ?4"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let arguments = vec![
            self.expression.clone().into(),
            first.into(),
            last.into(),
            limit.into(),
        ];
        self.numbers(&sql, arguments)
    }

    /// The next proposed rows in descending order of their numbers, from `last` on, and the number at which those that follow
    /// begin.
    pub(super) fn before(&self, last: i64, limit: usize) -> Result<(Vec<i64>, Option<i64>), ReadError> {
        let through = self.index.through;
        if last > through {
            let rows = self.unindexed(through + 1, last, true, limit)?;
            if let Some(&lowest) = rows.last() {
                return Ok((rows, lowest.checked_sub(1)));
            }
        }
        let last = last.min(through);
        let rows = self.proposed(i64::MIN, last, true, limit)?;
        let lowest = rows.last().copied().filter(|_| rows.len() >= limit);
        let mut rows = self.with_changed(rows, lowest.unwrap_or(i64::MIN), last);
        rows.reverse();
        Ok((rows, lowest.and_then(|lowest| lowest.checked_sub(1))))
    }

    /// The same in ascending order.
    pub(super) fn after(&self, first: i64, limit: usize) -> Result<(Vec<i64>, Option<i64>), ReadError> {
        let through = self.index.through;
        if first <= through {
            let rows = self.proposed(first, through, false, limit)?;
            let greatest = rows.last().copied().filter(|_| rows.len() >= limit);
            let rows = self.with_changed(rows, first, greatest.unwrap_or(through));
            return Ok((rows, greatest.unwrap_or(through).checked_add(1)));
        }
        let rows = self.unindexed(first, i64::MAX, false, limit)?;
        let greatest = rows.last().copied().filter(|_| rows.len() >= limit);
        Ok((rows, greatest.and_then(|greatest| greatest.checked_add(1))))
    }

    /// Rows after the position of the index.
    fn unindexed(
        &self,
        first: i64,
        last: i64,
        descending: bool,
        limit: usize,
    ) -> Result<Vec<i64>, ReadError> {
        let direction = if descending { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT _rowid_ FROM {} WHERE _rowid_ BETWEEN ?1 AND ?2 ORDER BY _rowid_ {direction} LIMIT ?3",
            self.table
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.numbers(&sql, vec![first.into(), last.into(), limit.into()])
    }

    /// Adds the changed rows of a range, in ascending order.
    fn with_changed(&self, mut rows: Vec<i64>, first: i64, last: i64) -> Vec<i64> {
        rows.extend(self.changed.iter().filter(|row| (first..=last).contains(*row)));
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    fn numbers(&self, sql: &str, arguments: Vec<Stored>) -> Result<Vec<i64>, ReadError> {
        let mut rows = Vec::new();
        self.snapshot.for_each(sql, arguments, |row| {
            rows.push(row.get(0)?);
            Ok(())
        })?;
        Ok(rows)
    }
}

/// `FROM …` for the rows with these numbers, with the alias `t`.
pub(super) fn rows_as_t(shape: &Shape, rows: &[i64], bound: &mut Bound) -> String {
    format!(
        "FROM ({}) AS j CROSS JOIN {} AS t ON t._rowid_ = j.r",
        shape
            .engine()
            .listed_numbers(&bound.add(Value::Text(serde_json::json!(rows).to_string()))),
        quote(&shape.entry.name)
    )
}

impl Reader {
    /// The same table with only the rows that its full-text index proposes, if they are so few that queries of all rows of
    /// the selection read only them.
    pub(super) async fn with_proposed<'s>(
        &self,
        shape: &'s Shape,
        selection: &Selection,
    ) -> Result<Cow<'s, Shape>, ReadError> {
        if selection.search.is_none() || shape.proposed().is_some() {
            return Ok(Cow::Borrowed(shape));
        }
        let (table, selection) = (shape.clone(), selection.clone());
        let proposed =
            self.timed_snapshot(
                move |snapshot| match Proposals::of(snapshot, &table, &selection)? {
                    Some(proposals) => proposals.few(COUNTED_MAX),
                    None => Ok(None),
                },
            );
        Ok(match proposed.await? {
            Some(proposed) => Cow::Owned(shape.with_proposed(proposed)),
            None => Cow::Borrowed(shape),
        })
    }

    /// How far the full-text index of a table is; none if search in the table is turned off.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn search_progress(&self, shape: &Shape) -> Result<Option<SearchProgress>, ReadError> {
        let name = shape.entry.name.clone();
        self.snapshot(move |connection| Ok::<_, ReadError>(progress(connection, &name)?))
            .await
    }
}

fn progress(
    connection: &crate::sql::Connection,
    name: &TableName,
) -> Result<Option<SearchProgress>, crate::sql::Error> {
    let index = search::index_of(connection, name.as_str())?;
    let is_on: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_searched WHERE table_name = ?1)",
        [name.as_str()],
        |row| row.get(0),
    )?;
    if !is_on {
        return Ok(None);
    }
    let (id, through) = index.map_or((0, i64::MIN), |index| (index.id, index.through));
    let sql = format!(
        "SELECT (SELECT count(*) FROM _lantern_search_change WHERE search = ?1),
             (SELECT max(_rowid_) FROM {0}), (SELECT min(_rowid_) FROM {0})",
        quote(name)
    );
    let (changed, last, first) = connection.query_row(&sql, [id], |row| {
        let ends = (row.get::<_, Option<i64>>(1)?, row.get::<_, Option<i64>>(2)?);
        Ok((row.get::<_, i64>(0)?, ends.0, ends.1))
    })?;
    let behind = match (last, first) {
        (Some(last), Some(first)) => last.saturating_sub(through.max(first.saturating_sub(1))).max(0),
        _ => 0,
    };
    Ok(Some(SearchProgress {
        rows_behind: behind.saturating_add(changed).unsigned_abs(),
    }))
}
