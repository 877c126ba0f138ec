//! SQL text for a declared table. The only place where a name becomes part of a statement: [`quote`] takes parsed
//! names, and still quotes them as SQLite identifiers.

mod index;

use super::description::TableDescription;
use super::indexes::needed::needed;
use super::sql::Engine;
use super::values::StorageClass;
use lantern_model::schema::{
    Column, ColumnName, ColumnType, Guard, Index, Manifest, Merge, OnConflict, Table, TableName, Write,
};

pub(super) use index::{IndexKind, NewIndex};

/// The host's columns, the first ones of every plugin table: the origin, the sequence of the message, and the number of
/// the row within the message. They are unique together, so the database rejects a row that is already stored.
pub const ORIGIN_COLUMNS: [&str; 3] = ["_origin", "_sequence", "_row"];

/// A parsed name: only a plain word can become an identifier.
pub trait Identifier {
    /// The name.
    fn word(&self) -> &str;
}

impl Identifier for TableName {
    fn word(&self) -> &str {
        self.as_str()
    }
}

impl Identifier for ColumnName {
    fn word(&self) -> &str {
        self.as_str()
    }
}

/// A parsed name as an SQL identifier.
pub fn quote(name: &impl Identifier) -> String {
    quote_text(name.word())
}

/// Any text as an SQL identifier: for the host's own columns, for indexes, and for names read from the database.
pub(super) fn quote_text(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A text as an SQL literal, for statements that take no parameters.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// One step that creates or changes a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A statement.
    Sql(String),
    /// An index, under a free name.
    Index(NewIndex),
}

/// The steps that create a table without segments and its indexes, in order.
pub(super) fn create_table(table: &Table, engine: Engine) -> Vec<Step> {
    let rows = Step::Sql(create_rows(table, engine));
    let mut steps = vec![rows, Step::Index(NewIndex::of_origin(table.name.as_str()))];
    steps.extend(create_indexes(table, false));
    steps
}

/// The statements that create a table without segments and its indexes in an empty database, for a benchmark.
pub fn statements_of_new_table(table: &Table, engine: Engine) -> Vec<String> {
    let steps = create_table(table, engine).into_iter();
    steps
        .map(|step| match step {
            Step::Sql(text) => text,
            Step::Index(index) => index.create(&index.name()),
        })
        .collect()
}

/// The steps that create a table with segments and its indexes, in order (see `segments`).
pub(super) fn create_segmented_table(table: &Table) -> Vec<Step> {
    let mut steps = vec![Step::Sql(create_rows(table, Engine::Sqlite))];
    steps.extend(create_indexes(table, true));
    steps
}

/// The statement that creates a table without its indexes.
fn create_rows(table: &Table, engine: Engine) -> String {
    let integer = StorageClass::Integer.as_sql(engine);
    let mut lines: Vec<String> = ORIGIN_COLUMNS
        .iter()
        .map(|column| format!("{} {integer} NOT NULL", quote_text(column)))
        .collect();
    let definitions = table.columns.iter();
    lines.extend(definitions.map(|column| column_definition(column, engine)));
    if engine == Engine::Postgres {
        // SQLite numbers the rows of every table.
        lines.push("_rowid_ BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE".to_owned());
    }
    if !table.primary_key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", column_list(&table.primary_key)));
    }
    let strict = match engine {
        Engine::Sqlite => " STRICT",
        Engine::Postgres => "",
    };
    format!(
        "CREATE TABLE {} (\n    {}\n){strict}",
        quote(&table.name),
        lines.join(",\n    ")
    )
}

fn create_indexes(table: &Table, has_segments: bool) -> impl Iterator<Item = Step> {
    let indexes = indexes_of(table, has_segments).into_iter();
    indexes.map(|index| create_index(table, &index))
}

/// The indexes of a new table: those declared, and those that the host creates for the API (see `indexes`).
fn indexes_of(table: &Table, has_segments: bool) -> Vec<Index> {
    let mut indexes = table.indexes.clone();
    for columns in needed(&TableDescription::from(table), has_segments) {
        // They are names of this table's columns, so all of them are found.
        let named = |name: &String| table.columns.iter().find(|column| column.name.as_str() == name);
        indexes.push(Index {
            columns: columns
                .iter()
                .filter_map(named)
                .map(|column| column.name.clone())
                .collect(),
            unique: false,
        });
    }
    indexes
}

