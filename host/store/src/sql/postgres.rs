//! A session of a PostgreSQL server behind the interface of [`super::Connection`]. The callers run on separate threads (the
//! writer, the readers), so each call blocks until the server has answered.

mod dialect;
mod link;
mod rows;
mod session;
mod tls;
mod values;

use super::{Connection, Error};

pub(crate) use link::SessionOptions;
pub(crate) use rows::Rows;
pub(crate) use session::{Answer, Invocation, ResultColumn, ResultKind, Session, Statement};
pub(crate) use tls::Tls;
pub(crate) use values::encode;

/// The schema that holds the host's tables and those of the plugins. The names of the host's tables begin with `_lantern_`,
/// which no plugin can declare, so one schema is enough.
pub(crate) const SCHEMA: &str = "lantern";

/// The statement of [`super::Engine::index_columns`].
pub(super) const INDEX_COLUMNS: &str = "SELECT i.indexrelid::int8, i.indisunique, a.attname
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.number > 0
    WHERE n.nspname = 'lantern' AND c.relname = ?1 AND i.indpred IS NULL AND i.indisvalid
    ORDER BY i.indexrelid, k.place";

/// The statement of [`super::Connection::has_relation`].
pub(super) const HAS_RELATION: &str = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'lantern' AND c.relname = ?1)";

/// The migrations of the host's own tables, in order. A released one does not change.
const MIGRATIONS: [&str; 1] = [include_str!(
    "../../../../migrations/postgres/0001_host_tables.sql"
)];

/// The number of the latest migration.
pub(crate) fn latest_migration() -> i64 {
    MIGRATIONS.len() as i64
}

/// What the migrations create in the schema: the kind and the name of each table, index and view.
pub(crate) fn created() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kinds = [
        ("table", "CREATE TABLE "),
        ("index", "CREATE INDEX "),
        ("index", "CREATE UNIQUE INDEX "),
        ("view", "CREATE VIEW "),
    ];
    let lines = MIGRATIONS.iter().flat_map(|text| text.lines());
    lines.filter_map(move |line| {
        let mut kinds = kinds.iter();
        let (kind, rest) = kinds.find_map(|(kind, create)| Some((*kind, line.strip_prefix(create)?)))?;
        Some((kind, rest.split_whitespace().next()?))
    })
}

/// The key of the lock that serialises the migrations of hosts that start at the same time.
const MIGRATION_LOCK: i64 = 0x6c61_6e74_6572_6e01;

/// The key of the lock that serialises entries of the audit.
pub(crate) const AUDIT_LOCK: i64 = 0x6c61_6e74_6572_6e02;

/// Creates the schema and the host's own tables, or applies the missing migrations, in one transaction.
///
/// # Errors
/// [`Error::Newer`] if a later version of Lantern changed the tables, and those of the server.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let transaction = connection.begin()?;
    transaction.query_row("SELECT pg_advisory_xact_lock(?1)", [MIGRATION_LOCK], |_| Ok(()))?;
    transaction.execute_batch(&format!(
        "CREATE SCHEMA IF NOT EXISTS {SCHEMA};
         CREATE TABLE IF NOT EXISTS _lantern_migration (version BIGINT PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL)"
    ))?;
    let applied: i64 = transaction.query_row(
        "SELECT coalesce(max(version), 0) FROM _lantern_migration",
        [],
        |row| row.get(0),
    )?;
    let known = latest_migration();
    if applied > known {
        return Err(Error::Newer { applied, known });
    }
    for (version, text) in (1_i64..)
        .zip(MIGRATIONS)
        .filter(|(version, _)| *version > applied)
    {
        transaction.execute_batch(text)?;
        transaction.execute(
            "INSERT INTO _lantern_migration (version, applied_at) VALUES (?1, now())",
            [version],
        )?;
    }
    transaction.commit()
}
