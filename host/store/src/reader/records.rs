//! The host's own records: dead letters, gaps and the ledger.

use rusqlite::types::Value;

use super::connections::Row;
use super::{Page, ReadError, Reader};
use crate::letters::glob;
use lantern_model::batch::Timestamp;

/// Which source's records are wanted; none means any.
#[derive(Clone, Debug, Default)]
pub struct SourceFilter {
    /// The plugin's name.
    pub plugin: Option<String>,
    /// The source's name.
    pub source: Option<String>,
}

/// Which dead letters are wanted; none means any.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterFilter {
    /// Whose.
    pub source: SourceFilter,
    /// The kind of reason.
    pub class: Option<String>,
    /// `open`, `resolved` or `discarded`.
    pub state: Option<String>,
    /// What the reason is like: `*` stands for any text, all else for itself.
    pub reason: Option<String>,
    /// First tried at this time or later.
    pub since: Option<Timestamp>,
    /// First tried before this time.
    pub until: Option<Timestamp>,
}

/// A message that could not be projected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number in this database.
    pub id: i64,
    /// The plugin that it was for.
    pub plugin: String,
    /// The plugin's source.
    pub source: String,
    /// The source's epoch.
    pub epoch: i64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// Its sequence there.
    pub sequence: i64,
    /// Where it was published.
    pub subject: String,
    /// When.
    pub published: Timestamp,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// The kind of reason.
    pub class: String,
    /// The reason.
    pub reason: String,
    /// The plugin's version that tried last.
    pub version: String,
    /// That version's digest.
    pub digest: String,
    /// How often it was tried.
    pub attempts: i64,
    /// `open`, `resolved` or `discarded`.
    pub state: String,
    /// When it was first tried.
    pub first_at: Timestamp,
    /// When it was last tried.
    pub last_at: Timestamp,
}

/// Sequences that were gone from the stream before they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its number in this database.
    pub id: i64,
    /// The plugin.
    pub plugin: String,
    /// The plugin's source.
    pub source: String,
    /// The source's epoch.
    pub epoch: i64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The first that was gone.
    pub first_sequence: i64,
    /// The last that was gone.
    pub last_sequence: i64,
    /// Whether all of them were this source's.
    pub exact: bool,
    /// Why, in words.
    pub reason: String,
    /// When it was noticed.
    pub recorded_at: Timestamp,
}

/// Which version handled which sequences, and what became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRange {
    /// Its number in this database.
    pub id: i64,
    /// The plugin.
    pub plugin: String,
    /// The plugin's source.
    pub source: String,
    /// The source's epoch.
    pub epoch: i64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The plugin's version.
    pub version: String,
    /// That version's digest.
    pub digest: String,
    /// The first sequence of the range.
    pub first_sequence: i64,
    /// The last.
    pub last_sequence: i64,
    /// Messages handled: projected, skipped and dead together.
    pub messages: i64,
    /// Those that became rows.
    pub projected: i64,
    /// Those that the plugin passed over.
    pub skipped: i64,
    /// Those that became dead letters.
    pub dead: i64,
    /// Sequences that were gone before they were read.
    pub missing: i64,
    /// Rows that the plugin answered with.
    pub rows: i64,
    /// Those that were inserted.
    pub inserted: i64,
    /// Those that changed a stored row.
    pub updated: i64,
    /// Those that changed nothing, because a row with their key was there already.
    pub present: i64,
    /// When the first batch of the range was stored.
    pub first_at: Timestamp,
    /// When the last one was.
    pub last_at: Timestamp,
}

/// Without a cursor a list begins past its newest record; ids are given upwards from 1.
const NEWEST: i64 = i64::MAX;

