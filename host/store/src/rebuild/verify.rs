//! The comparison at the end of a rebuild, before the swap: the messages that were read against the ledger, the rows
//! that were carried over against those in use, and, where nothing explains a difference, the totals of every table
//! (`compare` has summed them). It only reads; the last transaction does nothing if the state has changed since.

use crate::sql::{Connection, params};

use super::super::commit::{Counts, OriginId};
use super::super::sources::ledger_sums;
use super::super::statement::ORIGIN_COLUMNS;
use super::super::values::{from_sql, to_sql};
use super::compare::{Comparison, Part, TableSums};
use super::history::latest_origin;
use super::survey::{
    SourceHistory, StoredTable, are_of_version, histories, missing, sequences, stored_tables,
};
use super::totals::SUMS;
use super::{RebuildId, Rebuilds, ReplayRange, rows_outside};
use crate::CommitError;
use crate::read_error::ReadError;
use lantern_model::results::rebuild::{RebuildOutcome, TableChange, TableOutcome};
use lantern_model::schema::Manifest;

/// The inputs of the comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyRequest {
    /// The rebuild.
    pub id: RebuildId,
    /// The digest of the version that filled the new tables.
    pub digest: String,
    /// The replay ranges.
    pub scopes: Vec<ReplayRange>,
    /// For each replay range whose version reads other subjects than the version before: how many of the messages in
    /// the ledger are still in the stream.
    pub available: Vec<Option<u64>>,
    /// Whether tables that the version does not declare are dropped.
    pub drop_undeclared: bool,
    /// For how many seconds the replaced tables are kept; 0 removes them at once.
    pub keep_old_s: u64,
}

/// The result of the comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The result of the rebuild.
    pub outcome: RebuildOutcome,
    /// Messages or rows that are missing; any of these prevents the swap.
    pub losses: Vec<String>,
    /// Differences between tables that nothing explains; the operator can accept them.
    pub differences: Vec<String>,
    /// Whether rows that have to be carried over are missing in the new tables.
    pub lacks_carried: bool,
    /// Whether the sums lack columns that have become comparable since they were planned: the comparison has to begin
    /// again.
    pub lacks_sums: bool,
    /// The number of tables whose changes are recorded.
    pub(super) watched: usize,
    /// For each replay range, the number of messages in the first part of the ledger range that contains its start.
    pub(super) heads: Vec<Option<u64>>,
    pub(super) fingerprint: Fingerprint,
}

/// Numbers that change with every change to rows, dead letters or ledger of the plugin or its rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<i64>);

pub(super) fn fingerprint(
    connection: &Connection,
    id: RebuildId,
    plugin: &str,
) -> Result<Fingerprint, crate::sql::Error> {
    let mut numbers = Vec::new();
    for name in [plugin, &id.name_of(plugin)] {
        connection.query_row(
            "SELECT count(*), coalesce(sum(l.messages), 0), coalesce(sum(l.projected), 0), coalesce(sum(l.dead), 0),
                    coalesce(sum(l.rows), 0), coalesce(sum(l.changed), 0), coalesce(sum(l.plugin_version), 0),
                    coalesce(sum(l.last_sequence), 0)
             FROM _lantern_ledger l JOIN _lantern_origin o ON o.id = l.origin WHERE o.plugin = ?1",
            [name],
            |row| {
                for column in 0..8 {
                    numbers.push(row.get(column)?);
                }
                Ok(())
            },
        )?;
        connection.query_row(
            "SELECT count(*), count(*) FILTER (WHERE d.state = 'open'), count(*) FILTER (WHERE d.state = 'discarded'),
                    coalesce(sum(d.attempts), 0)
             FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin WHERE o.plugin = ?1",
            [name],
            |row| {
                for column in 0..4 {
                    numbers.push(row.get(column)?);
                }
                Ok(())
            },
        )?;
    }
    numbers.push(connection.query_row(
        "SELECT coalesce(sum(rows_expired), 0) FROM _lantern_table WHERE plugin = ?1",
        [plugin],
        |row| row.get(0),
    )?);
    Ok(Fingerprint(numbers))
}

impl Rebuilds<'_> {
    /// Reads what is left, and compares the new tables and records of a rebuild with those in use.
    ///
    /// # Errors
    /// As for [`Rebuilds::continue_comparison`].
    pub async fn verify(
        self,
        comparison: Comparison,
        request: VerifyRequest,
    ) -> Result<Verification, CommitError> {
        let mut comparison = self.take_changes(comparison).await?;
        let read = move |connection: &Connection| -> Result<Verification, ReadError> {
            comparison.read(connection, None)?;
            Ok(verify(connection, &comparison, &request)?)
        };
        Ok(self.0.reader().long_snapshot(read).await?)
    }
}

