//! What an erasure finds: rows that hold a value, the messages that they come from, and dead letters that mention it.
//! It only reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::sql::{Connection, OptionalExtension as _, params};

use super::mention::Mention;
use super::{ForgetError, ForgetQuery, ForgetSurvey, FoundMessage, OutstandingMessage};
use crate::commit::OriginId;
use crate::provenance::tables_of;
use crate::segments::OriginTable;
use crate::statement::quote_text;
use crate::values::parameter;
use crate::values::{from_sql, to_sql};
use lantern_model::batch::Value;
use lantern_model::schema::ColumnType;
use lantern_model::schema::description::TableDescription;

/// The most messages that one erasure takes: they are held in memory, some 100 bytes each.
pub const SURVEY_MESSAGES_MAX: usize = 1_000_000;

/// A table with rows that hold the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMatch {
    /// The plugin that owns it.
    pub plugin: String,
    /// The table.
    pub table: String,
    /// Rows that hold the value.
    pub rows: u64,
    /// Whether writes merge several messages into one row: only the last one is known by its row.
    pub merges: bool,
    /// The number of rows of the plugin's messages that were already stored: no row names these messages.
    pub repeats: u64,
}

/// A column that is searched, with the value as it is stored there.
pub(super) struct Target {
    pub(super) plugin: String,
    pub(super) table: String,
    pub(super) column: String,
    pub(super) merges: bool,
    pub(super) column_type: ColumnType,
    pub(super) value: Value,
}

/// A table that a query may search.
struct Candidate {
    table: String,
    plugin: String,
    merges: bool,
    description: TableDescription,
}

/// The tables of the plugin and of the names in a query.
fn candidates(connection: &Connection, query: &ForgetQuery) -> Result<Vec<Candidate>, ForgetError> {
    let mut statement = connection.prepare(
        "SELECT t.name, t.plugin, t.updates, t.description FROM _lantern_table t
         JOIN sqlite_schema s ON s.type = 'table' AND s.name = t.name ORDER BY t.name",
    )?;
    let mut rows = statement.query([])?;
    let mut candidates = Vec::new();
    while let Some(row) = rows.next()? {
        let (table, plugin): (String, String) = (row.get(0)?, row.get(1)?);
        let is_named = query.tables.is_empty() || query.tables.contains(&table);
        if !is_named || query.plugin.as_ref().is_some_and(|wanted| *wanted != plugin) {
            continue;
        }
        candidates.push(Candidate {
            table,
            plugin,
            merges: row.get(2)?,
            description: serde_json::from_str(&row.get::<_, String>(3)?)
                .map_err(|error| ForgetError::Unavailable(error.to_string()))?,
        });
    }
    Ok(candidates)
}

/// Adds to the survey what the query does not search: tables without the column, and documents, which can hold the value
/// in a member.
fn list_unsearched(candidates: &[Candidate], query: &ForgetQuery, survey: &mut ForgetSurvey) {
    for Candidate {
        table, description, ..
    } in candidates
    {
        let columns = &description.columns;
        if columns.iter().all(|column| column.name != query.column) {
            survey.tables_not_searched.push(table.clone());
        }
        let documents = columns
            .iter()
            .filter(|column| column.column_type == ColumnType::Json);
        survey
            .documents_not_searched
            .extend(documents.map(|column| format!("{table}.{}", column.name)));
    }
}

/// The columns that a query is about.
pub(super) fn targets(connection: &Connection, query: &ForgetQuery) -> Result<Vec<Target>, ForgetError> {
    targets_of(candidates(connection, query)?, query)
}

fn targets_of(candidates: Vec<Candidate>, query: &ForgetQuery) -> Result<Vec<Target>, ForgetError> {
    let (mut targets, mut types, mut searched) = (Vec::new(), BTreeSet::new(), Vec::new());
    for Candidate {
        table,
        plugin,
        merges,
        description,
    } in candidates
    {
        let names: Vec<&str> = description
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        searched.push(format!("{table} ({})", names.join(", ")));
        let mut columns = description.columns.iter();
        let Some(column) = columns.find(|column| column.name == query.column) else {
            continue;
        };
        types.insert(column.column_type.as_str());
        if let Ok(value) = Value::parse(column.column_type, &query.value) {
            targets.push(Target {
                plugin,
                table,
                column: query.column.clone(),
                merges,
                column_type: column.column_type,
                value,
            });
        }
    }
    let is_searched = |table: &str| {
        searched
            .iter()
            .any(|known| known.split(' ').next() == Some(table))
    };
    if let Some(missing) = query.tables.iter().find(|table| !is_searched(table)) {
        return Err(ForgetError::NoTable(missing.clone()));
    }
    let column = query.column.clone();
    if types.is_empty() {
        let tables = searched;
        return Err(ForgetError::NoColumn { column, tables });
    }
    if targets.is_empty() {
        let types = types.into_iter().collect::<Vec<_>>().join(", ");
        return Err(ForgetError::Value { column, types });
    }
    Ok(targets)
}

