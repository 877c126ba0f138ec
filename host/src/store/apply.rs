//! One batch inside the open transaction: rows, dead letters, gaps, ledger, checkpoint. Nothing here begins or
//! ends a transaction; the writer does.

use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, params, types::ToSqlOutput};

use super::commit::{Adopted, Commit, Counts, Entry, Mark, OriginId, VersionId};
use super::connection::is_refusal;
use crate::batch::{Outcome, Rejection, RejectionClass, Row, Timestamp, Value};

/// What a batch did.
pub(super) struct Applied {
    pub(super) counts: Counts,
    pub(super) refused: Vec<(u64, String)>,
}

/// Why it did nothing.
pub(super) enum ApplyError {
    /// The checkpoint is another one.
    Stale(Option<u64>),
    /// The database refused a row, and the transaction holds half of the batch.
    Refused,
    /// SQLite refused, and not because of the batch's rows.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// As they come. When the database refuses one, the transaction has to be begun anew: a savepoint around each batch
    /// would copy every page that it touches, and cost a tenth of the writer's time for what hardly ever happens.
    None,
    /// With a savepoint around each message, which finds the guilty ones: their messages become dead letters.
    EachMessage,
}

/// Puts a batch into the open transaction.
pub(super) fn apply(
    connection: &Connection,
    commit: &mut Commit,
    now: Timestamp,
    care: Care,
) -> Result<Applied, ApplyError> {
    let found = checkpoint_sequence(connection, commit.origin)?;
    if found != Some(commit.after) {
        return Err(ApplyError::Stale(found));
    }
    let (changed, refused) = write_rows(connection, commit, care)?;
    let mut counts = Counts {
        changed,
        ..count(&commit.entries)
    };
    for entry in &commit.entries {
        if let Outcome::Reject(rejection) = &entry.outcome {
            write_dead_letter(
                connection,
                commit.origin,
                commit.plugin.version,
                entry,
                rejection,
                now,
            )?;
        }
    }
    for gap in &commit.gaps {
        counts.missing += gap.count();
        write_gap(connection, commit.origin, gap, now)?;
    }
    write_ledger(connection, commit, counts, now)?;
    write_checkpoint(connection, commit.origin, &commit.through, now)?;
    Ok(Applied { counts, refused })
}

/// Returns how many rows were inserted or updated, and the messages that were refused.
fn write_rows(
    connection: &Connection,
    commit: &mut Commit,
    care: Care,
) -> Result<(u64, Vec<(u64, String)>), ApplyError> {
    let origin = commit.stamp;
    if care == Care::EachMessage {
        return Ok(write_with_care(
            connection,
            &commit.plugin,
            origin,
            &mut commit.entries,
        )?);
    }
    let mut statements = prepare(connection, &commit.plugin)?;
    let mut changed = 0;
    for entry in &commit.entries {
        changed += write_entry(&mut statements, origin, entry).map_err(|error| {
            if is_refusal(&error) {
                ApplyError::Refused
            } else {
                ApplyError::Sqlite(error)
            }
        })?;
    }
    Ok((changed, Vec::new()))
}

/// Writes rows with a savepoint around each message; rows that the database refuses make their message's outcome a
/// rejection.
///
/// Returns how many rows were inserted or updated, and the messages that were refused.
pub(super) fn write_with_care(
    connection: &Connection,
    plugin: &Adopted,
    origin: OriginId,
    entries: &mut [Entry],
) -> Result<(u64, Vec<(u64, String)>), rusqlite::Error> {
    let mut statements = prepare(connection, plugin)?;
    let mut changed = 0;
    let mut refused = Vec::new();
    for entry in entries {
        let (rows, reason) = write_one(connection, &mut statements, origin, entry)?;
        changed += rows;
        refused.extend(reason.map(|reason| (entry.delivery.sequence, reason)));
    }
    Ok((changed, refused))
}

/// Writes the rows of one message by itself, for a dead letter that is tried again. Rows that the database refuses make
/// its outcome a rejection.
///
/// Returns how many rows were inserted or updated.
pub(super) fn write_alone(
    connection: &Connection,
    plugin: &Adopted,
    origin: OriginId,
    entry: &mut Entry,
) -> Result<u64, rusqlite::Error> {
    let mut statements = prepare(connection, plugin)?;
    let (changed, _) = write_one(connection, &mut statements, origin, entry)?;
    Ok(changed)
}

