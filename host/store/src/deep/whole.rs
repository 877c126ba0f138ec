//! Compares the whole of a table with the rows that the whole history produces.

use std::collections::BTreeSet;

use crate::sql::Connection;

use super::{Compared, DeepTable, VALUE_BYTES};
use crate::scratch::ScratchError;
use crate::statement::quote_text;
use crate::values::{from_sql, to_sql};
use lantern_model::batch::clean_text;

pub(super) fn compare_whole(
    connection: &Connection,
    table: &DeepTable,
    through: u64,
    found: &mut Compared,
) -> Result<(), ScratchError> {
    let mut key = table.key();
    if key.is_empty() {
        key = vec!["_sequence", "_row"];
    }
    let quoted = quote_text(&table.name);
    let on = equal(key.iter().copied());
    let exists = "SELECT EXISTS (SELECT 1 FROM scratch.sqlite_schema WHERE type = 'table' AND name = ?1)";
    if !connection.query_row(exists, [&table.name], |row| row.get::<_, bool>(0))? {
        return Ok(());
    }
    let known: BTreeSet<String> = connection
        .prepare("SELECT name FROM pragma_table_info(?1, 'scratch')")?
        .query_map([&table.name], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let all = ["_sequence", "_row"].into_iter().chain(table.columns());
    let same = equal(all.filter(|column| known.contains(*column)));
    let key_columns: Vec<String> = key
        .iter()
        .map(|column| format!("coalesce(quote({{}}.{}), 'NULL')", quote_text(column)))
        .collect();
    let key_of = |alias: &str| key_columns.join(" || ', ' || ").replace("{}", alias);
    let alike: u64 = connection.query_row(
        &format!("SELECT count(*) FROM main.{quoted} x JOIN scratch.{quoted} y ON {on} WHERE {same}"),
        [],
        |row| row.get(0).map(from_sql),
    )?;
    found.same += alike;
    for (sql, what) in differences(&quoted, &on, &same, key_of) {
        let mut statement = connection.prepare(&sql)?;
        let keys = statement.query_map([to_sql(through)], |row| row.get::<_, String>(0))?;
        for key in keys {
            let key = clean_text(&key?, VALUE_BYTES);
            found.differs(|| format!("table {}: the row with the key ({key}) {what}", table.name));
        }
    }
    Ok(())
}

/// For each kind of difference, the statement that returns the keys of such rows, and its description.
fn differences(
    quoted: &str,
    on: &str,
    same: &str,
    key_of: impl Fn(&str) -> String,
) -> [(String, &'static str); 3] {
    [
        (
            format!(
                "SELECT {} FROM main.{quoted} x JOIN scratch.{quoted} y ON {on}
                 WHERE x._sequence <= ?1 AND NOT ({same})",
                key_of("x")
            ),
            "has other values than the messages produce",
        ),
        (
            format!(
                "SELECT {} FROM main.{quoted} x WHERE x._sequence <= ?1
                     AND NOT EXISTS (SELECT 1 FROM scratch.{quoted} y WHERE {on})",
                key_of("x")
            ),
            "is stored, but no message produces it",
        ),
        (
            format!(
                "SELECT {} FROM scratch.{quoted} y
                 WHERE ?1 >= 0 AND NOT EXISTS (SELECT 1 FROM main.{quoted} x WHERE {on})",
                key_of("y")
            ),
            "is missing",
        ),
    ]
}

/// The condition that columns of `x` and `y` are equal.
fn equal<'a>(columns: impl Iterator<Item = &'a str>) -> String {
    let equal = columns
        .map(quote_text)
        .map(|column| format!("x.{column} IS y.{column}"));
    equal.collect::<Vec<_>>().join(" AND ")
}
