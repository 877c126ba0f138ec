//! How rows are found by their origin: through the segments of a table, or through its index.

use crate::sql::{Connection, params};

use super::{BLOCK_BITS, SEGMENT_BITS, Touched};
use crate::commit::OriginId;
use crate::statement::quote_text;
use crate::values::{from_sql, to_sql};

/// A table with what is needed to find its rows by origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginTable {
    pub(crate) name: String,
    /// The number of its segments; none if it has indexes instead.
    pub(crate) set: Option<i64>,
}

/// Segments that are searched backwards for a number of rows; far more than a reader of new rows asks for.
const SEGMENTS_BACK: u32 = 1_000;

/// The `FROM` and `WHERE` clauses for the rows of an origin in a range of sequences, both ends included. The row is `t`, and
/// further conditions may follow with `AND`. `origin`, `first` and `last` are parameters or literals.
fn rows_of_origin(table: &str, set: Option<i64>, origin: &str, first: &str, last: &str) -> String {
    let table = quote_text(table);
    let condition = format!("t._origin = {origin} AND t._sequence BETWEEN {first} AND {last}");
    let Some(set) = set else {
        return format!("FROM {table} AS t WHERE {condition}");
    };
    let (rows, newest) = (segment_rows("s._segment"), newest_segment(&table));
    format!(
        "FROM (SELECT segment AS _segment FROM _lantern_segment_origin
             WHERE segments = {set} AND origin = {origin}
                 AND block BETWEEN {first} >> {BLOCK_BITS} AND {last} >> {BLOCK_BITS}
                 AND first_sequence <= {last} AND last_sequence >= {first} UNION {newest}) AS s
         CROSS JOIN {table} AS t WHERE t._rowid_ BETWEEN {rows} AND {condition}"
    )
}

/// A query for the newest segment of a table, which has no stored summary and may contain rows of any origin. The name is
/// quoted.
fn newest_segment(table: &str) -> String {
    format!("SELECT max(_rowid_) >> {SEGMENT_BITS} FROM {table}")
}

/// The condition for the rows of a table's newest segment, which has no stored summary. The name is quoted.
pub(crate) fn is_in_newest_segment(table: &str) -> String {
    format!("_rowid_ >= ({}) << {SEGMENT_BITS}", newest_segment(table))
}

/// The first and the last row number of a segment, as `BETWEEN` takes them.
fn segment_rows(segment: &str) -> String {
    let last = (1 << SEGMENT_BITS) - 1;
    format!("({segment} << {SEGMENT_BITS}) AND ({segment} << {SEGMENT_BITS}) + {last}")
}

impl OriginTable {
    pub(crate) fn find(connection: &Connection, name: &str) -> Result<Self, crate::sql::Error> {
        let mut found =
            connection.prepare_cached("SELECT id FROM _lantern_segments WHERE table_name = ?1")?;
        let mut ids = found.query([name])?;
        let set = match ids.next()? {
            Some(row) => Some(row.get(0)?),
            None => None,
        };
        Ok(Self {
            name: name.to_owned(),
            set,
        })
    }

    pub(crate) fn find_all(
        connection: &Connection,
        names: &[String],
    ) -> Result<Vec<Self>, crate::sql::Error> {
        names.iter().map(|name| Self::find(connection, name)).collect()
    }

    /// See [`rows_of_origin`].
    pub(crate) fn rows(&self, origin: &str, first: &str, last: &str) -> String {
        rows_of_origin(&self.name, self.set, origin, first, last)
    }

    /// Counts the rows of an origin in a range of sequences. Segments whose rows all lie in the range are not read.
    pub(crate) fn count(
        &self,
        connection: &Connection,
        origin: OriginId,
        first: u64,
        last: u64,
    ) -> Result<u64, crate::sql::Error> {
        let sql = match self.set {
            None => format!("SELECT count(*) {}", self.rows("?1", "?2", "?3")),
            Some(set) => self.count_in_segments(set),
        };
        connection
            .prepare_cached(&sql)?
            .query_row(params![origin.0, to_sql(first), to_sql(last)], |row| {
                row.get(0).map(from_sql)
            })
    }

    fn count_in_segments(&self, set: i64) -> String {
        let overlaps = format!(
            "segments = {set} AND origin = ?1 AND block BETWEEN ?2 >> {BLOCK_BITS} AND ?3 >> {BLOCK_BITS}
             AND first_sequence <= ?3 AND last_sequence >= ?2"
        );
        let lies_inside = "first_sequence >= ?2 AND last_sequence <= ?3";
        let rows = segment_rows("s.segment");
        let table = quote_text(&self.name);
        let in_newest = is_in_newest_segment(&table);
        format!(
            "SELECT (SELECT coalesce(sum(rows), 0) FROM _lantern_segment_origin WHERE {overlaps} AND {lies_inside})
                 + (SELECT count(*) FROM (SELECT segment, block FROM _lantern_segment_origin
                         WHERE {overlaps} AND NOT ({lies_inside})) AS s
                     CROSS JOIN {table} AS t WHERE t._rowid_ BETWEEN {rows} AND t._origin = ?1
                         AND t._sequence BETWEEN ?2 AND ?3 AND t._sequence >> {BLOCK_BITS} = s.block)
                 + (SELECT count(*) FROM {table} AS t WHERE t.{in_newest}
                     AND t._origin = ?1 AND t._sequence BETWEEN ?2 AND ?3)"
        )
    }

