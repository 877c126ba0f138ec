//! The differences between two versions of a plugin, as sentences with the cost of each change. Pure: it compares
//! descriptions, so neither version has to run.
//!
//! The effects match what the store accepts when it adopts a version (`store::catalog`): a change is
//! [`Effect::NeedsRebuild`] exactly where adoption is rejected. A test of the store verifies it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Manifest;
use super::description::{
    ColumnDescription, IndexDescription, ManifestDescription, NamedTable, SourceDescription, WriteDescription,
};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// The affected part, such as `table orders, column total`.
    pub place: String,
    /// The change, as the end of a sentence that begins with the place.
    pub change: String,
    /// The cost of the change.
    pub effect: Effect,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.change)
    }
}

/// The cost of a change, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// None: the new version handles the next message.
    None,
    /// The swap itself adds tables, nullable columns, indexes or sources.
    Additive,
    /// Stored rows do not match: the tables must be rebuilt.
    NeedsRebuild,
}

impl Effect {
    /// The cost of all these changes together.
    pub fn of(differences: &[Difference]) -> Self {
        let effects = differences.iter().map(|difference| difference.effect);
        effects.max().unwrap_or(Self::None)
    }
}

impl Manifest {
    /// The differences if `new`, a version of the same plugin, replaced this one.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        differences(&self.into(), &new.into())
    }
}

/// The differences if `new` replaced `old`, a version of the same plugin, in the order of a manifest; within each part
/// first removals, then changes, then additions.
pub fn differences(old: &ManifestDescription, new: &ManifestDescription) -> Vec<Difference> {
    let mut found = Differences::default();
    if old.version != new.version {
        let change = format!("version {} becomes {}", old.version, new.version);
        found.add("plugin", change, Effect::None);
    }
    if old.doc != new.doc {
        found.add("plugin", "its doc changes", Effect::None);
    }
    sources(old, new, &mut found);
    tables(old, new, &mut found);
    writes(old, new, &mut found);
    found.0
}

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, place: &str, change: impl Into<String>, effect: Effect) {
        self.0.push(Difference {
            place: place.to_owned(),
            change: change.into(),
            effect,
        });
    }
}

fn sources(old: &ManifestDescription, new: &ManifestDescription, found: &mut Differences) {
    let place = |source: &SourceDescription| format!("source {}", source.name);
    for before in &old.sources {
        match new.sources.iter().find(|after| after.name == before.name) {
            None => found.add(&place(before), "is no longer read", Effect::None),
            Some(after) => source(&place(before), before, after, found),
        }
    }
    for after in &new.sources {
        if !old.sources.iter().any(|before| before.name == after.name) {
            let change = format!("is new: it reads {} from the beginning", origin(after));
            found.add(&place(after), change, Effect::Additive);
        }
    }
}

fn source(place: &str, before: &SourceDescription, after: &SourceDescription, found: &mut Differences) {
    if before.stream != after.stream {
        // Rows of the old stream stay; the new stream is another history, so it begins an epoch.
        let change = format!("read {} and would read {}", origin(before), origin(after));
        found.add(place, change, Effect::Additive);
    } else if !same(&before.subjects, &after.subjects) {
        let change = format!(
            "read {} and would read {}, from the next message on",
            subjects(before),
            subjects(after)
        );
        found.add(place, change, Effect::None);
    }
    match (before.wants_headers, after.wants_headers) {
        (false, true) => found.add(place, "would receive headers", Effect::None),
        (true, false) => found.add(place, "would no longer receive headers", Effect::None),
        _ => {}
    }
}

/// Whether two lists have the same members, in any order.
fn same<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.len() == other.len() && one.iter().all(|member| other.contains(member))
}

fn origin(source: &SourceDescription) -> String {
    match &source.stream {
        Some(stream) => format!("stream {stream} ({})", subjects(source)),
        None => format!("core NATS ({})", subjects(source)),
    }
}

fn subjects(source: &SourceDescription) -> String {
    if source.subjects.is_empty() {
        "all subjects".to_owned()
    } else {
        source.subjects.join(", ")
    }
}

fn tables(old: &ManifestDescription, new: &ManifestDescription, found: &mut Differences) {
    for before in &old.tables {
        let place = format!("table {}", before.name);
        match new.tables.iter().find(|after| after.name == before.name) {
            None => found.add(
                &place,
                "is no longer declared; it stays, and nothing writes it",
                Effect::None,
            ),
            Some(after) => table(&place, before, after, found),
        }
    }
    for after in &new.tables {
        if !old.tables.iter().any(|before| before.name == after.name) {
            let change = format!("is new, with {} columns", after.description.columns.len());
            found.add(&format!("table {}", after.name), change, Effect::Additive);
        }
    }
}

