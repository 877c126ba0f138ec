//! The rules that keep erased content from coming back, applied to every batch before its rows are written: a message
//! that was erased, or whose rows hold an erased value, becomes a dead letter without content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::sql::{Connection, OptionalExtension as _, params};
use hmac::{Hmac, KeyInit, Mac};
use rusqlite::types::ValueRef;
use sha2::Sha256;

use crate::commit::{Commit, Entry, NewGap, OriginId, VersionId};
use crate::values::stored;
use crate::values::{from_sql, to_sql};
use lantern_model::batch::{Outcome, Timestamp, Value};
use lantern_model::schema::Manifest;

/// The name of the key of the digests among the facts about the database.
pub(crate) const KEY_FACT: &str = "forget_key";

/// Erased values are stored without the key of their digests, so that no batch can be compared with them.
#[derive(Debug, thiserror::Error)]
#[error(
    "the key of the erased values (`{KEY_FACT}`) is missing in the database, so erased content cannot be recognised: \
     restore the database from a backup"
)]
struct KeyMissing;

impl From<KeyMissing> for crate::sql::Error {
    fn from(error: KeyMissing) -> Self {
        Self::encode(error)
    }
}

fn stored_key(connection: &Connection) -> Result<Option<String>, crate::sql::Error> {
    let sql = "SELECT value FROM _lantern_host WHERE key = ?1";
    connection.query_row(sql, [KEY_FACT], |row| row.get(0)).optional()
}

/// The key of the digests, which the first erased value creates.
///
/// # Errors
/// Also when values were erased under a key that is missing now: a new key would not recognise them.
pub(super) fn ensure_key(
    connection: &Connection,
    make: impl FnOnce() -> String,
) -> Result<String, crate::sql::Error> {
    if let Some(key) = stored_key(connection)? {
        return Ok(key);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM _lantern_forgotten_value)";
    if connection.query_row(sql, [], |row| row.get(0))? {
        return Err(KeyMissing.into());
    }
    let key = make();
    connection.execute(
        "INSERT INTO _lantern_host (key, value) VALUES (?1, ?2)",
        [KEY_FACT, &key],
    )?;
    Ok(key)
}

/// SHA-256 of a value under the database's key.
pub(crate) type ValueDigest = [u8; 32];

/// The digest of a value of a column. None when the key cannot be used, which HMAC never says.
pub(crate) fn digest(
    key: &str,
    (plugin, table, column): (&str, &str, &str),
    value: &Value,
) -> Option<ValueDigest> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
    for part in [plugin, table, column] {
        mac.update(part.as_bytes());
        mac.update(&[0]);
    }
    let (kind, number, bytes);
    (kind, bytes) = match stored(value) {
        ValueRef::Null => return None,
        ValueRef::Integer(integer) => {
            number = integer.to_be_bytes();
            (1, number.as_slice())
        }
        // SQLite finds 0.0 where -0.0 was asked for.
        ValueRef::Real(real) => {
            number = (real + 0.0).to_be_bytes();
            (2, number.as_slice())
        }
        ValueRef::Text(text) => (3, text),
        ValueRef::Blob(bytes) => (4, bytes),
    };
    mac.update(&[kind]);
    mac.update(bytes);
    Some(mac.finalize().into_bytes().into())
}

/// Erased values of the tables of one plugin.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForgottenValues {
    plugin: String,
    key: String,
    /// By table and column: the digests, each with the broker's time of the last message that it holds for.
    columns: BTreeMap<(String, String), BTreeMap<ValueDigest, i64>>,
}