/// The step that creates a declared index.
pub(super) fn create_index(table: &Table, index: &Index) -> Step {
    Step::Index(NewIndex::declared(table, index))
}

/// The step that adds a column to an existing table.
pub(super) fn add_column(table: &Table, column: &Column, engine: Engine) -> Step {
    Step::Sql(format!(
        "ALTER TABLE {} ADD COLUMN {}",
        quote(&table.name),
        column_definition(column, engine)
    ))
}

/// The statement of a write: the host's three columns first, then the columns of the write, as parameters in order.
pub fn insert(manifest: &Manifest, write: &Write, engine: Engine) -> String {
    let table = manifest.table_of(write);
    let written = || {
        write
            .columns
            .iter()
            .map(|&column| table.columns[column].name.as_str())
    };
    let columns: Vec<String> = ORIGIN_COLUMNS
        .iter()
        .copied()
        .chain(written())
        .map(quote_text)
        .collect();
    let parameters: Vec<String> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
    // Whether the row was inserted and not updated.
    let returning = match engine {
        Engine::Sqlite => "",
        Engine::Postgres => " RETURNING (xmax = 0)",
    };
    format!(
        "INSERT INTO {} ({}) VALUES ({}){}{returning}",
        quote(&table.name),
        columns.join(", "),
        parameters.join(", "),
        conflict_clauses(table, write, engine)
    )
}

/// The statement that inserts the rows of a write at the places `?1` to `?2` of another table of a PostgreSQL server, in
/// this order. `table` is the name of the write's table in the database, which differs from the declared one in a rebuild. If
/// the write updates stored rows, the statement returns how many rows it changed, and how many of them are new.
pub(super) fn insert_from(manifest: &Manifest, write: &Write, table: &str, source: &str) -> String {
    let declared = manifest.table_of(write);
    let written = write
        .columns
        .iter()
        .map(|&column| declared.columns[column].name.as_str());
    let columns: Vec<String> = ORIGIN_COLUMNS
        .iter()
        .copied()
        .chain(written)
        .map(quote_text)
        .collect();
    let columns = columns.join(", ");
    let insert = format!(
        "INSERT INTO {table} AS {} ({columns}) SELECT {columns} FROM {source} WHERE place >= ?1 AND place < ?2 \
         ORDER BY place{}",
        quote(&declared.name),
        conflict_clauses(declared, write, Engine::Postgres)
    );
    match &write.on_conflict {
        OnConflict::Update(rule) if rule.changes() => format!(
            "WITH written AS ({insert} RETURNING (xmax = 0) AS is_new) \
             SELECT count(*), count(*) FILTER (WHERE is_new) FROM written"
        ),
        _ => insert,
    }
}

fn conflict_clauses(table: &Table, write: &Write, engine: Engine) -> String {
    match &write.on_conflict {
        OnConflict::Fail => String::new(),
        // Names each key separately, because a collision on the origin must never be ignored.
        OnConflict::Ignore => {
            let unique = table
                .indexes
                .iter()
                .filter(|index| index.unique)
                .map(|index| &index.columns);
            let primary = std::iter::once(&table.primary_key).filter(|key| !key.is_empty());
            let keys: Vec<_> = primary.chain(unique).collect();
            if engine == Engine::Postgres && keys.len() > 1 {
                // It has one clause: the checkpoint alone prevents a collision on the origin.
                return " ON CONFLICT DO NOTHING".to_owned();
            }
            keys.into_iter()
                .map(|key| format!(" ON CONFLICT ({}) DO NOTHING", column_list(key)))
                .collect()
        }
        OnConflict::Update(rule) => {
            let mut changes: Vec<String> = rule
                .merges
                .iter()
                .filter(|(_, merge)| *merge != Merge::Keep)
                .map(|(column, merge)| {
                    format!("{} = {}", quote(column), merged(table, column, *merge, engine))
                })
                .collect();
            if changes.is_empty() {
                return format!(" ON CONFLICT ({}) DO NOTHING", column_list(&rule.key));
            }
            changes.extend(ORIGIN_COLUMNS.iter().map(|column| {
                let name = quote_text(column);
                format!("{name} = excluded.{name}")
            }));
            format!(
                " ON CONFLICT ({}) DO UPDATE SET {}{}",
                column_list(&rule.key),
                changes.join(", "),
                guard_clause(table, &rule.guard)
            )
        }
    }
}

