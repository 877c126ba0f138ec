//! Fills the indexes, after the transactions that change rows. Each step is one short transaction of the writer, in which the
//! position of the index changes together with its entries; a step that a crash interrupts has not happened.
//!
//! A step does the most urgent work: it begins the index of a table, removes a part of a retired index, indexes the next rows,
//! or merges parts of an index.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::sql::Kind;
use crate::sql::{Connection, Engine, OptionalExtension as _, Transaction};

use super::entries::{Entries, select};
use super::merge::{STEP_PAGES, merge};
use super::purge::purge_some;
use super::{BEGINNING, RETIRED, SearchIndex, all_indexes, begin, disable, fts_name, retire};
use crate::description::TableDescription;
use crate::read_error::ReadError;
use crate::statement::quote_text;
use crate::{AuditMark, CommitError, Store, forget};
use lantern_model::schema::TableName;

/// How long a step collects rows; its commit takes about as long. A live batch waits for at most one step.
const STEP_TIME: Duration = Duration::from_millis(4);

/// Rows of a step.
const STEP_ROWS: i64 = if cfg!(test) { 40 } else { 1_000 };

/// Merges after a step that indexed rows, at most. Without them, the parts of an index that is far behind would accumulate
/// until FTS5 merges many at once, in one long transaction.
const STEP_MERGES: u32 = 8;

/// Entries of a retired index that a step removes.
const STEP_ENTRIES: i64 = 500;

/// Indexes of tables, and the work on them.
#[derive(Clone, Copy)]
pub struct Search<'a>(&'a Store);

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexingStep {
    /// The step did something, and there may be more to do.
    Worked {
        /// How long the writer was occupied.
        took: Duration,
    },
    /// All indexes are complete.
    Idle,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Begin(String),
    Retire(String),
    Remove(i64),
    Index(i64),
    Purge(i64),
    Merge(i64),
}

/// The memory of a run of steps.
#[derive(Debug, Default)]
pub struct IndexerState {
    /// The index of the last step, so that several indexes take turns.
    last: i64,
    /// Indexes that have no part to merge.
    merged: BTreeSet<i64>,
    /// An index that received rows, and how many merges follow.
    due: Option<(i64, u32)>,
}

impl IndexerState {
    /// Notes a step that was carried out.
    fn note(&mut self, work: &Work, has_more: bool) {
        match *work {
            Work::Index(id) => {
                self.last = id;
                self.merged.remove(&id);
                self.due = Some((id, STEP_MERGES));
            }
            Work::Merge(id) => {
                let left = self.due.map_or(0, |(_, left)| left.saturating_sub(1));
                self.due = (has_more && left > 0).then_some((id, left));
                if !has_more {
                    self.merged.insert(id);
                }
            }
            _ => {}
        }
    }
}

impl Store {
    /// Full-text search in tables.
    pub fn search(&self) -> Search<'_> {
        Search(self)
    }
}