/// `comparison` has summed the rows of this snapshot.
pub(super) fn verify(
    connection: &Connection,
    comparison: &Comparison,
    request: &VerifyRequest,
) -> Result<Verification, crate::sql::Error> {
    let manifest = comparison.manifest();
    let plugin = manifest.name.as_str();
    let mut work = Check {
        connection,
        manifest,
        comparison,
        request,
        histories: histories(connection, plugin, &request.scopes)?,
        stored: stored_tables(connection, plugin)?,
        found: Verification {
            outcome: RebuildOutcome::default(),
            losses: Vec::new(),
            differences: Vec::new(),
            lacks_carried: false,
            lacks_sums: false,
            watched: comparison.watched(),
            heads: Vec::new(),
            fingerprint: fingerprint(connection, request.id, plugin)?,
        },
    };
    let mut same_dead_letters = true;
    for (scope, available) in request.scopes.iter().zip(&request.available) {
        work.messages(scope, *available)?;
        same_dead_letters &= work.same_dead_letters(scope)?;
        work.rejected_messages(scope)?;
        work.dead_letters_with_kept_rows(scope)?;
    }
    let comparable = same_dead_letters && are_of_version(&work.histories, &request.scopes, &request.digest);
    work.tables(comparable)?;
    Ok(work.found)
}

struct Check<'a> {
    connection: &'a Connection,
    manifest: &'a Manifest,
    comparison: &'a Comparison,
    request: &'a VerifyRequest,
    histories: Vec<SourceHistory>,
    stored: Vec<StoredTable>,
    found: Verification,
}