/// The number of rows of a plugin's messages that changed nothing, because equal rows were already stored.
fn repeats(connection: &Connection, plugin: &str) -> Result<u64, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT CAST(coalesce(sum(l.rows - l.changed), 0) AS BIGINT) FROM _lantern_ledger l
             JOIN _lantern_origin o ON o.id = l.origin WHERE o.plugin = ?1",
        )?
        .query_row([plugin], |row| row.get(0).map(from_sql))
}

/// What an erasure would remove.
pub(super) fn survey(connection: &Connection, query: &ForgetQuery) -> Result<ForgetSurvey, ForgetError> {
    let candidates = candidates(connection, query)?;
    let mut survey = ForgetSurvey::default();
    list_unsearched(&candidates, query, &mut survey);
    let targets = targets_of(candidates, query)?;
    let mut messages = BTreeSet::new();
    for target in &targets {
        let rows = matching(connection, target, &mut messages)?;
        survey.matches.push(TableMatch {
            plugin: target.plugin.clone(),
            table: target.table.clone(),
            rows,
            merges: target.merges,
            repeats: repeats(connection, &target.plugin)?,
        });
    }
    if query.dead_letters {
        let dead_letters = mentioning(connection, query, &targets)?;
        survey.dead_letters = dead_letters.len() as u64;
        messages.extend(dead_letters);
    }
    if messages.len() > SURVEY_MESSAGES_MAX {
        return Err(ForgetError::TooMany);
    }
    let mut origins = Origins::new(connection);
    let mut plugins = BTreeSet::new();
    for (origin, sequence) in messages {
        let known = origins.of(origin)?;
        for (sibling, plugin, tables) in &known.places {
            for table in tables {
                let rows = table.count(connection, OriginId(*sibling), sequence, sequence)?;
                if rows > 0 {
                    *survey.rows.entry(table.name.clone()).or_default() += rows;
                    plugins.insert(plugin.clone());
                }
            }
        }
        plugins.insert(known.places[0].1.clone());
        survey.messages.push(FoundMessage {
            origin: OriginId(origin),
            sequence,
            stream: known.stream.clone(),
        });
    }
    survey.kept = kept(connection, &targets, &plugins)?;
    survey.outstanding = connection.query_row(
        "SELECT count(*) FROM _lantern_forgotten_message WHERE deleted_at IS NULL",
        [],
        |row| row.get(0).map(from_sql),
    )?;
    survey.streams = connection
        .prepare("SELECT DISTINCT stream FROM _lantern_origin WHERE stream IS NOT NULL ORDER BY stream")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    survey.has_core_sources = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_origin WHERE stream IS NULL)",
        [],
        |row| row.get(0),
    )?;
    Ok(survey)
}

fn matching(
    connection: &Connection,
    target: &Target,
    messages: &mut BTreeSet<(i64, u64)>,
) -> Result<u64, ForgetError> {
    let mut statement = connection.prepare(&format!(
        "SELECT _origin, _sequence FROM {} WHERE {} = ?1",
        quote_text(&target.table),
        quote_text(&target.column)
    ))?;
    let mut rows = statement.query([parameter(&target.value)])?;
    let mut found = 0;
    while let Some(row) = rows.next()? {
        found += 1;
        messages.insert((row.get(0)?, row.get(1).map(from_sql)?));
        if messages.len() > SURVEY_MESSAGES_MAX {
            return Err(ForgetError::TooMany);
        }
    }
    Ok(found)
}

/// Dead letters that mention the value.
fn mentioning(
    connection: &Connection,
    query: &ForgetQuery,
    targets: &[Target],
) -> Result<BTreeSet<(i64, u64)>, ForgetError> {
    let is_text = |target: &Target| target.column_type.is_searchable();
    let mention = Mention::new(
        &query.column,
        &query.value,
        targets.iter().any(is_text),
        targets.iter().any(|target| !is_text(target)),
    );
    let mut statement = connection.prepare(
        "SELECT d.origin, d.sequence, d.subject, d.headers, d.reason, d.payload
         FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
         WHERE d.state <> 'forgotten' AND instr(o.plugin, '#') = 0 AND (o.plugin = ?1 OR ?1 IS NULL)",
    )?;
    let mut rows = statement.query([&query.plugin])?;
    let mut found = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let bytes = |column: usize| {
            let value = row.get_ref(column)?;
            value
                .as_bytes()
                .map_err(|error| crate::sql::Error::decode(column, error))
        };
        if mention.is_in(&[bytes(2)?, bytes(3)?, bytes(4)?], bytes(5)?) {
            found.insert((row.get(0)?, row.get(1).map(from_sql)?));
        }
    }
    Ok(found)
}

