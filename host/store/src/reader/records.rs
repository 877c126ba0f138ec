//! The host's own records: dead letters, gaps and the ledger.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::Value;

use super::connections::Row;
use super::text::json_bytes;
use super::{Page, ReadError, Reader};
use crate::dead_letters::glob;
use lantern_model::batch::Timestamp;
use lantern_model::results::records::{DeadLetter, Gap, LedgerRange};

/// A filter for the records of a source; `None` matches everything.
#[derive(Clone, Debug, Default)]
pub struct SourceFilter {
    /// The plugin's name.
    pub plugin: Option<String>,
    /// The source's name.
    pub source: Option<String>,
}

/// A filter for dead letters; `None` matches everything.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterFilter {
    /// The plugin and source.
    pub source: SourceFilter,
    /// The class of the reason.
    pub class: Option<String>,
    /// `open`, `resolved` or `discarded`.
    pub state: Option<String>,
    /// A pattern for the reason: `*` matches any text, every other character itself.
    pub reason: Option<String>,
    /// First attempt at this time or later.
    pub since: Option<Timestamp>,
    /// First attempt before this time.
    pub until: Option<Timestamp>,
}

/// Without a cursor a list begins after its newest record; ids ascend from 1.
const NEWEST: i64 = i64::MAX;

/// Dead letters in the columns of `dead_letter`; a condition follows.
const DEAD_LETTERS: &str = "SELECT d.id, o.plugin, o.source, o.epoch, o.stream, d.sequence, d.subject, \
     d.published_ns, d.headers, d.payload, d.class, d.reason, p.version, p.digest, d.attempts, \
     d.state, d.first_at, d.last_at, o.id \
     FROM _lantern_dead_letter AS d JOIN _lantern_origin AS o ON o.id = d.origin \
     JOIN _lantern_plugin AS p ON p.id = d.plugin_version";

impl Reader {
    /// Dead letters, the newest first. `after` is the `next` of the previous page.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        limit: u32,
        after: Option<i64>,
    ) -> Result<Page<DeadLetter>, ReadError> {
        let sql = format!("{DEAD_LETTERS} WHERE {DEAD_LETTER_MATCHES} ORDER BY d.id DESC LIMIT ?9");
        let mut arguments = dead_letter_arguments(filter, after);
        arguments.push((i64::from(limit) + 1).into());
        self.page(&sql, arguments, limit, |row| {
            let dead_letter = dead_letter(row)?;
            let bytes = rendered_bytes(&dead_letter);
            Ok((dead_letter.id, dead_letter, bytes))
        })
        .await
    }

    /// The dead letter with this number, if it exists.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, ReadError> {
        let arguments = vec![id.into()];
        let sql = format!("{DEAD_LETTERS} WHERE d.id = ?1");
        let mut found = self
            .fetch_sized(&sql, arguments, 1, |row| Ok((dead_letter(row)?, 0)))
            .await?;
        Ok(found.pop())
    }

    /// Gaps, the newest first. `after` is the `next` of the previous page.
    pub async fn gaps(
        &self,
        filter: &SourceFilter,
        limit: u32,
        after: Option<i64>,
    ) -> Result<Page<Gap>, ReadError> {
        const SQL: &str = "SELECT g.id, o.plugin, o.source, o.epoch, o.stream, g.first_sequence, \
             g.last_sequence, g.exact, g.reason, g.recorded_at, o.id \
             FROM _lantern_gap AS g JOIN _lantern_origin AS o ON o.id = g.origin \
             WHERE g.id < ?1 AND (o.plugin = ?2 OR ?2 IS NULL) AND (o.source = ?3 OR ?3 IS NULL) \
             ORDER BY g.id DESC LIMIT ?4";
        let mut arguments = source_arguments(filter, after);
        arguments.push((i64::from(limit) + 1).into());
        self.page(SQL, arguments, limit, |row| {
            let gap = gap(row).map_err(ReadError::Sql)?;
            Ok((gap.id, gap, 0))
        })
        .await
    }

    /// The ledger, the newest ranges first. `after` is the `next` of the previous page.
    pub async fn ledger(
        &self,
        filter: &SourceFilter,
        limit: u32,
        after: Option<i64>,
    ) -> Result<Page<LedgerRange>, ReadError> {
        const SQL: &str = "SELECT l.id, o.plugin, o.source, o.epoch, o.stream, p.version, p.digest, \
             l.first_sequence, l.last_sequence, l.messages, l.projected, l.skipped, l.dead, l.missing, \
             l.rows, l.first_at, l.last_at, l.inserted, l.updated, max(l.rows - l.changed, 0), o.id \
             FROM _lantern_ledger AS l JOIN _lantern_origin AS o ON o.id = l.origin \
             JOIN _lantern_plugin AS p ON p.id = l.plugin_version \
             WHERE l.id < ?1 AND (o.plugin = ?2 OR ?2 IS NULL) AND (o.source = ?3 OR ?3 IS NULL) \
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

/// The approximate size of a dead letter in JSON, which contains the payload as text and in base64.
fn rendered_bytes(dead_letter: &DeadLetter) -> usize {
    let headers = dead_letter.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| json_bytes(name.as_bytes()) + json_bytes(value.as_bytes()))
        .sum();
    let texts = [
        dead_letter.subject.as_str(),
        &dead_letter.reason,
        dead_letter.payload_text.as_deref().unwrap_or_default(),
        &dead_letter.payload_base64,
    ];
    headers
        + texts
            .into_iter()
            .map(|text| json_bytes(text.as_bytes()))
            .sum::<usize>()
}