impl Check<'_> {
    fn rebuilt_origin(&self, scope: &ReplayRange) -> Result<Option<i64>, crate::sql::Error> {
        let name = self.request.id.name_of(self.manifest.name.as_str());
        latest_origin(self.connection, &name, &scope.source)
    }

    /// Compares the messages that were read again with those in the ledger.
    fn messages(&mut self, scope: &ReplayRange, available: Option<u64>) -> Result<(), crate::sql::Error> {
        let history = self
            .histories
            .iter()
            .find(|history| history.origin == scope.origin);
        let (Some(history), Some(origin)) = (history, self.rebuilt_origin(scope)?) else {
            self.found
                .losses
                .push(format!("source {}: nothing was read", scope.source));
            self.found.heads.push(None);
            return Ok(());
        };
        let read: Counts = ledger_sums(self.connection, OriginId(origin))?;
        let end: u64 = self.connection.query_row(
            "SELECT sequence FROM _lantern_checkpoint WHERE origin = ?1",
            [origin],
            |row| row.get(0).map(from_sql),
        )?;
        self.found.outcome.messages += read.messages;
        let (place, after, checkpoint) = (&scope.source, scope.after, history.checkpoint);
        if end > checkpoint {
            self.found.losses.push(format!(
                "source {place}: the rebuild has read up to sequence {end}, the tables in use only up to {checkpoint}"
            ));
        }
        // Erased messages behind the last one that the stream holds are not read, and not missing.
        let found = available.unwrap_or(read.messages + history.erased_behind(end.max(after)));
        let (least, most) = history.handled_behind(after);
        // Messages that were missing at first may exist again.
        let returned = missing(
            self.connection,
            scope.origin,
            after + 1,
            checkpoint.max(after + 1),
        )?;
        if found < least {
            self.found.losses.push(format!(
                "source {place}: {found} messages after sequence {after} were read, the ledger has at least {least}"
            ));
        }
        if available.is_none() && found > most + returned {
            self.found.losses.push(format!(
                "source {place}: {found} messages after sequence {after} were read, the ledger has at most {most}"
            ));
        }
        if let Some(table) = merging_table(&self.stored, self.manifest) {
            let before = history.projected_before(after, found);
            if before > 0 {
                self.found.losses.push(format!(
                    "source {place}: {before} messages that were merged into table {} were not read again",
                    table.name
                ));
            }
        }
        self.found.heads.push(head_messages(history, after, found));
        Ok(())
    }

    /// Whether exactly the same messages are dead letters as before, and none of them has become rows since.
    fn same_dead_letters(&self, scope: &ReplayRange) -> Result<bool, crate::sql::Error> {
        let Some(origin) = self.rebuilt_origin(scope)? else {
            return Ok(false);
        };
        let differ: bool = self.connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM _lantern_dead_letter o WHERE o.origin = ?1 AND o.sequence > ?3
                 AND (o.state = 'resolved' OR NOT EXISTS (SELECT 1 FROM _lantern_dead_letter n
                     WHERE n.origin = ?2 AND n.sequence = o.sequence)))
             OR EXISTS (SELECT 1 FROM _lantern_dead_letter n WHERE n.origin = ?2
                 AND NOT EXISTS (SELECT 1 FROM _lantern_dead_letter o
                     WHERE o.origin = ?1 AND o.sequence = n.sequence))",
            params![scope.origin.0, origin, to_sql(scope.after)],
            |row| row.get(0),
        )?;
        Ok(!differ)
    }

    /// Reports messages that had an outcome other than a dead letter before, and that the new version rejects.
    fn rejected_messages(&mut self, scope: &ReplayRange) -> Result<(), crate::sql::Error> {
        let Some(origin) = self.rebuilt_origin(scope)? else {
            return Ok(());
        };
        let rejected: u64 = self.connection.query_row(
            "SELECT count(*) FROM _lantern_dead_letter n WHERE n.origin = ?2 AND n.state = 'open'
                 AND NOT EXISTS (SELECT 1 FROM _lantern_dead_letter o
                     WHERE o.origin = ?1 AND o.sequence = n.sequence AND o.state <> 'resolved')",
            params![scope.origin.0, origin],
            |row| row.get(0).map(from_sql),
        )?;
        if rejected > 0 {
            self.found.differences.push(format!(
                "source {}: {rejected} messages that were projected or skipped before would become dead letters",
                scope.source
            ));
        }
        Ok(())
    }

    /// A table that remains although the new version does not declare it keeps the rows of all messages; a message that
    /// the new version rejects would have both rows and a dead letter.
    fn dead_letters_with_kept_rows(&mut self, scope: &ReplayRange) -> Result<(), crate::sql::Error> {
        let Some(origin) = self.rebuilt_origin(scope)? else {
            return Ok(());
        };
        if self.request.drop_undeclared {
            return Ok(());
        }
        let kept = self.stored.iter().filter(|table| !self.declares(&table.name));
        for table in kept.map(|table| table.name.clone()).collect::<Vec<_>>() {
            let rows: u64 = self.connection.query_row(
                &format!(
                    "SELECT count(*) FROM _lantern_dead_letter d JOIN ({}) r ON r.s = d.sequence WHERE d.origin = ?4",
                    sequences(self.connection, std::slice::from_ref(&table))?.concat()
                ),
                params![scope.origin.0, to_sql(scope.after + 1), i64::MAX, origin],
                |row| row.get(0).map(from_sql),
            )?;
            if rows > 0 {
                self.found.losses.push(format!(
                    "table {table} would stay, and {rows} of its rows come from messages that the new version rejects; \
                     --drop-undeclared removes the table"
                ));
            }
        }
        Ok(())
    }

    fn declares(&self, table: &str) -> bool {
        self.manifest
            .tables
            .iter()
            .any(|declared| declared.name.as_str() == table)
    }

    /// Counts the rows of all tables, and compares the comparable ones.
    fn tables(&mut self, comparable: bool) -> Result<(), crate::sql::Error> {
        let plugin_tables = std::mem::take(&mut self.stored);
        for stored in &plugin_tables {
            let rows = self.rows(&stored.name);
            if self.declares(&stored.name) {
                self.table(stored, rows, comparable)?;
            } else {
                let dropped = self.request.drop_undeclared;
                self.record_table(
                    &stored.name,
                    if dropped {
                        TableChange::Dropped
                    } else {
                        TableChange::Kept
                    },
                    rows,
                    if dropped { 0 } else { rows },
                );
            }
        }
        let manifest = self.manifest;
        for table in &manifest.tables {
            if !plugin_tables
                .iter()
                .any(|stored| stored.name == table.name.as_str())
            {
                let rows = self.rows(table.name.of_rebuild(self.request.id.0).as_str());
                self.record_table(table.name.as_str(), TableChange::Added, 0, rows);
            }
        }
        self.stored = plugin_tables;
        Ok(())
    }

    fn record_table(&mut self, table: &str, change: TableChange, rows_before: u64, rows_after: u64) {
        let outcome = &mut self.found.outcome;
        if change != TableChange::Kept {
            outcome.row_count += rows_after;
        }
        outcome.rows_lost += rows_before.saturating_sub(rows_after);
        outcome.tables.push(TableOutcome {
            table: table.to_owned(),
            change,
            rows_before,
            rows_after,
        });
    }

    fn rows(&self, table: &str) -> u64 {
        let sums = self.comparison.table(table);
        sums.map_or(0, |sums| sums.rows(Part::All))
    }

    /// Compares a rebuilt table with the one in use.
    fn table(
        &mut self,
        stored: &StoredTable,
        before: u64,
        comparable: bool,
    ) -> Result<(), crate::sql::Error> {
        let name = &stored.name;
        let mut declared = self.manifest.tables.iter();
        let Some(table) = declared.find(|table| table.name.as_str() == name) else {
            return Ok(());
        };
        let new = table.name.of_rebuild(self.request.id.0);
        let after = self.rows(new.as_str());
        self.record_table(name, TableChange::Rebuilt, before, after);
        let expires = stored.expired > 0 || table.retention_days.is_some();
        let outside = self.outside(name)?;
        let carried = self.outside(new.as_str())?;
        self.found.outcome.rows_carried_over += carried;
        self.found.lacks_carried |= carried < outside;
        if carried < outside || (carried > outside && !expires) {
            self.found.losses.push(format!(
                "table {name}: {carried} of {outside} rows were carried over"
            ));
        }
        // The contribution of an erased message to a merged row remains in the table in use.
        let lacks_erased = stored.updates && self.histories.iter().any(|history| !history.erased.is_empty());
        if comparable && lacks_erased {
            // Nothing to compare the rows with.
        } else if comparable && expires {
            if after < before {
                self.found
                    .differences
                    .push(format!("table {name}: {before} rows before, {after} after"));
            }
        } else if comparable {
            let skipped = if stored.updates { ORIGIN_COLUMNS.len() } else { 0 };
            self.compare(name, new.as_str(), Part::All, skipped);
        }
        if carried > 0 && carried == outside {
            self.compare(name, new.as_str(), Part::Outside, 0);
        }
        Ok(())
    }

    /// The rows of a table outside the replay ranges.
    fn outside(&self, table: &str) -> Result<u64, crate::sql::Error> {
        match self.comparison.table(table) {
            Some(sums) if sums.has(Part::Outside) => Ok(sums.rows(Part::Outside)),
            _ => rows_outside(self.connection, table, &self.request.scopes),
        }
    }

    /// Compares the totals of a part of two tables: rows, non-null values of each column, and the sum of the values (of
    /// their bytes if they are not numbers). Skips the first `skipped` columns.
    fn compare(&mut self, old: &str, new: &str, part: Part, skipped: usize) {
        let comparison = self.comparison;
        let is_summed = |sums: &&TableSums| sums.has(part) && !sums.columns().is_empty();
        let [before, after] = [old, new].map(|table| comparison.table(table).filter(is_summed));
        let (Some(before), Some(after)) = (before, after) else {
            self.found.lacks_sums = true;
            return;
        };
        let columns = before.columns();
        let (before, after) = (before.totals(part), after.totals(part));
        if before[0] != after[0] {
            let (before, after) = (before[0], after[0]);
            self.found
                .differences
                .push(format!("table {old}: {before} rows before, {after} after"));
            return;
        }
        for (number, column) in columns.iter().enumerate().skip(skipped) {
            let own = 1 + number * SUMS..1 + (number + 1) * SUMS;
            let mut pairs = before[own.clone()].iter().zip(&after[own]);
            if let Some((before, after)) = pairs.find(|(before, after)| !before.is_same(**after)) {
                self.found.differences.push(format!(
                    "table {old}, column {column}: total {before} before, {after} after"
                ));
            }
        }
    }
}

/// A declared table whose writes merge rows of several messages.
fn merging_table<'a>(stored: &'a [StoredTable], manifest: &Manifest) -> Option<&'a StoredTable> {
    stored.iter().find(|table| {
        let mut declared = manifest.tables.iter();
        table.updates && declared.any(|declared| declared.name.as_str() == table.name)
    })
}

/// The number of messages in the first part of the range that contains `after`, if `found` messages lie after it.
fn head_messages(history: &SourceHistory, after: u64, found: u64) -> Option<u64> {
    let mut ranges = history.ranges.iter();
    let (messages, bounds) = ranges.find_map(|range| Some((range.counts.messages, range.head?)))?;
    let later = history.ranges.iter().filter(|range| range.last > after);
    let all: u64 = later.map(|range| range.counts.messages).sum();
    let head = all.saturating_sub(found).clamp(bounds.min, bounds.max);
    Some(head.min(messages))
}
