//! Open dead letters: reading them with their messages, recording retries, discarding them. A retry that succeeds writes
//! the rows, resolves the dead letter and counts its message as projected in the ledger, in one transaction.

use crate::sql::{Connection, Transaction, params};

use super::apply::write_alone;
use super::commit::{Adopted, CommitError, Entry, OriginId, RowEffects};
use super::forget::{self, Screen};
use super::read_error::ReadError;
use super::reader::Reader;
use super::values::{from_sql, to_sql};
use super::{AuditMark, Store};
use lantern_model::batch::{Delivery, Outcome, Rejection, Timestamp};

/// A filter for open dead letters; `None` matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenDeadLetterFilter {
    /// The plugin.
    pub plugin: Option<String>,
    /// The source.
    pub source: Option<String>,
    /// The class of the reason.
    pub class: Option<String>,
    /// A pattern for the reason: `*` matches any text, every other character itself.
    pub reason: Option<String>,
    /// First attempt at this time or later.
    pub since: Option<Timestamp>,
    /// First attempt before this time.
    pub until: Option<Timestamp>,
    /// The dead letter with this number.
    pub id: Option<i64>,
}

/// An open dead letter with its message.
#[derive(Clone, Debug)]
pub struct OpenDeadLetter {
    /// The number in this database.
    pub id: i64,
    /// The source's name.
    pub source: String,
    /// The epoch of the source.
    pub origin: OriginId,
    /// The message.
    pub delivery: Delivery,
}

/// A retried dead letter.
#[derive(Clone, Debug)]
pub struct RetriedDeadLetter {
    /// The number in this database.
    pub id: i64,
    /// The epoch of the source.
    pub origin: OriginId,
    /// The message with its outcome.
    pub entry: Entry,
}

/// The totals of retried dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryTotals {
    /// Retried dead letters.
    pub tried: u64,
    /// Resolved: their messages became rows or were skipped.
    pub resolved: u64,
    /// The effects on rows.
    pub effects: RowEffects,
}

impl std::ops::AddAssign for RetryTotals {
    fn add_assign(&mut self, other: Self) {
        self.tried += other.tried;
        self.resolved += other.resolved;
        self.effects += other.effects;
    }
}

/// Bytes of payloads after which a page of dead letters ends.
const PAGE_BYTES: usize = 4 << 20;

/// Changes to dead letters.
#[derive(Clone, Copy)]
pub struct DeadLetters<'a>(&'a Store);

impl Store {
    /// Changes to dead letters.
    pub fn dead_letters(&self) -> DeadLetters<'_> {
        DeadLetters(self)
    }
}

impl DeadLetters<'_> {
    /// Writes the outcomes of retried dead letters: rows, the state of the dead letter and the ledger together. Skips dead
    /// letters that are no longer open.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`]; nothing has changed then.
    pub async fn record_retries(
        self,
        plugin: Adopted,
        retried: Vec<RetriedDeadLetter>,
    ) -> Result<RetryTotals, CommitError> {
        self.0
            .call(move |connection| record_retries(connection, &plugin, retried))
            .await
    }

    /// Discards open dead letters, with their entry in the audit. Their messages remain counted as dead, and the dead
    /// letters remain readable. Returns how many.
    ///
    /// # Errors
    /// As for [`DeadLetters::record_retries`].
    pub async fn discard(
        self,
        filter: OpenDeadLetterFilter,
        mark: Option<AuditMark>,
    ) -> Result<u64, CommitError> {
        let change = move |connection: &Transaction<'_>| discard(connection, &filter);
        let describe = |discarded: &u64| Some(format!("{discarded} discarded"));
        self.0.change(mark, change, describe).await
    }

    /// Discards the oldest open dead letters of a plugin's source until `keep` remain. Returns how many.
    ///
    /// # Errors
    /// As for [`DeadLetters::record_retries`].
    pub async fn discard_oldest(self, plugin: &str, source: &str, keep: u64) -> Result<u64, CommitError> {
        let (plugin, source) = (plugin.to_owned(), source.to_owned());
        self.0
            .call(move |connection| discard_oldest(connection, &plugin, &source, keep))
            .await
    }
}

