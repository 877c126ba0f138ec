//! What would change when one version of a plugin takes another's place: in words for people, and for each change
//! what it costs. Pure; it compares descriptions, so neither version has to be run.
//!
//! The effects agree with what the store accepts when it adopts a version (`store::catalog`): a change is
//! [`Effect::NeedsRebuild`] exactly where adopting is refused. A test here asks the store.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Manifest;
use super::description::{
    ColumnDescription, IndexDescription, ManifestDescription, NamedTable, RoleWord, SourceDescription,
    WriteDescription,
};

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Where, such as `table orders, column total`.
    pub place: String,
    /// How it differs, as the end of a sentence that begins with the place.
    pub words: String,
    /// What it costs.
    pub effect: Effect,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.words)
    }
}

/// What a change costs, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing: the next message is handled as the new version says.
    None,
    /// Tables, nullable columns, indexes or sources are added, in the swap itself.
    Additive,
    /// Stored rows do not fit: the tables have to be filled anew.
    NeedsRebuild,
}

impl Effect {
    /// What all these changes cost together.
    pub fn of(differences: &[Difference]) -> Self {
        let effects = differences.iter().map(|difference| difference.effect);
        effects.max().unwrap_or(Self::None)
    }
}

impl Manifest {
    /// What would change if `new`, a version of the same plugin, took this one's place.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        differences(&self.into(), &new.into())
    }
}

/// What would change if `new` took the place of `old`, a version of the same plugin: in the order of a manifest,
/// and within each part first what is gone, then what is other, then what is new.
pub fn differences(old: &ManifestDescription, new: &ManifestDescription) -> Vec<Difference> {
    let mut found = Found::default();
    if old.version != new.version {
        let words = format!("version {} becomes {}", old.version, new.version);
        found.say("plugin", words, Effect::None);
    }
    if old.doc != new.doc {
        found.say("plugin", "its doc is another", Effect::None);
    }
    sources(old, new, &mut found);
    tables(old, new, &mut found);
    writes(old, new, &mut found);
    found.0
}

#[derive(Default)]
struct Found(Vec<Difference>);

impl Found {
    fn say(&mut self, place: &str, words: impl Into<String>, effect: Effect) {
        self.0.push(Difference {
            place: place.to_owned(),
            words: words.into(),
            effect,
        });
    }
}

fn sources(old: &ManifestDescription, new: &ManifestDescription, found: &mut Found) {
    let place = |source: &SourceDescription| format!("source {}", source.name);
    for before in &old.sources {
        match new.sources.iter().find(|after| after.name == before.name) {
            None => found.say(&place(before), "is not read any more", Effect::None),
            Some(after) => source(&place(before), before, after, found),
        }
    }
    for after in &new.sources {
        if !old.sources.iter().any(|before| before.name == after.name) {
            let words = format!("is new: it reads {} from the beginning", origin(after));
            found.say(&place(after), words, Effect::Additive);
        }
    }
}

