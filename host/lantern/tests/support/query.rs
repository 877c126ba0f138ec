//! Queries of a host's database, as text.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;

/// Returns the rows of a query, with cells separated by `|`.
pub fn query(dir: &Path, sql: &str) -> Vec<String> {
    let connection = rusqlite::Connection::open(dir.join("lantern.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let width = statement.column_count();
    let rows = statement
        .query_map([], |row| {
            let cells: Vec<String> = (0..width)
                .map(|column| match row.get_ref(column).unwrap() {
                    ValueRef::Null => "null".to_owned(),
                    ValueRef::Integer(integer) => integer.to_string(),
                    ValueRef::Real(real) => real.to_string(),
                    ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    ValueRef::Blob(blob) => format!("{} bytes", blob.len()),
                })
                .collect();
            Ok(cells.join("|"))
        })
        .unwrap();
    rows.map(Result::unwrap).collect()
}
