//! The index of a table in each engine. SQLite has FTS5. In PostgreSQL, the index is a table with the words of each row, and a
//! GIN index on them. The host divides texts into words for both, because the words must not depend on the locale of a server.

use super::SearchIndex;
use crate::sql::{Connection, Engine};
use crate::statement::quote_text;

/// Whether the table `?2` of a server has the trigger `?1`.
pub(super) const HAS_TRIGGER: &str = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'lantern' AND t.tgname = ?1 AND c.relname = ?2)";

impl SearchIndex {
    /// Creates the table with the words.
    pub(super) fn create(&self, engine: Engine) -> String {
        let fts = self.fts();
        match engine {
            // FTS5 divides what it gets at spaces only. Merges are steps of the indexer.
            Engine::Sqlite => format!(
                "CREATE VIRTUAL TABLE {fts} USING fts5(words, content='', contentless_delete=1, detail=none, tokenize='ascii');
                 INSERT INTO {fts} ({fts}, rank) VALUES ('automerge', 0);"
            ),
            Engine::Postgres => format!(
                "CREATE TABLE {fts} (rowid BIGINT PRIMARY KEY, words TEXT[] COLLATE \"C\" NOT NULL);
                 CREATE INDEX ON {fts} USING gin (words);"
            ),
        }
    }

    /// The statement that replaces the words of the row `?1` by those of `?2`.
    pub(super) fn put(&self, engine: Engine) -> String {
        let fts = self.fts();
        match engine {
            Engine::Sqlite => format!("INSERT OR REPLACE INTO {fts} (rowid, words) VALUES (?1, ?2)"),
            Engine::Postgres => format!(
                "INSERT INTO {fts} (rowid, words) VALUES (?1, string_to_array(?2, ' '))
                 ON CONFLICT (rowid) DO UPDATE SET words = excluded.words"
            ),
        }
    }

    /// The condition that a row of the index contains the words of the parameter, which [`expression`] makes.
    pub(crate) fn contains(&self, engine: Engine, parameter: &str) -> String {
        match engine {
            Engine::Sqlite => format!("{} MATCH {parameter}", self.fts()),
            Engine::Postgres => format!("words @> string_to_array({parameter}, ' ')"),
        }
    }

    /// The triggers that record deleted and updated rows.
    pub(super) fn server_triggers(&self) -> String {
        let Self { id, table, .. } = self;
        let name = |kind: &str| quote_text(&trigger_name(*id, kind));
        let (on, record) = (
            quote_text(table),
            format!("EXECUTE FUNCTION lantern_search_changed('{id}')"),
        );
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| quote_text(&column.name))
            .collect();
        let mut sql = format!(
            "CREATE TRIGGER {} AFTER DELETE ON {on} FOR EACH ROW {record};",
            name("deleted")
        );
        if !columns.is_empty() {
            let differs: Vec<String> = columns
                .iter()
                .map(|column| format!("old.{column} IS DISTINCT FROM new.{column}"))
                .collect();
            sql += &format!(
                "CREATE TRIGGER {} AFTER UPDATE OF {} ON {on} FOR EACH ROW WHEN ({}) {record};",
                name("updated"),
                columns.join(", "),
                differs.join(" OR ")
            );
        }
        sql
    }
}

/// The words as [`SearchIndex::contains`] expects them. Words consist of letters and digits.
pub(crate) fn expression<'w>(engine: Engine, words: impl Iterator<Item = &'w str>) -> String {
    match engine {
        Engine::Sqlite => words
            .map(|word| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(" AND "),
        Engine::Postgres => words.collect::<Vec<_>>().join(" "),
    }
}

pub(super) fn trigger_name(id: i64, kind: &str) -> String {
    format!("_lantern_search_{id}_{kind}")
}

/// Removes the triggers of an index. Its table may not exist any more.
pub(super) fn drop_triggers(connection: &Connection, index: &SearchIndex) -> Result<(), crate::sql::Error> {
    let on = match connection.engine() {
        Engine::Sqlite => String::new(),
        Engine::Postgres => format!(" ON {}", quote_text(&index.table)),
    };
    for kind in ["deleted", "updated", "inserted"] {
        let name = quote_text(&trigger_name(index.id, kind));
        connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {name}{on}"))?;
    }
    Ok(())
}