fn source(place: &str, before: &SourceDescription, after: &SourceDescription, found: &mut Found) {
    if before.stream != after.stream {
        // What was read of the old stream stays; the new one is another history, so it begins an epoch.
        let words = format!("read {} and would read {}", origin(before), origin(after));
        found.say(place, words, Effect::Additive);
    } else if !same(&before.subjects, &after.subjects) {
        let words = format!(
            "read {} and would read {}, from the next message on",
            subjects(before),
            subjects(after)
        );
        found.say(place, words, Effect::None);
    }
    match (before.wants_headers, after.wants_headers) {
        (false, true) => found.say(place, "would be given headers", Effect::None),
        (true, false) => found.say(place, "would not be given headers any more", Effect::None),
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

fn tables(old: &ManifestDescription, new: &ManifestDescription, found: &mut Found) {
    for before in &old.tables {
        let place = format!("table {}", before.name);
        match new.tables.iter().find(|after| after.name == before.name) {
            None => found.say(
                &place,
                "is not declared any more; it stays, and nothing writes it",
                Effect::None,
            ),
            Some(after) => table(&place, before, after, found),
        }
    }
    for after in &new.tables {
        if !old.tables.iter().any(|before| before.name == after.name) {
            let words = format!("is new, with {} columns", after.description.columns.len());
            found.say(&format!("table {}", after.name), words, Effect::Additive);
        }
    }
}

fn table(place: &str, before: &NamedTable, after: &NamedTable, found: &mut Found) {
    let (before, after) = (&before.description, &after.description);
    columns(place, &before.columns, &after.columns, found);
    if before.primary_key != after.primary_key {
        let words = format!(
            "the primary key is {} and would become {}",
            list(&before.primary_key),
            list(&after.primary_key)
        );
        found.say(place, words, Effect::NeedsRebuild);
    }
    indexes(place, &before.indexes, &after.indexes, found);
    if before.retention_days != after.retention_days {
        let words = match (before.retention_days, after.retention_days) {
            (_, None) => "rows would be kept for ever".to_owned(),
            (None, Some(days)) => format!("rows older than {days} days would be removed"),
            (Some(was), Some(days)) => format!("rows were kept for {was} days and would be for {days}"),
        };
        found.say(place, words, Effect::None);
    }
    if before.doc != after.doc {
        found.say(place, "its doc is another", Effect::None);
    }
    if before.hints != after.hints {
        found.say(place, "its hints are others", Effect::None);
    }
}

fn columns(place: &str, before: &[ColumnDescription], after: &[ColumnDescription], found: &mut Found) {
    let at = |column: &ColumnDescription| format!("{place}, column {}", column.name);
    for old in before {
        match after.iter().find(|new| new.name == old.name) {
            None => found.say(&at(old), "is not declared any more", Effect::NeedsRebuild),
            Some(new) => column(&at(old), old, new, found),
        }
    }
    for new in after {
        if before.iter().any(|old| old.name == new.name) {
            continue;
        }
        if new.nullable {
            let words = format!("is new: {}, null in the rows that are there", new.column_type);
            found.say(&at(new), words, Effect::Additive);
        } else {
            let words = format!(
                "is new: {} and not nullable, but there are rows without it",
                new.column_type
            );
            found.say(&at(new), words, Effect::NeedsRebuild);
        }
    }
}

fn column(place: &str, old: &ColumnDescription, new: &ColumnDescription, found: &mut Found) {
    if old.column_type != new.column_type {
        let words = format!("is {} and would become {}", old.column_type, new.column_type);
        found.say(place, words, Effect::NeedsRebuild);
    }
    match (old.nullable, new.nullable) {
        (true, false) => found.say(place, "would become not nullable", Effect::NeedsRebuild),
        // SQLite cannot take a NOT NULL back from a column that is there.
        (false, true) => found.say(place, "would become nullable", Effect::NeedsRebuild),
        _ => {}
    }
    if (old.role, &old.unit) != (new.role, &new.unit) {
        let words = format!("its role was {} and would be {}", role(old), role(new));
        found.say(place, words, Effect::None);
    }
    if old.doc != new.doc {
        found.say(place, "its doc is another", Effect::None);
    }
    if old.hints != new.hints {
        found.say(place, "its hints are others", Effect::None);
    }
}

fn role(column: &ColumnDescription) -> String {
    match (column.role, &column.unit) {
        (None, _) => "none".to_owned(),
        (Some(RoleWord::Time), _) => "time".to_owned(),
        (Some(RoleWord::Entity), _) => "entity".to_owned(),
        (Some(RoleWord::Facet), _) => "facet".to_owned(),
        (Some(RoleWord::Measure), None) => "measure".to_owned(),
        (Some(RoleWord::Measure), Some(unit)) => format!("measure in {unit}"),
    }
}

fn indexes(place: &str, before: &[IndexDescription], after: &[IndexDescription], found: &mut Found) {
    for old in before.iter().filter(|old| !after.contains(old)) {
        if old.unique {
            let words = format!("the unique index {} is not declared any more", list(&old.columns));
            found.say(place, words, Effect::NeedsRebuild);
        } else {
            let words = format!(
                "the index {} is not declared any more; it stays",
                list(&old.columns)
            );
            found.say(place, words, Effect::None);
        }
    }
    for new in after.iter().filter(|new| !before.contains(new)) {
        if new.unique {
            let words = format!(
                "the unique index {} is new, and stored rows may break it",
                list(&new.columns)
            );
            found.say(place, words, Effect::NeedsRebuild);
        } else {
            let words = format!("the index {} is new", list(&new.columns));
            found.say(place, words, Effect::Additive);
        }
    }
}

/// Writes have no names, and their numbers mean something inside one version only. So those that are the same in both
/// are left out, and the others of a table are taken in order.
fn writes(old: &ManifestDescription, new: &ManifestDescription, found: &mut Found) {
    let before = others(&old.writes, &new.writes);
    let mut after = others(&new.writes, &old.writes);
    for old in before {
        let place = format!("writes into {}", old.table);
        match after.iter().position(|new| new.table == old.table) {
            Some(position) => write(&place, old, after.remove(position), found),
            None => found.say(
                &place,
                format!("no more {} where {}", list(&old.columns), old.rule.describe()),
                Effect::None,
            ),
        }
    }
    for new in after {
        found.say(
            &format!("writes into {}", new.table),
            format!("also {} where {}", list(&new.columns), new.rule.describe()),
            Effect::None,
        );
    }
}

/// The writes of one version that the other does not have. What is said of a rule in words may be put otherwise by
/// another version of the host, so the words do not count.
fn others<'a>(these: &'a [WriteDescription], those: &[WriteDescription]) -> Vec<&'a WriteDescription> {
    let alike = |one: &WriteDescription, other: &WriteDescription| {
        one.table == other.table && one.columns == other.columns && one.rule == other.rule
    };
    these
        .iter()
        .filter(|one| !those.iter().any(|other| alike(one, other)))
        .collect()
}

fn write(place: &str, old: &WriteDescription, new: &WriteDescription, found: &mut Found) {
    if old.columns != new.columns {
        let words = format!(
            "brought {} and would bring {}",
            list(&old.columns),
            list(&new.columns)
        );
        found.say(place, words, Effect::None);
    }
    if old.rule != new.rule {
        let words = format!(
            "it was that {}; it would be that {}",
            old.rule.describe(),
            new.rule.describe()
        );
        found.say(place, words, Effect::None);
    }
}

fn list(names: &[String]) -> String {
    format!("({})", names.join(", "))
}