impl Reader {
    /// Open dead letters in the order of arrival, at most `limit`, after the one with number `after`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn open_dead_letters(
        &self,
        filter: OpenDeadLetterFilter,
        after: i64,
        limit: u32,
    ) -> Result<Vec<OpenDeadLetter>, ReadError> {
        self.snapshot(move |connection| Ok(open_dead_letters(connection, &filter, after, limit)?))
            .await
    }

    /// The number of open dead letters of a source, in all its epochs.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn count_open_dead_letters(&self, plugin: &str, source: &str) -> Result<u64, ReadError> {
        let (plugin, source) = (plugin.to_owned(), source.to_owned());
        self.snapshot(move |connection| Ok(count_open(connection, &plugin, &source)?))
            .await
    }
}

pub(super) fn count_open(
    connection: &Connection,
    plugin: &str,
    source: &str,
) -> Result<u64, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT count(*) FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
             WHERE o.plugin = ?1 AND o.source = ?2 AND d.state = 'open'",
        )?
        .query_row([plugin, source], |row| row.get(0).map(from_sql))
}

/// The conditions of a filter over `d` (dead letter) and `o` (origin); its parameters are `?1` to `?7`.
const MATCHES: &str = "d.state = 'open' AND (o.plugin = ?1 OR ?1 IS NULL) AND (o.source = ?2 OR ?2 IS NULL)
     AND (d.class = ?3 OR ?3 IS NULL) AND (d.first_at >= ?4 OR ?4 IS NULL) AND (d.first_at < ?5 OR ?5 IS NULL)
     AND (d.id = ?6 OR ?6 IS NULL) AND (glob(?7, d.reason) OR ?7 IS NULL)";

/// A pattern for `glob`, in which only `*` is special.
pub(super) fn glob(like: &str) -> String {
    like.replace('[', "[[]").replace('?', "[?]")
}

fn open_dead_letters(
    connection: &Connection,
    filter: &OpenDeadLetterFilter,
    after: i64,
    limit: u32,
) -> Result<Vec<OpenDeadLetter>, crate::sql::Error> {
    dead_letters_where(
        connection,
        &format!("{MATCHES} AND d.id > ?8"),
        params![
            filter.plugin,
            filter.source,
            filter.class,
            filter.since.map(|time| time.0),
            filter.until.map(|time| time.0),
            filter.id,
            filter.reason.as_deref().map(glob),
            after,
            limit
        ],
        "?9",
    )
}

/// Dead letters for which a condition over `d` (dead letter) and `o` (origin) holds, in the order of arrival; `limit` is the
/// parameter with their maximum number.
pub(super) fn dead_letters_where(
    connection: &Connection,
    condition: &str,
    parameters: &[&dyn rusqlite::ToSql],
    limit: &str,
) -> Result<Vec<OpenDeadLetter>, crate::sql::Error> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT d.id, o.source, d.origin, d.sequence, d.subject, d.published_ns, d.headers, d.payload
         FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
         WHERE {condition} ORDER BY d.id LIMIT {limit}"
    ))?;
    let mut rows = statement.query(parameters)?;
    let mut dead_letters = Vec::new();
    let mut bytes = 0;
    while bytes < PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let headers: String = row.get(6)?;
        let headers = serde_json::from_str(&headers).map_err(|error| crate::sql::Error::decode(6, error))?;
        let payload: Vec<u8> = row.get(7)?;
        bytes += payload.len();
        dead_letters.push(OpenDeadLetter {
            id: row.get(0)?,
            source: row.get(1)?,
            origin: OriginId(row.get(2)?),
            delivery: Delivery {
                subject: row.get(4)?,
                sequence: from_sql(row.get(3)?),
                published_ns: row.get(5)?,
                headers,
                payload: payload.into(),
            },
        });
    }
    Ok(dead_letters)
}

fn record_retries(
    connection: &mut Connection,
    plugin: &Adopted,
    retried: Vec<RetriedDeadLetter>,
) -> Result<RetryTotals, crate::sql::Error> {
    let now = Timestamp::now();
    let transaction = connection.begin()?;
    let mut totals = RetryTotals::default();
    for dead_letter in retried {
        record_retry(&transaction, plugin, dead_letter, now, &mut totals)?;
    }
    transaction.commit()?;
    Ok(totals)
}