fn table(place: &str, before: &NamedTable, after: &NamedTable, found: &mut Differences) {
    let (before, after) = (&before.description, &after.description);
    columns(place, &before.columns, &after.columns, found);
    if before.primary_key != after.primary_key {
        let change = format!(
            "the primary key is {} and would become {}",
            list(&before.primary_key),
            list(&after.primary_key)
        );
        found.add(place, change, Effect::NeedsRebuild);
    }
    indexes(place, &before.indexes, &after.indexes, found);
    if before.retention_days != after.retention_days {
        let change = match (before.retention_days, after.retention_days) {
            (_, None) => "rows would be kept forever".to_owned(),
            (None, Some(days)) => format!("rows older than {days} days would be removed"),
            (Some(was), Some(days)) => format!("rows were kept for {was} days and would be for {days}"),
        };
        found.add(place, change, Effect::None);
    }
    if before.doc != after.doc {
        found.add(place, "its doc changes", Effect::None);
    }
    if before.hints != after.hints {
        found.add(place, "its hints change", Effect::None);
    }
}

fn columns(place: &str, before: &[ColumnDescription], after: &[ColumnDescription], found: &mut Differences) {
    let at = |column: &ColumnDescription| format!("{place}, column {}", column.name);
    for old in before {
        match after.iter().find(|new| new.name == old.name) {
            None => found.add(&at(old), "is no longer declared", Effect::NeedsRebuild),
            Some(new) => column(&at(old), old, new, found),
        }
    }
    for new in after {
        if before.iter().any(|old| old.name == new.name) {
            continue;
        }
        if new.nullable {
            let change = format!("is new: {}, null in existing rows", new.column_type);
            found.add(&at(new), change, Effect::Additive);
        } else {
            let change = format!(
                "is new: {} and not nullable, but existing rows lack it",
                new.column_type
            );
            found.add(&at(new), change, Effect::NeedsRebuild);
        }
    }
}

fn column(place: &str, old: &ColumnDescription, new: &ColumnDescription, found: &mut Differences) {
    if old.column_type != new.column_type {
        let change = format!("is {} and would become {}", old.column_type, new.column_type);
        found.add(place, change, Effect::NeedsRebuild);
    }
    match (old.nullable, new.nullable) {
        (true, false) => found.add(place, "would become not nullable", Effect::NeedsRebuild),
        // SQLite cannot remove NOT NULL from an existing column.
        (false, true) => found.add(place, "would become nullable", Effect::NeedsRebuild),
        _ => {}
    }
    if (old.role, &old.unit) != (new.role, &new.unit) {
        let role = |column: &ColumnDescription| column.role_with_unit().unwrap_or_else(|| "none".to_owned());
        let change = format!("its role was {} and would be {}", role(old), role(new));
        found.add(place, change, Effect::None);
    }
    if old.doc != new.doc {
        found.add(place, "its doc changes", Effect::None);
    }
    if old.hints != new.hints {
        found.add(place, "its hints change", Effect::None);
    }
}

fn indexes(place: &str, before: &[IndexDescription], after: &[IndexDescription], found: &mut Differences) {
    for old in before.iter().filter(|old| !after.contains(old)) {
        if old.unique {
            let change = format!("the unique index {} is no longer declared", list(&old.columns));
            found.add(place, change, Effect::NeedsRebuild);
        } else {
            let change = format!("the index {} is no longer declared; it stays", list(&old.columns));
            found.add(place, change, Effect::None);
        }
    }
    for new in after.iter().filter(|new| !before.contains(new)) {
        if new.unique {
            let change = format!(
                "the unique index {} is new, and stored rows may violate it",
                list(&new.columns)
            );
            found.add(place, change, Effect::NeedsRebuild);
        } else {
            let change = format!("the index {} is new", list(&new.columns));
            found.add(place, change, Effect::Additive);
        }
    }
}

/// Writes have no names, and their numbers are valid only within one version. So equal writes are skipped, and the
/// remaining ones of a table are paired in order.
fn writes(old: &ManifestDescription, new: &ManifestDescription, found: &mut Differences) {
    let before = others(&old.writes, &new.writes);
    let mut after = others(&new.writes, &old.writes);
    for old in before {
        let place = format!("writes into {}", old.table);
        match after.iter().position(|new| new.table == old.table) {
            Some(position) => write(&place, old, after.remove(position), found),
            None => found.add(
                &place,
                format!("no more {} where {}", list(&old.columns), old.rule.describe()),
                Effect::None,
            ),
        }
    }
    for new in after {
        found.add(
            &format!("writes into {}", new.table),
            format!("also {} where {}", list(&new.columns), new.rule.describe()),
            Effect::None,
        );
    }
}

/// The writes of one version that the other does not have. The sentence of a rule may differ between versions of the
/// host, so it is not compared.
fn others<'a>(these: &'a [WriteDescription], those: &[WriteDescription]) -> Vec<&'a WriteDescription> {
    let alike = |one: &WriteDescription, other: &WriteDescription| {
        one.table == other.table && one.columns == other.columns && one.rule == other.rule
    };
    these
        .iter()
        .filter(|one| !those.iter().any(|other| alike(one, other)))
        .collect()
}

fn write(place: &str, old: &WriteDescription, new: &WriteDescription, found: &mut Differences) {
    if old.columns != new.columns {
        let change = format!(
            "wrote {} and would write {}",
            list(&old.columns),
            list(&new.columns)
        );
        found.add(place, change, Effect::None);
    }
    if old.rule != new.rule {
        let change = format!(
            "the rule was: {}; it would be: {}",
            old.rule.describe(),
            new.rule.describe()
        );
        found.add(place, change, Effect::None);
    }
}

fn list(names: &[String]) -> String {
    format!("({})", names.join(", "))
}
