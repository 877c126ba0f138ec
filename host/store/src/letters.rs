//! Dead letters in the hands of an operator, or of a version that can do better: found, tried again, discarded. A letter
//! that becomes rows does so in one transaction with its own end and with the ledger, which then says that its message
//! was projected.

use rusqlite::{Connection, TransactionBehavior, params};

use super::Store;
use super::apply::{from_sql, to_sql, write_alone};
use super::commit::{Adopted, CommitError, Entry, OriginId, RowEffects};
use super::forget::{self, Screen};
use lantern_model::batch::{Delivery, Outcome, Timestamp};

/// Which dead letters are meant; what is not said is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Of this plugin.
    pub plugin: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// With this class of reason.
    pub class: Option<String>,
    /// With a reason like this: `*` stands for any text, all else for itself.
    pub reason: Option<String>,
    /// First tried at this time or later.
    pub since: Option<Timestamp>,
    /// First tried before this time.
    pub until: Option<Timestamp>,
    /// Only this one.
    pub id: Option<i64>,
}

/// A dead letter that is open, with its message.
#[derive(Clone, Debug)]
pub struct OpenLetter {
    /// Its number in this database.
    pub id: i64,
    /// The source's name.
    pub source: String,
    /// Which history of the source.
    pub origin: OriginId,
    /// The message.
    pub delivery: Delivery,
}

/// A dead letter with what became of it this time.
#[derive(Clone, Debug)]
pub struct Retried {
    /// Its number in this database.
    pub id: i64,
    /// Which history of the source.
    pub origin: OriginId,
    /// The message with its outcome.
    pub entry: Entry,
}

/// What came of trying dead letters again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Healed {
    /// Tried.
    pub tried: u64,
    /// Those that are rows now, or skipped on purpose.
    pub resolved: u64,
    /// Rows that were inserted or updated.
    pub rows: u64,
}

impl std::ops::AddAssign for Healed {
    fn add_assign(&mut self, other: Self) {
        self.tried += other.tried;
        self.resolved += other.resolved;
        self.rows += other.rows;
    }
}

/// Bytes of payloads after which a page of letters ends.
const PAGE_BYTES: usize = 4 << 20;

impl Store {
    /// Open dead letters in the order of their arrival, at most `limit`, beginning behind the one with number `after`.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`], here and below.
    pub async fn open_letters(
        &self,
        filter: LetterFilter,
        after: i64,
        limit: u32,
    ) -> Result<Vec<OpenLetter>, CommitError> {
        self.call(move |connection| open_letters(connection, &filter, after, limit))
            .await
    }

    /// Writes what became of dead letters that were tried again: rows, the end of the letter and the ledger together.
    /// Letters that are not open any more are left alone.
    ///
    /// # Errors
    /// As for [`Store::open_letters`]; nothing has changed then.
    pub async fn heal(&self, plugin: Adopted, retried: Vec<Retried>) -> Result<Healed, CommitError> {
        self.call(move |connection| heal(connection, &plugin, retried))
            .await
    }

    /// Gives up open dead letters. Their messages stay accounted for as dead; the letters stay to be read.
    /// Returns how many.
    ///
    /// # Errors
    /// As for [`Store::open_letters`].
    pub async fn discard_letters(&self, filter: LetterFilter) -> Result<u64, CommitError> {
        self.call(move |connection| discard(connection, &filter)).await
    }

    /// Gives up the oldest open dead letters of a plugin's source until `keep` are left. Returns how many.
    ///
    /// # Errors
    /// As for [`Store::open_letters`].
    pub async fn discard_oldest_letters(
        &self,
        plugin: &str,
        source: &str,
        keep: u64,
    ) -> Result<u64, CommitError> {
        let (plugin, source) = (plugin.to_owned(), source.to_owned());
        self.call(move |connection| discard_oldest(connection, &plugin, &source, keep))
            .await
    }

    /// How many dead letters of a source are open, in all its histories.
    ///
    /// # Errors
    /// As for [`Store::open_letters`].
    pub async fn count_open_letters(&self, plugin: &str, source: &str) -> Result<u64, CommitError> {
        let (plugin, source) = (plugin.to_owned(), source.to_owned());
        self.call(move |connection| count_open(connection, &plugin, &source))
            .await
    }
}

pub(super) fn count_open(
    connection: &Connection,
    plugin: &str,
    source: &str,
) -> Result<u64, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT count(*) FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
             WHERE o.plugin = ?1 AND o.source = ?2 AND d.state = 'open'",
        )?
        .query_row([plugin, source], |row| row.get(0).map(from_sql))
}