/// Records the retry of one dead letter, if it is still open.
fn record_retry(
    transaction: &Connection,
    plugin: &Adopted,
    retried: RetriedDeadLetter,
    now: Timestamp,
    totals: &mut RetryTotals,
) -> Result<(), crate::sql::Error> {
    let RetriedDeadLetter {
        id,
        origin,
        mut entry,
    } = retried;
    let open: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM _lantern_dead_letter WHERE id = ?1 AND state = 'open')",
        )?
        .query_row([id], |row| row.get(0))?;
    if !open {
        return Ok(());
    }
    let sequence = entry.delivery.sequence;
    screen_one(transaction, plugin, origin, &mut entry, now)?;
    if entry.outcome.is_forgotten() {
        forget::wipe_dead_letter(transaction, origin, sequence, now)?;
        return Ok(());
    }
    totals.tried += 1;
    let effects = write_alone(transaction, plugin, origin, &mut entry)?;
    match &entry.outcome {
        Outcome::Reject(rejection) => record_rejection(transaction, id, plugin, rejection, now)?,
        outcome => {
            let rows = match outcome {
                Outcome::Rows(rows) => rows.len() as u64,
                _ => 0,
            };
            transaction
                .prepare_cached(
                    "UPDATE _lantern_dead_letter SET state = 'resolved', resolved_by = ?2,
                         attempts = attempts + 1, last_at = ?3 WHERE id = ?1",
                )?
                .execute(params![id, plugin.version.0, now.0])?;
            account(transaction, origin, entry.delivery.sequence, rows, effects)?;
            totals.resolved += 1;
            totals.effects += effects;
        }
    }
    Ok(())
}

/// Records that the retry of a dead letter was rejected again.
fn record_rejection(
    transaction: &Connection,
    id: i64,
    plugin: &Adopted,
    rejection: &Rejection,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    transaction
        .prepare_cached(
            "UPDATE _lantern_dead_letter SET plugin_version = ?2, class = ?3, reason = ?4,
                 attempts = attempts + 1, last_at = ?5 WHERE id = ?1",
        )?
        .execute(params![
            id,
            plugin.version.0,
            rejection.class.as_str(),
            rejection.reason,
            now.0
        ])
        .map(|_| ())
}

/// Applies what operators had erased to one message that is projected again.
pub(super) fn screen_one(
    connection: &Connection,
    plugin: &Adopted,
    origin: OriginId,
    entry: &mut Entry,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    let sequence = entry.delivery.sequence;
    let stretch = (sequence.saturating_sub(1), sequence);
    let entries = std::slice::from_mut(entry);
    let name = plugin.manifest.name.as_str();
    let screen = Screen::load(connection, name, origin, stretch, entries)?;
    screen.apply(connection, &plugin.manifest, origin, entries, now)
}

/// Counts one message of a ledger range as projected, or as skipped if it has no rows, instead of dead.
fn account(
    connection: &Connection,
    origin: OriginId,
    sequence: u64,
    rows: u64,
    effects: RowEffects,
) -> Result<(), crate::sql::Error> {
    connection
        .prepare_cached(
            "UPDATE _lantern_ledger SET dead = dead - 1, projected = projected + CASE WHEN ?3 > 0 THEN 1 ELSE 0 END,
                 skipped = skipped + CASE WHEN ?3 = 0 THEN 1 ELSE 0 END, rows = rows + ?3, changed = changed + ?4 + ?5,
                 inserted = inserted + ?4, updated = updated + ?5
             WHERE origin = ?1 AND first_sequence <= ?2 AND last_sequence >= ?2",
        )?
        .execute(params![
            origin.0,
            to_sql(sequence),
            to_sql(rows),
            to_sql(effects.inserted),
            to_sql(effects.updated)
        ])
        .map(|_| ())
}

fn discard(connection: &Connection, filter: &OpenDeadLetterFilter) -> Result<u64, crate::sql::Error> {
    connection
        .execute(
            &format!(
                "UPDATE _lantern_dead_letter SET state = 'discarded', last_at = ?8 WHERE id IN (
                     SELECT d.id FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
                     WHERE {MATCHES})"
            ),
            params![
                filter.plugin,
                filter.source,
                filter.class,
                filter.since.map(|time| time.0),
                filter.until.map(|time| time.0),
                filter.id,
                filter.reason.as_deref().map(glob),
                Timestamp::now().0
            ],
        )
        .map(|discarded| discarded as u64)
}

fn discard_oldest(
    connection: &Connection,
    plugin: &str,
    source: &str,
    keep: u64,
) -> Result<u64, crate::sql::Error> {
    let open = count_open(connection, plugin, source)?;
    connection
        .execute(
            "UPDATE _lantern_dead_letter SET state = 'discarded', last_at = ?4 WHERE id IN (
                 SELECT d.id FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
                 WHERE o.plugin = ?1 AND o.source = ?2 AND d.state = 'open' ORDER BY d.id LIMIT ?3)",
            params![
                plugin,
                source,
                to_sql(open.saturating_sub(keep)),
                Timestamp::now().0
            ],
        )
        .map(|discarded| discarded as u64)
}