/// The new value of a column that the write merges.
fn merged(table: &Table, column: &ColumnName, merge: Merge, engine: Engine) -> String {
    let name = quote(column);
    let stored = format!("{}.{name}", quote(&table.name));
    let new = format!("excluded.{name}");
    let (least, greatest) = match engine {
        Engine::Sqlite => ("min", "max"),
        Engine::Postgres => ("least", "greatest"),
    };
    // PostgreSQL reports a sum out of range.
    let is_real = engine == Engine::Sqlite
        && table
            .column(column)
            .is_some_and(|column| column.column_type == ColumnType::Real);
    match merge {
        Merge::Replace => new,
        Merge::Keep => stored,
        Merge::Fill => format!("coalesce({stored}, {new})"),
        // A strict table rejects text in a numeric column, so a sum beyond the largest real is a constraint failure of
        // its message. An integer sum that overflows becomes a real in SQLite, which a strict table rejects as well.
        Merge::Add if is_real => format!(
            "CASE WHEN {stored} IS NULL THEN {new} WHEN {new} IS NULL THEN {stored} \
             WHEN abs({stored} + {new}) < 9e999 THEN {stored} + {new} ELSE 'out of range' END"
        ),
        Merge::Add => format!(
            "CASE WHEN {stored} IS NULL THEN {new} WHEN {new} IS NULL THEN {stored} ELSE {stored} + {new} END"
        ),
        Merge::Min => format!("{least}(coalesce({stored}, {new}), coalesce({new}, {stored}))"),
        Merge::Max => format!("{greatest}(coalesce({stored}, {new}), coalesce({new}, {stored}))"),
    }
}

fn guard_clause(table: &Table, guard: &Guard) -> String {
    let stored = |column: &ColumnName| format!("{}.{}", quote(&table.name), quote(column));
    match guard {
        Guard::Always => String::new(),
        Guard::WhileNull(column) => format!(" WHERE {} IS NULL", stored(column)),
        Guard::Newer(column) => {
            let name = quote(column);
            format!(" WHERE {0} IS NULL OR excluded.{name} > {0}", stored(column))
        }
    }
}

fn column_definition(column: &Column, engine: Engine) -> String {
    let sql_type = StorageClass::of(column.column_type).as_sql(engine);
    let nullability = if column.nullable { "" } else { " NOT NULL" };
    format!("{} {sql_type}{nullability}", quote(&column.name))
}

fn column_list(columns: &[ColumnName]) -> String {
    columns.iter().map(quote).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{orders, write_of};

    #[test]
    fn identifiers_cannot_leave_their_quotes() {
        assert_eq!(quote_text("a\"; DROP TABLE x--"), "\"a\"\"; DROP TABLE x--\"");
    }

    #[test]
    fn a_table_has_the_origin_first_and_is_strict() {
        let manifest = orders();
        let statements = create_table(&manifest.tables[0], Engine::Sqlite);
        let (Step::Sql(rows), Step::Index(origin)) = (&statements[0], &statements[1]) else {
            panic!("{statements:?}")
        };
        assert!(rows.starts_with("CREATE TABLE \"orders\" (\n    \"_origin\" INTEGER NOT NULL"));
        assert!(rows.ends_with("STRICT"));
        assert_eq!(
            origin.create(&origin.name()),
            "CREATE UNIQUE INDEX \"orders#origin\" ON \"orders\" (\"_origin\", \"_sequence\", \"_row\")"
        );
        let segmented = create_segmented_table(&manifest.tables[0]);
        assert_eq!(
            (&segmented[0], &segmented[1..]),
            (&statements[0], &statements[2..])
        );
    }

    #[test]
    fn a_write_contains_its_conflict_rule() {
        let manifest = orders();
        let text = insert(&manifest, &write_of(&manifest, 1), Engine::Sqlite);
        assert!(
            text.ends_with(
                "ON CONFLICT (\"id\") DO UPDATE SET \"total\" = CASE WHEN \"orders\".\"total\" IS NULL THEN \
                 excluded.\"total\" WHEN excluded.\"total\" IS NULL THEN \"orders\".\"total\" ELSE \
                 \"orders\".\"total\" + excluded.\"total\" END, \"_origin\" = excluded.\"_origin\", \
                 \"_sequence\" = excluded.\"_sequence\", \"_row\" = excluded.\"_row\" WHERE \"orders\".\"at\" IS \
                 NULL OR excluded.\"at\" > \"orders\".\"at\""
            ),
            "{text}"
        );
    }
}