/// The condition of a filter over `d` (dead letter) and `o` (origin); its parameters are those of [`dead_letter_arguments`].
pub(super) const DEAD_LETTER_MATCHES: &str = "d.id < ?1 AND (o.plugin = ?2 OR ?2 IS NULL) \
     AND (o.source = ?3 OR ?3 IS NULL) AND (d.class = ?4 OR ?4 IS NULL) AND (d.state = ?5 OR ?5 IS NULL) \
     AND (glob(?6, d.reason) OR ?6 IS NULL) AND (d.first_at >= ?7 OR ?7 IS NULL) AND (d.first_at < ?8 OR ?8 IS NULL)";

pub(super) fn dead_letter_arguments(filter: &DeadLetterFilter, after: Option<i64>) -> Vec<Value> {
    let mut arguments = source_arguments(&filter.source, after);
    arguments.push(filter.class.clone().into());
    arguments.push(filter.state.clone().into());
    arguments.push(filter.reason.as_deref().map(glob).into());
    arguments.push(filter.since.map(|time| time.0).into());
    arguments.push(filter.until.map(|time| time.0).into());
    arguments
}

/// `?1` is the cursor, `?2` the plugin, `?3` the source.
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
) -> Result<DeadLetter, crate::sql::Error> {
    let (published_ns, payload): (i64, Vec<u8>) = (row.get(7)?, row.get(9)?);
    Ok(DeadLetter {
        id,
        plugin: row.get(1)?,
        source: row.get(2)?,
        epoch: row.get(3)?,
        stream: row.get(4)?,
        sequence: row.get(5)?,
        subject: row.get(6)?,
        published: Timestamp(published_ns.div_euclid(1_000)).to_rfc3339(),
        headers,
        payload_base64: STANDARD.encode(&payload),
        payload_text: String::from_utf8(payload).ok(),
        class: row.get(10)?,
        reason: row.get(11)?,
        version: row.get(12)?,
        digest: row.get(13)?,
        attempts: row.get(14)?,
        state: row.get(15)?,
        first_at: Timestamp(row.get(16)?).to_rfc3339(),
        last_at: Timestamp(row.get(17)?).to_rfc3339(),
        origin: row.get(18)?,
    })
}

fn gap(row: &Row) -> Result<Gap, crate::sql::Error> {
    let (first_sequence, last_sequence): (i64, i64) = (row.get(5)?, row.get(6)?);
    Ok(Gap {
        id: row.get(0)?,
        plugin: row.get(1)?,
        source: row.get(2)?,
        epoch: row.get(3)?,
        stream: row.get(4)?,
        first_sequence,
        last_sequence,
        missing: last_sequence - first_sequence + 1,
        exact: row.get::<i64>(7)? != 0,
        reason: row.get(8)?,
        recorded_at: Timestamp(row.get(9)?).to_rfc3339(),
        origin: row.get(10)?,
    })
}

fn ledger_range(row: &Row) -> Result<LedgerRange, crate::sql::Error> {
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
        first_at: Timestamp(row.get(15)?).to_rfc3339(),
        last_at: Timestamp(row.get(16)?).to_rfc3339(),
        inserted: row.get(17)?,
        updated: row.get(18)?,
        present: row.get(19)?,
        origin: row.get(20)?,
    })
}