impl Search<'_> {
    /// Turns search in a table on or off, with its entry in the audit. The indexer follows.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`]; nothing has changed then.
    pub async fn set_enabled(
        self,
        table: &TableName,
        on: bool,
        mark: Option<AuditMark>,
    ) -> Result<(), CommitError> {
        let table = table.to_string();
        let change = move |transaction: &Transaction<'_>| match on {
            true => {
                let insert = "INSERT INTO _lantern_searched VALUES (?1) ON CONFLICT DO NOTHING";
                transaction.execute(insert, [&table]).map(drop)
            }
            false => disable(transaction, &table),
        };
        self.0.change(mark, change, |()| Some(String::new())).await
    }

    /// Does the most urgent work on indexes.
    ///
    /// # Errors
    /// As for [`Search::set_enabled`].
    pub async fn step(self, state: &mut IndexerState) -> Result<IndexingStep, CommitError> {
        let Some(work) = self.next(state).await? else {
            return Ok(IndexingStep::Idle);
        };
        let (took, has_more) = self.work(work.clone()).await?;
        state.note(&work, has_more);
        Ok(IndexingStep::Worked { took })
    }

    async fn next(self, state: &IndexerState) -> Result<Option<Work>, CommitError> {
        if let Some((id, _)) = state.due {
            return Ok(Some(Work::Merge(id)));
        }
        let (last, merged) = (state.last, state.merged.clone());
        let plan = move |connection: &Connection| Ok::<_, ReadError>(next_work(connection, last, &merged)?);
        Ok(self.0.reader().snapshot(plan).await?)
    }

    /// Removes the words of erased rows from all indexes.
    ///
    /// # Errors
    /// As for [`Search::set_enabled`].
    pub async fn purge(self) -> Result<(), CommitError> {
        let next = |connection: &Connection| Ok::<_, ReadError>(next_purge(connection)?);
        while let Some(work) = self.0.reader().snapshot(next).await? {
            self.work(work).await?;
        }
        Ok(())
    }

    async fn work(self, work: Work) -> Result<(Duration, bool), CommitError> {
        let change = move |connection: &mut Connection| {
            let began = Instant::now();
            let has_more = match forget::is_used(connection)? {
                true => forget::overwriting(connection, |connection| carry_out_or_retire(connection, &work))?,
                false => carry_out_or_retire(connection, &work)?,
            };
            Ok((began.elapsed(), has_more))
        };
        self.0.call(change).await
    }
}

/// The next work; none if all indexes are complete.
fn next_work(
    connection: &Connection,
    last: i64,
    merged: &BTreeSet<i64>,
) -> Result<Option<Work>, crate::sql::Error> {
    let indexes = all_indexes(connection)?;
    if let Some(work) = missing(connection)? {
        return Ok(Some(work));
    }
    if let Some(table) = orphan(connection, &indexes)? {
        return Ok(Some(Work::Retire(table)));
    }
    let (retired, used): (Vec<_>, Vec<_>) = indexes
        .into_iter()
        .partition(|index| index.table.starts_with(RETIRED));
    let (before, after): (Vec<_>, Vec<_>) = used.into_iter().partition(|index| index.id <= last);
    let in_turn: Vec<SearchIndex> = after.into_iter().chain(before).collect();
    for index in &in_turn {
        if is_behind(connection, index)? {
            return Ok(Some(Work::Index(index.id)));
        }
    }
    let purge = in_turn.iter().find(|index| index.is_purging);
    let merge = in_turn.iter().find(|index| !merged.contains(&index.id));
    Ok(purge
        .map(|index| Work::Purge(index.id))
        .or(merge.map(|index| Work::Merge(index.id)))
        .or(retired.first().map(|index| Work::Remove(index.id))))
}

/// The next step that brings words of erased rows closer to their removal.
fn next_purge(connection: &Connection) -> Result<Option<Work>, crate::sql::Error> {
    for index in all_indexes(connection)? {
        let is_retired = index.table.starts_with(RETIRED);
        if is_retired {
            return Ok(Some(Work::Remove(index.id)));
        }
        if index.is_purging {
            let is_changed = has_changes(connection, index.id)?;
            return Ok(Some(if is_changed {
                Work::Index(index.id)
            } else {
                Work::Purge(index.id)
            }));
        }
    }
    Ok(None)
}

/// A table in which search is turned on and that has no index. A table of a rebuild gets its index when it is created.
fn missing(connection: &Connection) -> Result<Option<Work>, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT d.table_name FROM _lantern_searched d JOIN _lantern_table t ON t.name = d.table_name
             JOIN sqlite_schema s ON s.type = 'table' AND s.name = d.table_name
             WHERE NOT EXISTS (SELECT 1 FROM _lantern_search i WHERE i.table_name = d.table_name) LIMIT 1",
        )?
        .query_row([], |row| row.get(0).map(Work::Begin))
        .optional()
}

