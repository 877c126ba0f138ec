//! Removes the words of erased rows from an index. A part of an index keeps the words of deleted rows until a merge writes it
//! again, so a purge merges all parts. FTS5 merges in steps: a merge that is in progress when rows are deleted may already have
//! written their words to its output. So a purge first ends that merge, and then begins one that reads every part.

use rusqlite::ffi;

use super::fts_name;
use super::merge::{STEP_PAGES, merge};
use crate::sql::{Connection, Engine, Error, OptionalExtension as _, Transaction};
use crate::statement::quote_text;

/// A value of `_lantern_search.purging`: rows were erased, and the merge of all parts has not begun.
const REQUIRED: i64 = 1;
/// The merge of all parts is in progress.
const MERGING: i64 = 2;

/// The row of the table `NAME_data` that lists the parts of an index.
const STRUCTURE_ROW: i64 = 10;
/// Follows the first four bytes of the list if it counts deleted rows, as it does in a table with `contentless_delete`.
const WITH_TOMBSTONES: [u8; 4] = [0xff, 0, 0, 1];

/// What the parts of an index contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parts {
    count: u64,
    /// Pages that name deleted rows, whose words are still in their part.
    tombstone_pages: u64,
    /// Parts that the merge in progress reads; none if there is no merge.
    inputs: u64,
}

/// Carries out one step of a purge. Returns whether there is more to do.
pub(super) fn purge_some(transaction: &Transaction<'_>, id: i64) -> Result<bool, Error> {
    let state: Option<i64> = transaction
        .query_row("SELECT purging FROM _lantern_search WHERE id = ?1", [id], |row| {
            row.get(0)
        })
        .optional()?;
    let Some(state @ (REQUIRED | MERGING)) = state else {
        return Ok(false);
    };
    if transaction.engine() == Engine::Postgres {
        // The entries of erased rows are gone; the server's vacuum frees their space.
        transaction.execute("UPDATE _lantern_search SET purging = 0 WHERE id = ?1", [id])?;
        return Ok(false);
    }
    let parts = Parts::read(transaction, id)?;
    let next = match (state, parts) {
        (_, Parts { inputs: 1.., .. }) => {
            continue_merge(transaction, id, parts)?;
            state
        }
        (
            REQUIRED,
            Parts { count: 2.., .. }
            | Parts {
                tombstone_pages: 1.., ..
            },
        ) => {
            // A negative number of pages begins a merge of all parts.
            merge(transaction, id, -STEP_PAGES)?;
            MERGING
        }
        _ => 0,
    };
    transaction.execute(
        "UPDATE _lantern_search SET purging = ?2 WHERE id = ?1",
        [id, next],
    )?;
    Ok(next != 0)
}

/// Continues the merge in progress.
fn continue_merge(transaction: &Transaction<'_>, id: i64, parts: Parts) -> Result<(), Error> {
    let fts = quote_text(&fts_name(id));
    let set_least_parts = |parts: i64| {
        transaction
            .prepare_cached(&format!(
                "INSERT INTO {fts} ({fts}, rank) VALUES ('usermerge', ?1)"
            ))?
            .execute([parts])
    };
    // FTS5 continues a merge of few parts only if this setting permits such merges. The default is 4.
    set_least_parts(2)?;
    let has_worked = (parts.inputs > 1 && merge(transaction, id, STEP_PAGES)?)
        // A merge of a single part is continued like one of all parts.
        || merge(transaction, id, -STEP_PAGES)?;
    set_least_parts(4)?;
    if !has_worked {
        transaction.execute(&format!("INSERT INTO {fts} ({fts}) VALUES ('optimize')"), [])?;
    }
    Ok(())
}

impl Parts {
    fn read(connection: &Connection, id: i64) -> Result<Self, Error> {
        let data = quote_text(&format!("{}_data", fts_name(id)));
        let block: Vec<u8> = connection
            .prepare_cached(&format!("SELECT block FROM {data} WHERE id = ?1"))?
            .query_row([STRUCTURE_ROW], |row| row.get(0))?;
        let damaged = ffi::Error::new(ffi::SQLITE_CORRUPT);
        Self::parse(&block).ok_or(Error::from(rusqlite::Error::SqliteFailure(damaged, None)))
    }

    /// Parses the list of parts.
    fn parse(block: &[u8]) -> Option<Self> {
        let mut rest = block.get(4..)?;
        let has_tombstones = rest.starts_with(&WITH_TOMBSTONES);
        if has_tombstones {
            rest = &rest[4..];
        }
        let mut next = || varint(&mut rest);
        let (levels, _, _) = (next()?, next()?, next()?);
        let mut parts = Self::default();
        for _ in 0..levels {
            let (inputs, count) = (next()?, next()?);
            parts.inputs = parts.inputs.max(inputs);
            parts.count += count;
            for _ in 0..count {
                // Identifier, first and last page.
                let (_, _, _) = (next()?, next()?, next()?);
                if has_tombstones {
                    // First and last origin, pages with deleted rows, deleted rows, rows.
                    let (_, _, pages, _, _) = (next()?, next()?, next()?, next()?, next()?);
                    parts.tombstone_pages += pages;
                }
            }
        }
        Some(parts)
    }
}

/// Reads a number as SQLite stores it: seven bits in each byte, and eight in the ninth.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for length in 1..=9 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if length == 9 {
            return Some(number << 8 | u64::from(byte));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_index_are_counted() {
        let connection = Connection::open_in_memory().unwrap();
        let fts = fts_name(1);
        connection
            .execute_batch(&format!(
                "CREATE VIRTUAL TABLE {fts} USING fts5(words, content='', contentless_delete=1, detail=none);
                 INSERT INTO {fts} ({fts}, rank) VALUES ('automerge', 0);"
            ))
            .unwrap();
        assert_eq!(Parts::read(&connection, 1).unwrap(), Parts::default());
        for number in 1..=3 {
            connection
                .execute(
                    &format!("INSERT INTO {fts} (rowid, words) VALUES (?1, 'word')"),
                    [number],
                )
                .unwrap();
        }
        connection
            .execute(&format!("DELETE FROM {fts} WHERE rowid = 2"), [])
            .unwrap();
        let parts = Parts::read(&connection, 1).unwrap();
        assert_eq!((parts.count, parts.tombstone_pages, parts.inputs), (3, 1, 0));
        assert_eq!(Parts::parse(b"\0\0\0\0\x01\x02"), None);
        assert_eq!(varint(&mut &[0x81, 0x00][..]), Some(128));
        assert_eq!(varint(&mut &[0xff; 9][..]), Some(u64::MAX));
    }
}
