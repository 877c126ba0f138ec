//! The transactions of an erasure. Each is complete: rows, dead letters, ledger and the rules that keep the content from
//! coming back change together, and what is removed is overwritten in the file.

use std::collections::BTreeSet;

use crate::sql::{Connection, Engine, Kind, OptionalExtension as _, Transaction, params};

use super::screen::{digest, ensure_key, insert_forgotten_dead_letter, wipe_dead_letter};
use super::search::{siblings, targets};
use super::{Erased, Erasure, ForgetError, ForgetQuery, OutstandingMessage, StoredMessage};
use crate::anchors;
use crate::apply::read_checkpoint;
use crate::commit::{OriginId, VersionId};
use crate::search;
use crate::segments::{OriginTable, Touched};
use crate::statement::quote_text;
use crate::values::{from_sql, to_sql};
use lantern_model::batch::Timestamp;
use lantern_model::schema::ManifestDescription;
use lantern_model::schema::subjects::covers;

/// Records the digests of a value for the columns of a query.
pub(super) fn refuse_value(
    connection: &mut Connection,
    query: &ForgetQuery,
    make_key: impl FnOnce() -> String,
    through_ns: i64,
) -> Result<(), ForgetError> {
    let transaction = connection.begin()?;
    let key = ensure_key(&transaction, make_key)?;
    for target in targets(&transaction, query)? {
        let place = (
            target.plugin.as_str(),
            target.table.as_str(),
            target.column.as_str(),
        );
        let Some(digest) = digest(&key, place, &target.value) else {
            continue;
        };
        transaction.execute(
            "INSERT INTO _lantern_forgotten_value (plugin, table_name, column_name, digest, through_ns)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (plugin, table_name, column_name, digest) DO UPDATE SET through_ns = excluded.through_ns
                 WHERE excluded.through_ns > _lantern_forgotten_value.through_ns",
            params![place.0, place.1, place.2, digest, through_ns],
        )?;
    }
    transaction.commit()?;
    Ok(())
}

/// Runs a change whose removed content is overwritten with zeros in a file of SQLite. PostgreSQL keeps the former versions of
/// rows until [`scrub`].
pub(crate) fn overwriting<T>(
    connection: &mut Connection,
    change: impl FnOnce(&mut Connection) -> Result<T, crate::sql::Error>,
) -> Result<T, crate::sql::Error> {
    if connection.engine() == Engine::Postgres {
        return change(connection);
    }
    let before: i64 = connection.query_row("PRAGMA secure_delete", [], |row| row.get(0))?;
    let set = |connection: &Connection, value: i64| {
        connection.query_row(&format!("PRAGMA secure_delete = {value}"), [], |row| {
            row.get::<_, i64>(0)
        })
    };
    set(connection, 1)?;
    // After an error the writer closes the connection.
    let done = change(connection)?;
    set(connection, before)?;
    Ok(done)
}

/// Erases messages.
pub(super) fn erase(
    connection: &mut Connection,
    messages: &[Erasure],
    now: Timestamp,
) -> Result<Erased, crate::sql::Error> {
    overwriting(connection, |connection| {
        let transaction = connection.begin()?;
        let mut work = Work {
            transaction: &transaction,
            now,
            done: Erased::default(),
            places: BTreeSet::new(),
            touched: Touched::default(),
        };
        for message in messages {
            work.message(message)?;
        }
        work.anchors()?;
        let Work { done, touched, .. } = work;
        touched.refresh(&transaction)?;
        for plugin in &done.plugins {
            search::require_purge(&transaction, plugin)?;
        }
        transaction.commit()?;
        Ok(done)
    })
}

struct Work<'a> {
    transaction: &'a Transaction<'a>,
    now: Timestamp,
    done: Erased,
    /// Where messages were erased: origin and sequence.
    places: BTreeSet<(i64, u64)>,
    /// Segments whose summaries may still contain erased values.
    touched: Touched,
}