impl ForgottenValues {
    /// Those that hold for messages which the broker stored at `from_ns` or later.
    ///
    /// # Errors
    /// Also when there are such values and their key is missing.
    pub(crate) fn load(
        connection: &Connection,
        plugin: &str,
        from_ns: i64,
    ) -> Result<Self, crate::sql::Error> {
        let mut columns: BTreeMap<(String, String), BTreeMap<ValueDigest, i64>> = BTreeMap::new();
        let mut statement = connection.prepare_cached(
            "SELECT table_name, column_name, digest, through_ns FROM _lantern_forgotten_value
             WHERE plugin = ?1 AND through_ns >= ?2",
        )?;
        let mut rows = statement.query(params![plugin, from_ns])?;
        while let Some(row) = rows.next()? {
            let digests = columns.entry((row.get(0)?, row.get(1)?)).or_default();
            digests.insert(row.get(2)?, row.get(3)?);
        }
        if columns.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self {
            plugin: plugin.to_owned(),
            key: stored_key(connection)?.ok_or(KeyMissing)?,
            columns,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether a message that the broker stored at `published_ns` may not give this value.
    pub(crate) fn holds(&self, place: (&str, &str), value: &Value, published_ns: i64) -> bool {
        let (table, column) = place;
        let Some(digests) = self.columns.get(&(table.to_owned(), column.to_owned())) else {
            return false;
        };
        digest(&self.key, (&self.plugin, table, column), value)
            .and_then(|digest| digests.get(&digest))
            .is_some_and(|through| published_ns <= *through)
    }

    fn hold_for(&self, manifest: &Manifest, entry: &Entry) -> bool {
        let Outcome::Rows(rows) = &entry.outcome else {
            return false;
        };
        rows.iter().any(|row| {
            let Some(write) = manifest.writes.get(row.write as usize) else {
                return false;
            };
            let table = manifest.table_of(write);
            write.columns.iter().zip(&row.values).any(|(&column, value)| {
                let place = (table.name.as_str(), table.columns[column].name.as_str());
                self.holds(place, value, entry.delivery.published_ns)
            })
        })
    }
}

/// Applies what operators had erased: such messages become dead letters without content. Returns those
/// that are gone from the stream, with their times; they are messages of the batch all the same, and no gap.
pub(crate) fn screen_commit(
    connection: &Connection,
    commit: &mut Commit,
    now: Timestamp,
) -> Result<BTreeMap<u64, i64>, crate::sql::Error> {
    let manifest = Arc::clone(&commit.plugin.manifest);
    let stretch = (commit.after, commit.through.sequence);
    let screen = Screen::load(
        connection,
        manifest.name.as_str(),
        commit.stamp,
        stretch,
        &commit.entries,
    )?;
    screen.apply(connection, &manifest, commit.stamp, &mut commit.entries, now)?;
    if commit
        .entries
        .last()
        .is_some_and(|entry| entry.outcome.is_forgotten())
    {
        // Not even a hash of it is kept.
        commit.through.payload_sha256 = None;
    }
    let gone = screen.gone(&commit.entries, &commit.gaps, commit.stamp != commit.origin);
    commit.gaps = without(&commit.gaps, &gone);
    Ok(gone)
}

/// What was erased of a stretch of a history.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    /// Erased messages of the stream, by sequence, with the broker's times.
    stored: BTreeMap<u64, BTreeSet<i64>>,
    /// Messages of the history whose dead letters say that they were erased.
    dead_letters: BTreeMap<u64, i64>,
    values: ForgottenValues,
}

impl Screen {
    /// What was erased of the history `stamp` behind sequence `after` up to `through`.
    pub(crate) fn load(
        connection: &Connection,
        plugin: &str,
        stamp: OriginId,
        (after, through): (u64, u64),
        entries: &[Entry],
    ) -> Result<Self, crate::sql::Error> {
        let mut screen = Self::default();
        let stretch = params![stamp.0, to_sql(after), to_sql(through)];
        let mut statement = connection.prepare_cached(
            "SELECT f.sequence, f.published_ns FROM _lantern_origin o
             JOIN _lantern_forgotten_message f ON f.stream = o.stream
             WHERE o.id = ?1 AND f.sequence > ?2 AND f.sequence <= ?3",
        )?;
        let mut rows = statement.query(stretch)?;
        while let Some(row) = rows.next()? {
            let times = screen.stored.entry(from_sql(row.get(0)?)).or_default();
            times.insert(row.get(1)?);
        }
        let mut statement = connection.prepare_cached(
            "SELECT sequence, published_ns FROM _lantern_dead_letter
             WHERE origin = ?1 AND sequence > ?2 AND sequence <= ?3 AND state = 'forgotten'",
        )?;
        let dead_letters =
            statement.query_map(stretch, |row| Ok((row.get(0).map(from_sql)?, row.get(1)?)))?;
        screen.dead_letters = dead_letters.collect::<Result<_, _>>()?;
        let times = entries.iter().map(|entry| entry.delivery.published_ns);
        if let Some(from_ns) = times.min() {
            screen.values = ForgottenValues::load(connection, plugin, from_ns)?;
        }
        Ok(screen)
    }

