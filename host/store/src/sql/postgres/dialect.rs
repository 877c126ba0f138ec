//! Statements with the parameters of SQLite (`?1`) as statements of PostgreSQL (`$1`).

use std::borrow::Cow;

/// The statement with PostgreSQL's parameters. Text in quotes is left alone.
pub(crate) fn portable(sql: &str) -> Cow<'_, str> {
    if !sql.contains('?') {
        return Cow::Borrowed(sql);
    }
    let mut quote = None;
    let replaced = sql.chars().map(|character| match (quote, character) {
        (None, '\'' | '"') => {
            quote = Some(character);
            character
        }
        (Some(open), close) if open == close => {
            // A doubled quote ends the text and begins it again, with the same effect.
            quote = None;
            character
        }
        (None, '?') => '$',
        _ => character,
    });
    Cow::Owned(replaced.collect())
}

#[cfg(test)]
mod tests {
    use super::portable;

    #[test]
    fn parameters_are_replaced_outside_quotes() {
        for (sql, expected) in [
            ("SELECT 1", "SELECT 1"),
            ("SELECT ?1, ?12", "SELECT $1, $12"),
            ("SELECT '?1' || ?1", "SELECT '?1' || $1"),
            (
                "SELECT 'it''s ?' FROM \"a?b\" WHERE x = ?2",
                "SELECT 'it''s ?' FROM \"a?b\" WHERE x = $2",
            ),
        ] {
            assert_eq!(portable(sql), expected);
        }
    }
}