/// The conditions of a filter over `d` (letter) and `o` (origin); its parameters are `?1` to `?7`.
const MATCHES: &str = "d.state = 'open' AND (?1 IS NULL OR o.plugin = ?1) AND (?2 IS NULL OR o.source = ?2)
     AND (?3 IS NULL OR d.class = ?3) AND (?4 IS NULL OR d.first_at >= ?4) AND (?5 IS NULL OR d.first_at < ?5)
     AND (?6 IS NULL OR d.id = ?6) AND (?7 IS NULL OR d.reason GLOB ?7)";

/// What a reason is to be like, for SQLite's GLOB, which knows more signs than the star.
pub(super) fn glob(like: &str) -> String {
    like.replace('[', "[[]").replace('?', "[?]")
}

fn open_letters(
    connection: &Connection,
    filter: &LetterFilter,
    after: i64,
    limit: u32,
) -> Result<Vec<OpenLetter>, rusqlite::Error> {
    letters_where(
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

/// Letters for which a condition over `d` (letter) and `o` (origin) holds, in the order of their arrival; `limit` is the
/// parameter that says how many.
pub(super) fn letters_where(
    connection: &Connection,
    condition: &str,
    parameters: &[&dyn rusqlite::ToSql],
    limit: &str,
) -> Result<Vec<OpenLetter>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT d.id, o.source, d.origin, d.sequence, d.subject, d.published_ns, d.headers, d.payload
         FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
         WHERE {condition} ORDER BY d.id LIMIT {limit}"
    ))?;
    let mut rows = statement.query(parameters)?;
    let mut letters = Vec::new();
    let mut bytes = 0;
    while bytes < PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let headers: String = row.get(6)?;
        let headers = serde_json::from_str(&headers).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, Box::new(error))
        })?;
        let payload: Vec<u8> = row.get(7)?;
        bytes += payload.len();
        letters.push(OpenLetter {
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
    Ok(letters)
}

fn heal(
    connection: &mut Connection,
    plugin: &Adopted,
    retried: Vec<Retried>,
) -> Result<Healed, rusqlite::Error> {
    let now = Timestamp::now();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut healed = Healed::default();
    for Retried {
        id,
        origin,
        mut entry,
    } in retried
    {
        let open: bool = transaction
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM _lantern_dead_letter WHERE id = ?1 AND state = 'open')",
            )?
            .query_row([id], |row| row.get(0))?;
        if !open {
            continue;
        }
        let sequence = entry.delivery.sequence;
        screen_one(&transaction, plugin, origin, &mut entry, now)?;
        if entry.outcome.is_forgotten() {
            forget::wipe_letter(&transaction, origin, sequence, now)?;
            continue;
        }
        healed.tried += 1;
        let effects = write_alone(&transaction, plugin, origin, &mut entry)?;
        match &entry.outcome {
            Outcome::Reject(rejection) => {
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
                    ])?;
            }
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
                account(&transaction, origin, entry.delivery.sequence, rows, effects)?;
                healed.resolved += 1;
                healed.rows += effects.inserted + effects.updated;
            }
        }
    }
    transaction.commit()?;
    Ok(healed)
}

/// Applies what operators had erased to one message that is projected again.
pub(super) fn screen_one(
    connection: &Connection,
    plugin: &Adopted,
    origin: OriginId,
    entry: &mut Entry,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    let sequence = entry.delivery.sequence;
    let stretch = (sequence.saturating_sub(1), sequence);
    let entries = std::slice::from_mut(entry);
    let name = plugin.manifest.name.as_str();
    let screen = Screen::load(connection, name, origin, stretch, entries)?;
    screen.apply(connection, &plugin.manifest, origin, entries, now)
}

/// Moves one message of a range of the ledger from the dead to the projected, or to the skipped where it gave no rows.
fn account(
    connection: &Connection,
    origin: OriginId,
    sequence: u64,
    rows: u64,
    effects: RowEffects,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "UPDATE _lantern_ledger SET dead = dead - 1, projected = projected + (?3 > 0),
                 skipped = skipped + (?3 = 0), rows = rows + ?3, changed = changed + ?4 + ?5,
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

fn discard(connection: &Connection, filter: &LetterFilter) -> Result<u64, rusqlite::Error> {
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
) -> Result<u64, rusqlite::Error> {
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