/// Where the messages of a history stand.
struct Known {
    /// The stream that holds them, with its time of creation.
    stream: Option<(String, i64)>,
    /// The history itself and those of other plugins with the same messages: origin, plugin and its tables.
    places: Vec<(i64, String, Vec<OriginTable>)>,
}

/// What is known of histories, each looked up once.
struct Origins<'a> {
    connection: &'a Connection,
    known: BTreeMap<i64, Known>,
}

impl<'a> Origins<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            known: BTreeMap::new(),
        }
    }

    fn of(&mut self, origin: i64) -> Result<&Known, ForgetError> {
        use std::collections::btree_map::Entry;
        match self.known.entry(origin) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(known(self.connection, origin)?)),
        }
    }
}

fn known(connection: &Connection, origin: i64) -> Result<Known, ForgetError> {
    let (plugin, stream): (String, Option<(String, i64)>) = connection.query_row(
        "SELECT o.plugin, o.stream, o.stream_created_ns, o.epoch = (SELECT max(epoch) FROM _lantern_origin p
             WHERE p.plugin = o.plugin AND p.source = o.source)
         FROM _lantern_origin o WHERE o.id = ?1",
        [origin],
        |row| {
            let stream: Option<String> = row.get(1)?;
            let created: Option<i64> = row.get(2)?;
            let present: bool = row.get(3)?;
            Ok((row.get(0)?, stream.zip(created).filter(|_| present)))
        },
    )?;
    let mut places = vec![(origin, plugin.clone(), tables_of(connection, &plugin)?)];
    if let Some((stream, created_ns)) = &stream {
        for (sibling, plugin) in siblings(connection, stream, *created_ns)? {
            if sibling != origin {
                let tables = tables_of(connection, &plugin)?;
                places.push((sibling, plugin, tables));
            }
        }
    }
    Ok(Known { stream, places })
}

/// The present histories of all plugins that read a stream.
pub(super) fn siblings(
    connection: &Connection,
    stream: &str,
    created_ns: i64,
) -> Result<Vec<(i64, String)>, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT o.id, o.plugin FROM _lantern_origin o
             WHERE o.stream = ?1 AND o.stream_created_ns = ?2 AND instr(o.plugin, '#') = 0
                 AND o.epoch = (SELECT max(epoch) FROM _lantern_origin p
                     WHERE p.plugin = o.plugin AND p.source = o.source)",
        )?
        .query_map(params![stream, created_ns], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Plugins with replaced tables, kept for a rollback, that may hold what is erased: those whose data it is, and those
/// whose kept tables hold the value.
fn kept(
    connection: &Connection,
    targets: &[Target],
    plugins: &BTreeSet<String>,
) -> Result<Vec<String>, ForgetError> {
    let found: Vec<(i64, String)> = connection
        .prepare("SELECT id, plugin FROM _lantern_rebuild WHERE previous_until IS NOT NULL ORDER BY plugin")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut kept = Vec::new();
    for (id, plugin) in found {
        let mut holds = plugins.contains(&plugin);
        for target in targets.iter().filter(|target| target.plugin == plugin) {
            holds = holds || holds_value(connection, &format!("{}#{id}#old", target.table), target)?;
        }
        if holds {
            kept.push(plugin);
        }
    }
    Ok(kept)
}

fn holds_value(connection: &Connection, table: &str, target: &Target) -> Result<bool, crate::sql::Error> {
    let has_column = connection
        .query_row(
            "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2",
            [table, &target.column],
            |_| Ok(()),
        )
        .optional()?;
    if has_column.is_none() {
        return Ok(false);
    }
    let (table, column) = (quote_text(table), quote_text(&target.column));
    connection.query_row(
        &format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {column} = ?1)"),
        [parameter(&target.value)],
        |row| row.get(0),
    )
}

/// Erased messages that have to be deleted from their streams.
pub(super) fn outstanding(
    connection: &Connection,
    after: Option<&(String, u64)>,
    limit: u32,
) -> Result<Vec<OutstandingMessage>, ForgetError> {
    let (stream, sequence) = after.map_or(("", 0), |(stream, sequence)| (stream.as_str(), *sequence));
    let mut statement = connection.prepare(
        "SELECT stream, sequence, published_ns FROM _lantern_forgotten_message
         WHERE deleted_at IS NULL AND (stream, sequence) > (?1, ?2) ORDER BY stream, sequence LIMIT ?3",
    )?;
    let found = statement.query_map(params![stream, to_sql(sequence), limit], |row| {
        Ok(OutstandingMessage {
            stream: row.get(0)?,
            sequence: row.get(1).map(from_sql)?,
            published_ns: row.get(2)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}