/// Dead letters as `dead_letter` reads them, to be followed by what is wanted of them.
const DEAD_LETTERS: &str = "SELECT d.id, o.plugin, o.source, o.epoch, o.stream, d.sequence, d.subject, \
     d.published_ns, d.headers, d.payload, d.class, d.reason, p.version, p.digest, d.attempts, \
     d.state, d.first_at, d.last_at \
     FROM _lantern_dead_letter AS d JOIN _lantern_origin AS o ON o.id = d.origin \
     JOIN _lantern_plugin AS p ON p.id = d.plugin_version";

impl Reader {
    /// Dead letters, the newest first. `after` is the `next` of the page before.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        limit: u32,
        after: Option<i64>,
    ) -> Result<Page<DeadLetter>, ReadError> {
        let sql = format!("{DEAD_LETTERS} WHERE {LETTER_MATCHES} ORDER BY d.id DESC LIMIT ?9");
        let mut arguments = letter_arguments(filter, after);
        arguments.push((i64::from(limit) + 1).into());
        self.page(&sql, arguments, limit, |row| {
            let letter = dead_letter(row)?;
            let bytes = letter.payload.len() + letter.reason.len() + letter.subject.len();
            Ok((letter.id, letter, bytes))
        })
        .await
    }

    /// The dead letter with this number, if there is one.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, ReadError> {
        let arguments = vec![id.into()];
        let sql = format!("{DEAD_LETTERS} WHERE d.id = ?1");
        let mut found = self
            .fetch_sized(&sql, arguments, 1, |row| Ok((dead_letter(row)?, 0)))
            .await?;
        Ok(found.pop())
    }

    /// Gaps, the newest first. `after` is the `next` of the page before.
    pub async fn gaps(
        &self,
        filter: &SourceFilter,
        limit: u32,
        after: Option<i64>,
    ) -> Result<Page<Gap>, ReadError> {
        const SQL: &str = "SELECT g.id, o.plugin, o.source, o.epoch, o.stream, g.first_sequence, \
             g.last_sequence, g.exact, g.reason, g.recorded_at \
             FROM _lantern_gap AS g JOIN _lantern_origin AS o ON o.id = g.origin \
             WHERE g.id < ?1 AND (?2 IS NULL OR o.plugin = ?2) AND (?3 IS NULL OR o.source = ?3) \
             ORDER BY g.id DESC LIMIT ?4";
        let mut arguments = source_arguments(filter, after);
        arguments.push((i64::from(limit) + 1).into());
        self.page(SQL, arguments, limit, |row| {
            let gap = gap(row).map_err(ReadError::Sql)?;
            Ok((gap.id, gap, 0))
        })
        .await
    }

    /// The ledger, the newest ranges first. `after` is the `next` of the page before.
    pub async fn ledger(
        &self,
        filter: &SourceFilter,
        limit: u32,
        after: Option<i64>,
    ) -> Result<Page<LedgerRange>, ReadError> {
        const SQL: &str = "SELECT l.id, o.plugin, o.source, o.epoch, o.stream, p.version, p.digest, \
             l.first_sequence, l.last_sequence, l.messages, l.projected, l.skipped, l.dead, l.missing, \
             l.rows, l.first_at, l.last_at, l.inserted, l.updated, max(l.rows - l.changed, 0) \
             FROM _lantern_ledger AS l JOIN _lantern_origin AS o ON o.id = l.origin \
             JOIN _lantern_plugin AS p ON p.id = l.plugin_version \
             WHERE l.id < ?1 AND (?2 IS NULL OR o.plugin = ?2) AND (?3 IS NULL OR o.source = ?3) \
             ORDER BY l.id DESC LIMIT ?4";
        let mut arguments = source_arguments(filter, after);
        arguments.push((i64::from(limit) + 1).into());
        self.page(SQL, arguments, limit, |row| {
            let range = ledger_range(row).map_err(ReadError::Sql)?;
            Ok((range.id, range, 0))
        })
        .await
    }
}