    /// Makes the outcome of erased messages a dead letter without content. Messages that are found by a value are
    /// recorded as erased, so that the next erasure deletes them from the stream.
    pub(crate) fn apply(
        &self,
        connection: &Connection,
        manifest: &Manifest,
        stamp: OriginId,
        entries: &mut [Entry],
        now: Timestamp,
    ) -> Result<(), crate::sql::Error> {
        if self.stored.is_empty() && self.dead_letters.is_empty() && self.values.is_empty() {
            return Ok(());
        }
        for entry in entries.iter_mut() {
            let (sequence, published_ns) = (entry.delivery.sequence, entry.delivery.published_ns);
            if self.is_erased(sequence, published_ns) {
                entry.outcome = Outcome::forgotten();
            } else if self.values.hold_for(manifest, entry) {
                entry.outcome = Outcome::forgotten();
                record_message(connection, stamp, sequence, published_ns, now)?;
            }
        }
        Ok(())
    }

    fn is_erased(&self, sequence: u64, published_ns: i64) -> bool {
        self.dead_letters.contains_key(&sequence)
            || self
                .stored
                .get(&sequence)
                .is_some_and(|times| times.contains(&published_ns))
    }

    /// Erased messages that are gone from the stream and count as messages all the same, with their times: those of a
    /// rebuild whose dead letters say so (`known`), and others in a gap that is all of the source's.
    fn gone(&self, entries: &[Entry], gaps: &[NewGap], known: bool) -> BTreeMap<u64, i64> {
        let there: BTreeSet<u64> = entries.iter().map(|entry| entry.delivery.sequence).collect();
        let exact = |sequence: u64| {
            let mut gaps = gaps.iter();
            gaps.any(|gap| gap.exact && (gap.first..=gap.last).contains(&sequence))
        };
        let time = |times: &BTreeSet<i64>| times.first().copied().unwrap_or_default();
        let stored = self.stored.iter().filter(|(sequence, _)| exact(**sequence));
        let mut gone: BTreeMap<u64, i64> = stored.map(|(sequence, times)| (*sequence, time(times))).collect();
        if known {
            gone.extend(&self.dead_letters);
        }
        gone.retain(|sequence, _| !there.contains(sequence));
        gone
    }
}

/// Records that a message of a history's stream was erased and has to be deleted there.
fn record_message(
    connection: &Connection,
    origin: OriginId,
    sequence: u64,
    published_ns: i64,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    connection
        .prepare_cached(
            "INSERT INTO _lantern_forgotten_message (stream, sequence, published_ns, forgotten_at)
             SELECT stream, ?2, ?3, ?4 FROM _lantern_origin WHERE id = ?1 AND stream IS NOT NULL
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![origin.0, to_sql(sequence), published_ns, now.0])
        .map(|_| ())
}

/// The gaps without the sequences of erased messages.
fn without(gaps: &[NewGap], erased: &BTreeMap<u64, i64>) -> Vec<NewGap> {
    let mut parts = Vec::new();
    for gap in gaps {
        let mut first = gap.first;
        for (&sequence, _) in erased.range(gap.first..=gap.last) {
            if sequence > first {
                parts.push(NewGap {
                    first,
                    last: sequence - 1,
                    ..gap.clone()
                });
            }
            first = sequence + 1;
        }
        if first <= gap.last {
            parts.push(NewGap { first, ..gap.clone() });
        }
    }
    parts
}

/// The dead letter of an erased message: where it stood and when, and nothing of what it said.
pub(crate) fn insert_forgotten_dead_letter(
    connection: &Connection,
    origin: OriginId,
    version: VersionId,
    sequence: u64,
    published_ns: i64,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    connection
        .prepare_cached(
            "INSERT INTO _lantern_dead_letter (origin, sequence, plugin_version, class, reason, subject,
                 published_ns, headers, payload, attempts, state, first_at, last_at)
             VALUES (?1, ?2, ?3, 'forgotten', ?4, '', ?5, '[]', x'', 0, 'forgotten', ?6, ?6)",
        )?
        .execute(params![
            origin.0,
            to_sql(sequence),
            version.0,
            lantern_model::batch::FORGOTTEN_REASON,
            published_ns,
            now.0
        ])
        .map(|_| ())
}