fn prepare<'a>(
    connection: &'a Connection,
    plugin: &Adopted,
) -> Result<Vec<CachedStatement<'a>>, rusqlite::Error> {
    plugin
        .statements
        .iter()
        .map(|text| connection.prepare_cached(text))
        .collect()
}

/// Writes a message's rows inside a savepoint. Returns how many were inserted or updated, and why the database refused
/// them where it did: then the outcome is a rejection.
fn write_one(
    connection: &Connection,
    statements: &mut [CachedStatement<'_>],
    origin: OriginId,
    entry: &mut Entry,
) -> Result<(u64, Option<String>), rusqlite::Error> {
    connection.execute_batch("SAVEPOINT message")?;
    let written = match write_entry(statements, origin, entry) {
        Ok(rows) => (rows, None),
        Err(error) if is_refusal(&error) => {
            connection.execute_batch("ROLLBACK TO message")?;
            let rejection = Rejection::new(RejectionClass::Constraint, &refusal_reason(&error));
            let reason = rejection.reason.clone();
            entry.outcome = Outcome::Reject(rejection);
            (0, Some(reason))
        }
        Err(error) => return Err(error),
    };
    connection.execute_batch("RELEASE message")?;
    Ok(written)
}

/// The reason of a dead letter whose rows the database refused. Rows are checked against their columns' types before
/// they are written, so only a merged value can be of the wrong type: a sum outside the range of its column.
fn refusal_reason(error: &rusqlite::Error) -> String {
    let extended_code = error.sqlite_error().map(|error| error.extended_code);
    if extended_code == Some(rusqlite::ffi::SQLITE_CONSTRAINT_DATATYPE) {
        return format!(
            "a sum is outside the range of its column (whole numbers: 64 bits; reals: finite): {error}"
        );
    }
    error.to_string()
}

fn write_entry(
    statements: &mut [CachedStatement<'_>],
    origin: OriginId,
    entry: &Entry,
) -> Result<u64, rusqlite::Error> {
    let Outcome::Rows(rows) = &entry.outcome else {
        return Ok(0);
    };
    let sequence = to_sql(entry.delivery.sequence);
    let mut changed = 0;
    for (number, row) in (0_i64..).zip(rows) {
        changed += write_row(
            &mut statements[row.write as usize],
            [origin.0, sequence, number],
            row,
        )?;
    }
    Ok(changed)
}

fn write_row(
    statement: &mut CachedStatement<'_>,
    stamp: [i64; 3],
    row: &Row,
) -> Result<u64, rusqlite::Error> {
    for (parameter, stamp) in (1_usize..).zip(stamp) {
        statement.raw_bind_parameter(parameter, stamp)?;
    }
    for (parameter, value) in (4_usize..).zip(&row.values) {
        statement.raw_bind_parameter(parameter, value)?;
    }
    statement.raw_execute().map(|changed| changed as u64)
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Null => rusqlite::types::Null.to_sql(),
            Self::Boolean(yes) => Ok(ToSqlOutput::from(i64::from(*yes))),
            Self::Integer(integer) | Self::Timestamp(Timestamp(integer)) => Ok(ToSqlOutput::from(*integer)),
            Self::Real(real) => Ok(ToSqlOutput::from(*real)),
            Self::Text(text) | Self::Json(text) => text.to_sql(),
            Self::Blob(bytes) => bytes.to_sql(),
        }
    }
}

pub(super) fn count(entries: &[Entry]) -> Counts {
    let mut counts = Counts {
        messages: entries.len() as u64,
        ..Counts::default()
    };
    for entry in entries {
        match &entry.outcome {
            Outcome::Rows(rows) if !rows.is_empty() => {
                counts.projected += 1;
                counts.rows += rows.len() as u64;
            }
            Outcome::Rows(_) | Outcome::Skip => counts.skipped += 1,
            Outcome::Reject(_) => counts.dead += 1,
        }
    }
    counts
}