/// A history as an erasure sees it.
struct Place {
    origin: i64,
    plugin: String,
    sequence: u64,
    published_ns: i64,
}

impl Work<'_> {
    fn message(&mut self, message: &Erasure) -> Result<(), crate::sql::Error> {
        let published_ns = message.stored.as_ref().map_or(0, |stored| stored.published_ns);
        let place = |(origin, plugin): (i64, String)| Place {
            origin,
            plugin,
            sequence: message.sequence,
            published_ns,
        };
        if let Some(origin) = message.origin {
            let sql = "SELECT plugin FROM _lantern_origin WHERE id = ?1";
            let plugin = self.transaction.query_row(sql, [origin.0], |row| row.get(0))?;
            self.place(&place((origin.0, plugin)), true)?;
        }
        let Some(stored) = &message.stored else {
            return Ok(());
        };
        self.record(stored, message.sequence)?;
        let own = message.origin.map(|origin| origin.0);
        for sibling in siblings(self.transaction, &stored.stream, stored.stream_created_ns)? {
            if Some(sibling.0) != own {
                let is_read = self.reads(sibling.0, &stored.subject)?;
                self.place(&place(sibling), is_read)?;
            }
        }
        Ok(())
    }

    /// Records that the stream's message was erased and has to be deleted there.
    fn record(&self, stored: &StoredMessage, sequence: u64) -> Result<(), crate::sql::Error> {
        self.transaction
            .prepare_cached(
                "INSERT INTO _lantern_forgotten_message (stream, sequence, published_ns, forgotten_at)
                 VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                stored.stream,
                to_sql(sequence),
                stored.published_ns,
                self.now.0
            ])
            .map(|_| ())
    }

    /// Whether the active version of the plugin reads a subject as this source.
    fn reads(&self, origin: i64, subject: &str) -> Result<bool, crate::sql::Error> {
        let found: Option<(String, Option<String>)> = self
            .transaction
            .prepare_cached(
                "SELECT o.source, p.description FROM _lantern_origin o
                 JOIN _lantern_installation i ON i.plugin = o.plugin JOIN _lantern_plugin p ON p.id = i.active
                 WHERE o.id = ?1",
            )?
            .query_row([origin], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((source, Some(description))) = found else {
            return Ok(false);
        };
        let description: Option<ManifestDescription> = serde_json::from_str(&description).ok();
        Ok(description.is_some_and(|description| {
            let mut sources = description.sources.iter();
            sources.any(|known| {
                known.name == source
                    && (known.subjects.is_empty()
                        || known.subjects.iter().any(|filter| covers(filter, subject)))
            })
        }))
    }

    /// Erases a message in one history. `is_known`: it is one of the history's messages, whether or not it has left
    /// anything.
    fn place(&mut self, place: &Place, is_known: bool) -> Result<(), crate::sql::Error> {
        let handled: bool = self.transaction.query_row(
            "SELECT EXISTS (SELECT 1 FROM _lantern_origin o JOIN _lantern_checkpoint c ON c.origin = o.id
                 WHERE o.id = ?1 AND o.begins_after < ?2 AND c.sequence >= ?2)",
            params![place.origin, to_sql(place.sequence)],
            |row| row.get(0),
        )?;
        if !handled {
            return Ok(());
        }
        let (plain, merged) = self.rows(place)?;
        let rows = plain + merged;
        let state: Option<String> = self
            .transaction
            .prepare_cached("SELECT state FROM _lantern_dead_letter WHERE origin = ?1 AND sequence = ?2")?
            .query_row(params![place.origin, to_sql(place.sequence)], |row| row.get(0))
            .optional()?;
        let origin = OriginId(place.origin);
        match state.as_deref() {
            None if rows == 0 && !is_known => return Ok(()),
            None => {
                let Some(version) = self.count_as_dead(place, rows > 0)? else {
                    return Ok(());
                };
                insert_forgotten_dead_letter(
                    self.transaction,
                    origin,
                    version,
                    place.sequence,
                    place.published_ns,
                    self.now,
                )?;
            }
            Some("forgotten") => {}
            Some(state) => {
                if state == "resolved" {
                    self.count_as_dead(place, rows > 0)?;
                }
                wipe_dead_letter(self.transaction, origin, place.sequence, self.now)?;
                self.done.dead_letters += 1;
            }
        }
        self.subtract(place, plain, merged)?;
        self.places.insert((place.origin, place.sequence));
        self.done.plugins.insert(place.plugin.clone());
        Ok(())
    }

    /// Removes the rows of a message. Returns how many stood in tables whose writes only insert, and how many in others.
    fn rows(&mut self, place: &Place) -> Result<(u64, u64), crate::sql::Error> {
        let tables: Vec<(OriginTable, bool)> = self
            .transaction
            .prepare_cached(
                "SELECT t.name, g.id, t.updates FROM _lantern_table t
                 JOIN sqlite_schema s ON s.type = 'table' AND s.name = t.name
                 LEFT JOIN _lantern_segments g ON g.table_name = t.name WHERE t.plugin = ?1",
            )?
            .query_map([&place.plugin], |row| {
                let (name, set) = (row.get(0)?, row.get(1)?);
                Ok((OriginTable { name, set }, row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        let (mut plain, mut merged) = (0, 0);
        let (origin, sequences) = (OriginId(place.origin), (place.sequence, place.sequence));
        for (table, merges) in tables {
            let removed = table.delete(self.transaction, origin, sequences, &mut self.touched)?;
            if removed > 0 {
                *self.done.rows.entry(table.name).or_default() += removed;
            }
            *(if merges { &mut merged } else { &mut plain }) += removed;
        }
        Ok((plain, merged))
    }

    /// Counts a message of a range as dead that was projected or skipped. Returns the range's version.
    fn count_as_dead(&self, place: &Place, has_rows: bool) -> Result<Option<VersionId>, crate::sql::Error> {
        self.transaction
            .prepare_cached(
                "UPDATE _lantern_ledger SET projected = projected - CASE WHEN ?3 OR skipped = 0 THEN 1 ELSE 0 END,
                     skipped = skipped - CASE WHEN NOT ?3 AND skipped > 0 THEN 1 ELSE 0 END, dead = dead + 1
                 WHERE origin = ?1 AND first_sequence <= ?2 AND last_sequence >= ?2 AND projected + skipped > 0
                 RETURNING plugin_version",
            )?
            .query_row(params![place.origin, to_sql(place.sequence), has_rows], |row| {
                row.get(0).map(VersionId)
            })
            .optional()
    }

    /// Takes removed rows out of the ledger. Rows of merging tables were inserted by any earlier message, so they are
    /// taken from the message's range first and then from the plugin's others. The messages of those still give as many
    /// rows as before, so only the message's own range counts fewer rows.
    fn subtract(&self, place: &Place, plain: u64, merged: u64) -> Result<(), crate::sql::Error> {
        let mut left = to_sql(plain + merged);
        if left == 0 {
            return Ok(());
        }
        let mut ranges = self.transaction.prepare_cached(
            "SELECT l.id, l.inserted FROM _lantern_ledger l JOIN _lantern_origin o ON o.id = l.origin
             WHERE o.plugin = ?1 AND l.inserted > 0
             ORDER BY (l.origin = ?2 AND l.first_sequence <= ?3 AND l.last_sequence >= ?3) DESC, l.id",
        )?;
        let mut rows = ranges.query(params![place.plugin, place.origin, to_sql(place.sequence)])?;
        while left > 0
            && let Some(row) = rows.next()?
        {
            let (id, inserted): (i64, i64) = (row.get(0)?, row.get(1)?);
            let taken = left.min(inserted);
            self.transaction.execute(
                "UPDATE _lantern_ledger SET inserted = inserted - ?2, changed = max(changed - ?2, 0),
                     rows = CASE WHEN origin = ?3 AND first_sequence <= ?4 AND last_sequence >= ?4
                         THEN max(rows - ?2, 0) ELSE rows END
                 WHERE id = ?1",
                params![id, taken, place.origin, to_sql(place.sequence)],
            )?;
            left -= taken;
        }
        Ok(())
    }

    /// Removes the hashes of erased messages from the checkpoints.
    fn anchors(&self) -> Result<(), crate::sql::Error> {
        let origins: BTreeSet<i64> = self.places.iter().map(|(origin, _)| *origin).collect();
        for origin in origins {
            let Some((checkpoint, mut kept)) = read_checkpoint(self.transaction, OriginId(origin))? else {
                continue;
            };
            let is_erased = |sequence: u64| self.places.contains(&(origin, sequence));
            kept.retain(|anchor| !is_erased(anchor.sequence));
            self.transaction.execute(
                "UPDATE _lantern_checkpoint SET anchors = ?2,
                     payload_sha256 = CASE WHEN ?3 THEN NULL ELSE payload_sha256 END
                 WHERE origin = ?1",
                params![origin, anchors::encode(&kept), is_erased(checkpoint.sequence)],
            )?;
        }
        Ok(())
    }
}

/// Records that streams no longer hold messages.
pub(super) fn note_deleted(
    connection: &mut Connection,
    messages: &[OutstandingMessage],
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    let transaction = connection.begin()?;
    for message in messages {
        transaction
            .prepare_cached(
                "UPDATE _lantern_forgotten_message SET deleted_at = ?4
                 WHERE stream = ?1 AND sequence = ?2 AND published_ns = ?3",
            )?
            .execute(params![
                message.stream,
                to_sql(message.sequence),
                message.published_ns,
                now.0
            ])?;
    }
    transaction.commit()
}

/// Has the replaced tables of plugins removed by the next sweep.
pub(super) fn drop_kept(connection: &mut Connection, plugins: &[String]) -> Result<(), crate::sql::Error> {
    let transaction = connection.begin()?;
    for plugin in plugins {
        transaction.execute(
            "UPDATE _lantern_rebuild SET previous_until = NULL WHERE plugin = ?1",
            [plugin],
        )?;
    }
    transaction.commit()
}

/// Removes what changes have left in the files of the database. Returns whether that is complete.
pub(super) fn scrub(connection: &mut Connection, vacuum: bool) -> Result<bool, crate::sql::Error> {
    match connection.engine() {
        Engine::Sqlite => scrub_file(connection, vacuum),
        Engine::Postgres => scrub_server(connection, vacuum),
    }
}

/// Removes the former versions of rows from the tables that had erased content. With `copy`, copies each table into new files.
fn scrub_server(connection: &Connection, copy: bool) -> Result<bool, crate::sql::Error> {
    let mut tables: Vec<String> = connection
        .prepare("SELECT name FROM _lantern_table ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    tables.extend(["_lantern_dead_letter", "_lantern_checkpoint"].map(str::to_owned));
    let command = if copy { "VACUUM (FULL)" } else { "VACUUM" };
    // A large table takes longer than a statement of a batch may take.
    connection.execute_batch("SET statement_timeout = 0")?;
    let mut is_complete = true;
    for table in tables {
        match connection.execute_batch(&format!("{command} {}", quote_text(&table))) {
            Err(error) if error.kind() == Kind::Busy => is_complete = false,
            done => done?,
        }
    }
    connection.execute_batch("SET statement_timeout = '30s'")?;
    Ok(is_complete)
}

/// Empties the write-ahead log, after rewriting the file where that is asked for. Returns whether the log is empty.
fn scrub_file(connection: &Connection, vacuum: bool) -> Result<bool, crate::sql::Error> {
    if vacuum {
        // The copy that SQLite makes on the way would not fit into memory.
        connection.execute_batch("PRAGMA temp_store = FILE; VACUUM; PRAGMA temp_store = MEMORY")?;
    }
    let busy: u64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get(0).map(from_sql)
    })?;
    Ok(busy == 0)
}
