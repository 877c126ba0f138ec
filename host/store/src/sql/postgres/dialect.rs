//! Statements of the host, which are written for SQLite, as statements of PostgreSQL. They differ in the parameters (`?1` and
//! `$1`), in the name of a 64-bit real, in empty bytes, and in a join that keeps the order of its tables: PostgreSQL plans
//! it by its statistics.

use std::borrow::Cow;

/// The statement for PostgreSQL. Texts and names in quotes are left alone.
pub(crate) fn portable(sql: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(sql);
    for (sqlite, postgres) in [("x''", "''::bytea"), (" AS REAL)", " AS DOUBLE PRECISION)")] {
        if text.contains(sqlite) {
            text = Cow::Owned(text.replace(sqlite, postgres));
        }
    }
    if text.contains(ORDERED_JOIN) {
        text = Cow::Owned(joins(&text));
    }
    if text.contains(['?', '+']) {
        text = Cow::Owned(outside_quotes(&text));
    }
    text
}

const ORDERED_JOIN: &str = "CROSS JOIN ";

/// A sign before a column keeps SQLite from using an index. PostgreSQL has no such sign for texts.
const UNINDEXED: &str = "+t.";

/// Replaces the joins that have a condition. One without a condition is the same in both.
fn joins(sql: &str) -> String {
    let mut parts = sql.split(ORDERED_JOIN);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // The joined table and its name, then the condition.
        let has_condition = part.split_whitespace().take(4).any(|word| word == "ON");
        text.push_str(if has_condition { "JOIN " } else { ORDERED_JOIN });
        text.push_str(part);
    }
    text
}

/// Replaces the signs of parameters, and removes those before columns.
fn outside_quotes(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut quote = None;
    for (position, character) in sql.char_indices() {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            // A doubled quote ends the text and begins it again, with the same effect.
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
        match character {
            '?' if quote.is_none() => text.push('$'),
            '+' if quote.is_none() && sql[position..].starts_with(UNINDEXED) => {}
            character => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::portable;

    #[test]
    fn a_statement_is_translated_outside_quotes() {
        for (sql, expected) in [
            ("SELECT 1", "SELECT 1"),
            ("SELECT ?1, ?12", "SELECT $1, $12"),
            ("SELECT '?1' || ?1", "SELECT '?1' || $1"),
            (
                "SELECT 1 + 2 WHERE (+t.a = ?1 OR +t.\"+t.\" = '+t.')",
                "SELECT 1 + 2 WHERE (t.a = $1 OR t.\"+t.\" = '+t.')",
            ),
            (
                "SELECT 'it''s ?' FROM \"a?b\" WHERE x = ?2",
                "SELECT 'it''s ?' FROM \"a?b\" WHERE x = $2",
            ),
            (
                "SELECT CAST(sum(v) AS REAL) FROM p CROSS JOIN \"t\" AS t ON t.r = p.r",
                "SELECT CAST(sum(v) AS DOUBLE PRECISION) FROM p JOIN \"t\" AS t ON t.r = p.r",
            ),
            (
                "SELECT 1 FROM v CROSS JOIN b WHERE x = x''",
                "SELECT 1 FROM v CROSS JOIN b WHERE x = ''::bytea",
            ),
        ] {
            assert_eq!(portable(sql), expected);
        }
    }
}