pub(super) fn write_dead_letter(
    connection: &Connection,
    origin: OriginId,
    version: VersionId,
    entry: &Entry,
    rejection: &Rejection,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    let headers = serde_json::to_string(&entry.delivery.headers)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection
        .prepare_cached(
            "INSERT INTO _lantern_dead_letter (origin, sequence, plugin_version, class, reason, subject,
                 published_ns, headers, payload, attempts, state, first_at, last_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, 'open', ?10, ?10)",
        )?
        .execute(params![
            origin.0,
            to_sql(entry.delivery.sequence),
            version.0,
            rejection.class.as_str(),
            rejection.reason,
            entry.delivery.subject,
            entry.delivery.published_ns,
            headers,
            &entry.delivery.payload[..],
            now.0,
        ])
        .map(|_| ())
}

/// Records a gap; one that continues the last recorded gap of the origin makes that one longer, so that a stream
/// which is trimmed all day does not fill the table.
fn write_gap(
    connection: &Connection,
    origin: OriginId,
    gap: &super::commit::Gap,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    let extended = connection
        .prepare_cached(
            "UPDATE _lantern_gap SET last_sequence = ?3, recorded_at = ?6
             WHERE origin = ?1 AND last_sequence = ?2 - 1 AND exact = ?4 AND reason = ?5",
        )?
        .execute(params![
            origin.0,
            to_sql(gap.first),
            to_sql(gap.last),
            gap.exact,
            gap.reason,
            now.0
        ])?;
    if extended == 0 {
        connection
            .prepare_cached(
                "INSERT INTO _lantern_gap (origin, first_sequence, last_sequence, exact, reason, recorded_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                origin.0,
                to_sql(gap.first),
                to_sql(gap.last),
                gap.exact,
                gap.reason,
                now.0
            ])?;
    }
    Ok(())
}

/// Lengthens the last range of the origin when it is of the same version, and begins one otherwise.
fn write_ledger(
    connection: &Connection,
    commit: &Commit,
    counts: Counts,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    let last: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT id, plugin_version FROM _lantern_ledger WHERE origin = ?1 ORDER BY first_sequence DESC LIMIT 1",
        )?
        .query_row([commit.origin.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let sums = [
        counts.messages,
        counts.projected,
        counts.skipped,
        counts.dead,
        counts.missing,
        counts.rows,
        counts.changed,
    ]
    .map(to_sql);
    let [messages, projected, skipped, dead, missing, rows, changed] = sums;
    match last {
        Some((id, version)) if version == commit.plugin.version.0 => connection
            .prepare_cached(
                "UPDATE _lantern_ledger SET last_sequence = ?2, messages = messages + ?3,
                     projected = projected + ?4, skipped = skipped + ?5, dead = dead + ?6,
                     missing = missing + ?7, rows = rows + ?8, changed = changed + ?9, last_at = ?10
                 WHERE id = ?1",
            )?
            .execute(params![
                id,
                to_sql(commit.through.sequence),
                messages,
                projected,
                skipped,
                dead,
                missing,
                rows,
                changed,
                now.0
            ]),
        _ => connection
            .prepare_cached(
                "INSERT INTO _lantern_ledger (origin, plugin_version, first_sequence, last_sequence, messages,
                     projected, skipped, dead, missing, rows, changed, first_at, last_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12)",
            )?
            .execute(params![
                commit.origin.0,
                commit.plugin.version.0,
                to_sql(commit.after + 1),
                to_sql(commit.through.sequence),
                messages,
                projected,
                skipped,
                dead,
                missing,
                rows,
                changed,
                now.0
            ]),
    }
    .map(|_| ())
}

fn checkpoint_sequence(connection: &Connection, origin: OriginId) -> Result<Option<u64>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT sequence FROM _lantern_checkpoint WHERE origin = ?1")?
        .query_row([origin.0], |row| row.get::<_, i64>(0))
        .optional()
        .map(|found| found.map(from_sql))
}

fn write_checkpoint(
    connection: &Connection,
    origin: OriginId,
    mark: &Mark,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "UPDATE _lantern_checkpoint SET sequence = ?2, published_ns = ?3, payload_sha256 = ?4, committed_at = ?5
             WHERE origin = ?1",
        )?
        .execute(params![
            origin.0,
            to_sql(mark.sequence),
            mark.published_ns,
            mark.payload_sha256.as_ref().map(<[u8; 32]>::as_slice),
            now.0
        ])
        .map(|_| ())
}

/// A count or a sequence as SQLite holds it. JetStream sequences stay far below 2^63.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back.
pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