/// The condition of a filter over `d` (letter) and `o` (origin); its parameters are those of [`letter_arguments`].
pub(super) const LETTER_MATCHES: &str = "d.id < ?1 AND (?2 IS NULL OR o.plugin = ?2) \
     AND (?3 IS NULL OR o.source = ?3) AND (?4 IS NULL OR d.class = ?4) AND (?5 IS NULL OR d.state = ?5) \
     AND (?6 IS NULL OR d.reason GLOB ?6) AND (?7 IS NULL OR d.first_at >= ?7) AND (?8 IS NULL OR d.first_at < ?8)";

pub(super) fn letter_arguments(filter: &DeadLetterFilter, after: Option<i64>) -> Vec<Value> {
    let mut arguments = source_arguments(&filter.source, after);
    arguments.push(filter.class.clone().into());
    arguments.push(filter.state.clone().into());
    arguments.push(filter.reason.as_deref().map(glob).into());
    arguments.push(filter.since.map(|time| time.0).into());
    arguments.push(filter.until.map(|time| time.0).into());
    arguments
}

/// `?1` the cursor, `?2` the plugin, `?3` the source.
fn source_arguments(filter: &SourceFilter, after: Option<i64>) -> Vec<Value> {
    let arguments = vec![
        after.unwrap_or(NEWEST).into(),
        filter.plugin.clone().into(),
        filter.source.clone().into(),
    ];
    arguments
}

fn dead_letter(row: &Row) -> Result<DeadLetter, ReadError> {
    let headers: String = row.get(8).map_err(ReadError::Sql)?;
    let id: i64 = row.get(0).map_err(ReadError::Sql)?;
    let headers = serde_json::from_str(&headers)
        .map_err(|error| ReadError::corrupt(format!("the headers of dead letter {id}"), error))?;
    dead_letter_columns(row, id, headers).map_err(ReadError::Sql)
}

fn dead_letter_columns(
    row: &Row,
    id: i64,
    headers: Vec<(String, String)>,
) -> Result<DeadLetter, rusqlite::Error> {
    let published_ns: i64 = row.get(7)?;
    Ok(DeadLetter {
        id,
        plugin: row.get(1)?,
        source: row.get(2)?,
        epoch: row.get(3)?,
        stream: row.get(4)?,
        sequence: row.get(5)?,
        subject: row.get(6)?,
        published: Timestamp(published_ns.div_euclid(1_000)),
        headers,
        payload: row.get(9)?,
        class: row.get(10)?,
        reason: row.get(11)?,
        version: row.get(12)?,
        digest: row.get(13)?,
        attempts: row.get(14)?,
        state: row.get(15)?,
        first_at: Timestamp(row.get(16)?),
        last_at: Timestamp(row.get(17)?),
    })
}

fn gap(row: &Row) -> Result<Gap, rusqlite::Error> {
    Ok(Gap {
        id: row.get(0)?,
        plugin: row.get(1)?,
        source: row.get(2)?,
        epoch: row.get(3)?,
        stream: row.get(4)?,
        first_sequence: row.get(5)?,
        last_sequence: row.get(6)?,
        exact: row.get::<i64>(7)? != 0,
        reason: row.get(8)?,
        recorded_at: Timestamp(row.get(9)?),
    })
}

fn ledger_range(row: &Row) -> Result<LedgerRange, rusqlite::Error> {
    Ok(LedgerRange {
        id: row.get(0)?,
        plugin: row.get(1)?,
        source: row.get(2)?,
        epoch: row.get(3)?,
        stream: row.get(4)?,
        version: row.get(5)?,
        digest: row.get(6)?,
        first_sequence: row.get(7)?,
        last_sequence: row.get(8)?,
        messages: row.get(9)?,
        projected: row.get(10)?,
        skipped: row.get(11)?,
        dead: row.get(12)?,
        missing: row.get(13)?,
        rows: row.get(14)?,
        first_at: Timestamp(row.get(15)?),
        last_at: Timestamp(row.get(16)?),
        inserted: row.get(17)?,
        updated: row.get(18)?,
        present: row.get(19)?,
    })
}