/// The name of an index whose table no longer exists.
fn orphan(connection: &Connection, indexes: &[SearchIndex]) -> Result<Option<String>, crate::sql::Error> {
    let mut exists = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)")?;
    for index in indexes.iter().filter(|index| !index.table.starts_with(RETIRED)) {
        if !exists.query_row([&index.table], |row| row.get::<_, bool>(0))? {
            return Ok(Some(index.table.clone()));
        }
    }
    Ok(None)
}

fn has_changes(connection: &Connection, id: i64) -> Result<bool, crate::sql::Error> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM _lantern_search_change WHERE search = ?1)")?
        .query_row([id], |row| row.get(0))
}

fn is_behind(connection: &Connection, index: &SearchIndex) -> Result<bool, crate::sql::Error> {
    Ok(has_changes(connection, index.id)? || last_row(connection, &index.table)? > index.through)
}

/// The greatest row number of a table.
fn last_row(connection: &Connection, table: &str) -> Result<i64, crate::sql::Error> {
    let sql = format!("SELECT max(_rowid_) FROM {}", quote_text(table));
    let last: Option<i64> = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
    Ok(last.unwrap_or(BEGINNING))
}

/// As [`carry_out`]. Takes a damaged index out of use, so that the next steps build another one.
fn carry_out_or_retire(connection: &mut Connection, work: &Work) -> Result<bool, crate::sql::Error> {
    let error = match carry_out(connection, work) {
        Err(error) if error.kind() == Kind::Corrupt => error,
        done => return done,
    };
    let (Work::Index(id) | Work::Purge(id) | Work::Merge(id)) = work else {
        return Err(error);
    };
    let Some(index) = find(connection, *id)? else {
        return Err(error);
    };
    tracing::warn!(table = index.table, %error, "a full-text index is damaged; the host builds it again");
    retire(connection, &index.table)?;
    Ok(true)
}

/// Carries out one step. Returns whether there is more of the same.
fn carry_out(connection: &mut Connection, work: &Work) -> Result<bool, crate::sql::Error> {
    let transaction = connection.begin()?;
    let has_more = match work {
        Work::Begin(table) => begin_if_missing(&transaction, table).map(|()| false),
        Work::Retire(table) => retire(&transaction, table).map(|()| false),
        Work::Remove(id) => remove_some(&transaction, *id),
        Work::Index(id) => index_some(&transaction, *id),
        Work::Purge(id) => purge_some(&transaction, *id),
        Work::Merge(id) => merge_some(&transaction, *id, STEP_PAGES),
    }?;
    transaction.commit()?;
    Ok(has_more)
}

/// Begins the index of a table, unless the table or the operator's choice has changed since the plan.
fn begin_if_missing(transaction: &Transaction<'_>, table: &str) -> Result<(), crate::sql::Error> {
    if missing(transaction)? != Some(Work::Begin(table.to_owned())) {
        return Ok(());
    }
    let sql = "SELECT description FROM _lantern_table WHERE name = ?1";
    let description: String = transaction.query_row(sql, [table], |row| row.get(0))?;
    let description: TableDescription =
        serde_json::from_str(&description).map_err(|error| crate::sql::Error::decode(0, error))?;
    begin(transaction, table, &description)
}

fn find(connection: &Connection, id: i64) -> Result<Option<SearchIndex>, crate::sql::Error> {
    Ok(all_indexes(connection)?.into_iter().find(|index| index.id == id))
}

/// Indexes changed rows again, and the next rows.
fn index_some(transaction: &Transaction<'_>, id: i64) -> Result<bool, crate::sql::Error> {
    if transaction.engine() == Engine::Postgres {
        // Another host may change rows at the same time: its triggers wait for the new position, or this step for its commit.
        let lock = "SELECT id FROM _lantern_search WHERE id = ?1 FOR UPDATE";
        transaction.query_row(lock, [id], |_| Ok(())).optional()?;
    }
    let Some(mut index) = find(transaction, id)?.filter(|index| !index.table.starts_with(RETIRED)) else {
        return Ok(false);
    };
    let until = Instant::now() + STEP_TIME;
    // The numbers of rows that were deleted at the end are used again.
    let last = last_row(transaction, &index.table)?;
    index.through = index.through.min(last);
    index_changes(transaction, &index, until)?;
    let through = index_next(transaction, &index, until)?;
    transaction
        .prepare_cached("UPDATE _lantern_search SET through = ?2 WHERE id = ?1")?
        .execute([id, through])?;
    Ok(through < last || has_changes(transaction, id)?)
}