    /// A subquery for the row number of an origin's last row: the one of the greatest sequence and number within its message.
    pub(crate) fn last_row(&self, origin: &str) -> String {
        let table = quote_text(&self.name);
        let order = "ORDER BY n._sequence DESC, n._row DESC LIMIT 1";
        let Some(set) = self.set else {
            return format!("(SELECT n._rowid_ FROM {table} AS n WHERE n._origin = {origin} {order})");
        };
        let of_origin = format!("segments = {set} AND origin = {origin}");
        let last_block = format!("(SELECT max(block) FROM _lantern_segment_origin WHERE {of_origin})");
        let entries = format!("_lantern_segment_origin WHERE {of_origin} AND block = {last_block}");
        let (rows, newest) = (segment_rows("s.segment"), newest_segment(&table));
        format!(
            "(SELECT n._rowid_ FROM (SELECT segment FROM {entries}
                 AND last_sequence = (SELECT max(last_sequence) FROM {entries}) UNION {newest}) AS s
             CROSS JOIN {table} AS n WHERE n._rowid_ BETWEEN {rows} AND n._origin = {origin} {order})"
        )
    }

    /// A query for a sequence of an origin that has more than `rows` rows from it up to the sequence `last`; it has no
    /// result if there are not so many in the last segments with a summary. `None` if the table has an index on the order of
    /// its rows instead.
    pub(crate) fn sequence_before(&self, origin: &str, last: &str, rows: u32) -> Option<String> {
        let set = self.set?;
        Some(format!(
            "SELECT first_sequence FROM (
                 SELECT first_sequence, sum(rows) OVER (ORDER BY first_sequence DESC) AS found FROM (
                     SELECT first_sequence, rows FROM _lantern_segment_origin
                     WHERE segments = {set} AND origin = {origin} AND block <= {last} >> {BLOCK_BITS}
                         AND last_sequence <= {last}
                     ORDER BY block DESC, segment DESC LIMIT {SEGMENTS_BACK}))
             WHERE found > {rows} ORDER BY first_sequence DESC LIMIT 1"
        ))
    }

    /// The origins of the table's rows, in ascending order.
    pub(crate) fn origins(&self, connection: &Connection) -> Result<Vec<i64>, crate::sql::Error> {
        let table = quote_text(&self.name);
        let Some(set) = self.set else {
            return distinct_origins(
                connection,
                &format!("SELECT min(_origin) FROM {table} WHERE _origin > ?1"),
            );
        };
        let mut origins = distinct_origins(
            connection,
            &format!(
                "SELECT min(origin) FROM _lantern_segment_origin WHERE segments = {set} AND origin > ?1"
            ),
        )?;
        let mut in_newest = connection.prepare_cached(&format!(
            "SELECT DISTINCT t._origin FROM {table} AS t WHERE t.{}",
            is_in_newest_segment(&table)
        ))?;
        for origin in in_newest.query_map([], |row| row.get(0))? {
            origins.push(origin?);
        }
        origins.sort_unstable();
        origins.dedup();
        Ok(origins)
    }

    /// Deletes the rows of an origin in a range of sequences, and notes their segments. Returns how many.
    pub(crate) fn delete(
        &self,
        connection: &Connection,
        origin: OriginId,
        (first, last): (u64, u64),
        touched: &mut Touched,
    ) -> Result<u64, crate::sql::Error> {
        let rows = self.rows("?1", "?2", "?3");
        let sql = format!(
            "DELETE FROM {} WHERE _rowid_ IN (SELECT t._rowid_ {rows}) RETURNING _rowid_ >> {SEGMENT_BITS}",
            quote_text(&self.name)
        );
        let mut delete = connection.prepare_cached(&sql)?;
        let deleted = delete.query_map(params![origin.0, to_sql(first), to_sql(last)], |row| row.get(0))?;
        let segments = deleted.collect::<Result<Vec<i64>, _>>()?;
        touched.add(&self.name, segments.iter().copied());
        Ok(segments.len() as u64)
    }
}

/// The results of a query for the first origin after another one, each found by a step.
fn distinct_origins(connection: &Connection, next: &str) -> Result<Vec<i64>, crate::sql::Error> {
    let mut next = connection.prepare_cached(next)?;
    let mut origins = Vec::new();
    while let Some(origin) = next.query_row([origins.last().copied().unwrap_or(i64::MIN)], |row| {
        row.get::<_, Option<i64>>(0)
    })? {
        origins.push(origin);
    }
    Ok(origins)
}