/// Removes everything that the message said from its dead letter.
pub(crate) fn wipe_dead_letter(
    connection: &Connection,
    origin: OriginId,
    sequence: u64,
    now: Timestamp,
) -> Result<(), crate::sql::Error> {
    connection
        .prepare_cached(
            "UPDATE _lantern_dead_letter SET state = 'forgotten', class = 'forgotten', reason = ?3, subject = '',
                 headers = '[]', payload = x'', resolved_by = NULL, last_at = ?4
             WHERE origin = ?1 AND sequence = ?2",
        )?
        .execute(params![
            origin.0,
            to_sql(sequence),
            lantern_model::batch::FORGOTTEN_REASON,
            now.0
        ])
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erased_messages_are_cut_out_of_gaps() {
        let gap = |first, last| NewGap {
            first,
            last,
            exact: true,
            reason: "gone".into(),
        };
        let cut = |gaps: &[NewGap], erased: &[u64]| -> Vec<(u64, u64)> {
            let parts = without(gaps, &erased.iter().map(|sequence| (*sequence, 0)).collect());
            parts.iter().map(|gap| (gap.first, gap.last)).collect()
        };
        assert_eq!(cut(&[gap(3, 5)], &[]), [(3, 5)]);
        assert_eq!(cut(&[gap(3, 5)], &[4]), [(3, 3), (5, 5)]);
        assert_eq!(cut(&[gap(3, 5)], &[3, 5]), [(4, 4)]);
        assert_eq!(cut(&[gap(3, 5), gap(8, 8)], &[2, 6, 8]), [(3, 5)]);
        assert_eq!(cut(&[gap(3, 3)], &[3]), []);
    }

    #[test]
    fn a_digest_depends_on_key_place_type_and_value() {
        let place = ("p", "t", "c");
        let text = |text: &str| Value::Text(text.into());
        let one = digest("k", place, &text("1")).unwrap();
        for (key, place, value) in [
            ("l", place, text("1")),
            ("k", ("q", "t", "c"), text("1")),
            ("k", ("p", "u", "c"), text("1")),
            ("k", ("p", "t", "d"), text("1")),
            ("k", place, text("2")),
            ("k", place, Value::Integer(1)),
            ("k", place, Value::Blob(b"1".to_vec())),
        ] {
            assert_ne!(digest(key, place, &value), Some(one), "{key} {place:?} {value:?}");
        }
        assert_eq!(
            digest("k", place, &Value::Real(-0.0)),
            digest("k", place, &Value::Real(0.0))
        );
        assert_eq!(digest("k", place, &Value::Null), None);
    }
}