fn index_changes(
    transaction: &Transaction<'_>,
    index: &SearchIndex,
    until: Instant,
) -> Result<(), crate::sql::Error> {
    let changed: Vec<i64> = transaction
        .prepare_cached("SELECT row FROM _lantern_search_change WHERE search = ?1 LIMIT ?2")?
        .query_map([index.id, STEP_ROWS], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if changed.is_empty() {
        return Ok(());
    }
    let mut entries = Entries::prepare(transaction, index)?;
    let mut rows = transaction.prepare_cached(&select(index, "_rowid_ = ?1"))?;
    let mut done =
        transaction.prepare_cached("DELETE FROM _lantern_search_change WHERE search = ?1 AND row = ?2")?;
    for number in changed {
        let mut found = rows.query([number])?;
        match found.next()? {
            Some(row) => entries.put(&row)?,
            None => entries.delete(number)?,
        }
        done.execute([index.id, number])?;
        if Instant::now() >= until {
            break;
        }
    }
    Ok(())
}

/// Returns the new position.
fn index_next(
    transaction: &Transaction<'_>,
    index: &SearchIndex,
    until: Instant,
) -> Result<i64, crate::sql::Error> {
    let mut entries = Entries::prepare(transaction, index)?;
    let mut rows = transaction.prepare_cached(&select(index, "_rowid_ > ?1 ORDER BY _rowid_ LIMIT ?2"))?;
    let mut rows = rows.query([index.through, STEP_ROWS])?;
    let mut through = index.through;
    while Instant::now() < until || through == index.through {
        let Some(row) = rows.next()? else { break };
        through = row.get(0)?;
        entries.put(&row)?;
    }
    Ok(through)
}

/// Merges parts of an index. Returns whether it did. An index of PostgreSQL has no parts.
fn merge_some(transaction: &Transaction<'_>, id: i64, pages: i64) -> Result<bool, crate::sql::Error> {
    if transaction.engine() == Engine::Postgres {
        return Ok(false);
    }
    match find(transaction, id)? {
        Some(_) => merge(transaction, id, pages),
        None => Ok(false),
    }
}

/// Removes a part of a retired index. Returns whether there is more.
fn remove_some(transaction: &Transaction<'_>, id: i64) -> Result<bool, crate::sql::Error> {
    // The background job and an erasure may remove the same index.
    if find(transaction, id)?.is_none() {
        return Ok(false);
    }
    let changes = "DELETE FROM _lantern_search_change WHERE (search, row) IN
         (SELECT search, row FROM _lantern_search_change WHERE search = ?1 LIMIT ?2)";
    if transaction.execute(changes, [id, STEP_ENTRIES])? > 0 {
        return Ok(true);
    }
    // FTS5 keeps its own records in the first entries of `data`. PostgreSQL drops a table at once.
    let parts: &[(&str, i64)] = match transaction.engine() {
        Engine::Sqlite => &[("docsize", i64::MIN), ("data", 11)],
        Engine::Postgres => &[],
    };
    for &(part, first) in parts {
        let part = quote_text(&format!("{}_{part}", fts_name(id)));
        let sql = format!("DELETE FROM {part} WHERE id IN (SELECT id FROM {part} WHERE id >= ?1 LIMIT ?2)");
        if transaction.execute(&sql, [first, STEP_ENTRIES])? > 0 {
            return Ok(true);
        }
    }
    transaction.execute_batch(&format!("DROP TABLE {}", quote_text(&fts_name(id))))?;
    transaction.execute("DELETE FROM _lantern_search WHERE id = ?1", [id])?;
    Ok(false)
}
