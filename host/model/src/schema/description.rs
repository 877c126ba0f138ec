//! A plugin's declarations as JSON: stored for a table (`_lantern_table.description`) and for a version
//! (`_lantern_plugin.description`), returned by the API and printed by `inspect`. Fields are only ever added, with a
//! default, because old databases contain old descriptions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Column, ColumnType, DeclaredRole, Guard, Index, Manifest, Merge, OnConflict, Source, Table, Write,
};

/// The complete description of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestDescription {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// A description for people; may be empty.
    pub doc: String,
    /// Its sources.
    pub sources: Vec<SourceDescription>,
    /// Its tables.
    pub tables: Vec<NamedTable>,
    /// Its writes.
    pub writes: Vec<WriteDescription>,
}

/// One source of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceDescription {
    /// Its name in the plugin.
    pub name: String,
    /// The stream; `null` for core NATS.
    pub stream: Option<String>,
    /// Subject filters; empty means all subjects of the stream.
    pub subjects: Vec<String>,
    /// Whether the plugin receives headers.
    pub wants_headers: bool,
}

/// A table with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedTable {
    /// The name.
    pub name: String,
    /// The description.
    #[serde(flatten)]
    pub description: TableDescription,
}

/// A table as its plugin declared it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableDescription {
    /// A description for people; may be empty.
    pub doc: String,
    /// The columns, in the declared order.
    pub columns: Vec<ColumnDescription>,
    /// The primary key; may be empty.
    pub primary_key: Vec<String>,
    /// Indexes in addition to the primary key's.
    pub indexes: Vec<IndexDescription>,
    /// Days for which rows are kept, by the time column.
    pub retention_days: Option<u32>,
    /// Key and value pairs for user interfaces.
    pub hints: BTreeMap<String, String>,
}

/// A column as its plugin declared it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Column)]
pub struct ColumnDescription {
    /// Unique in the table.
    pub name: String,
    /// The type of its values.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// The meaning for people.
    pub role: Option<ColumnRole>,
    /// The UCUM unit of a measure that has one.
    pub unit: Option<String>,
    /// A description for people; may be empty.
    pub doc: String,
    /// Key and value pairs for user interfaces.
    pub hints: BTreeMap<String, String>,
    /// Whether the active version does not declare it: a later version that was rolled back added it. Its old values
    /// stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
}

impl ColumnDescription {
    /// The role, and the unit of a measure that has one, as text.
    pub fn role_with_unit(&self) -> Option<String> {
        let role = match self.role? {
            ColumnRole::Time => "time",
            ColumnRole::Entity => "entity",
            ColumnRole::Facet => "facet",
            ColumnRole::Measure => "measure",
        };
        Some(match &self.unit {
            Some(unit) => format!("{role} ({unit})"),
            None => role.to_owned(),
        })
    }
}

/// The meaning of a column for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnRole {
    /// When the event happened.
    Time,
    /// Whom or what the event concerns.
    Entity,
    /// Useful as a filter.
    Facet,
    /// A quantity.
    Measure,
}

/// An index as its plugin declared it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Index)]
pub struct IndexDescription {
    /// The columns, in order.
    pub columns: Vec<String>,
    /// Whether the combination of values is unique.
    pub unique: bool,
}

/// One way to write rows into a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WriteDescription {
    /// The table.
    pub table: String,
    /// The columns that it writes.
    pub columns: Vec<String>,
    /// What happens when a row with the same key exists, as a sentence.
    pub on_conflict: String,
    /// The same in machine-readable form.
    pub rule: ConflictRule,
}

/// What happens when a row with the same key exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ConflictRule {
    /// Its message becomes a dead letter.
    Fail,
    /// The row is dropped.
    Ignore,
    /// The row is merged.
    Update {
        /// The key that identifies the stored row.
        key: Vec<String>,
        /// The merge rule of each column; columns without an entry keep their value.
        merges: BTreeMap<String, MergeDescription>,
        /// The condition of the update.
        guard: GuardDescription,
    },
}

/// How a column of an existing row is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MergeDescription {
    /// The new value.
    Replace,
    /// The stored value, or the new one where it is null.
    Fill,
    /// The sum.
    Add,
    /// The smaller.
    Min,
    /// The greater.
    Max,
}

/// The condition of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuardDescription {
    /// Always.
    Always,
    /// While this column of the stored row is null.
    WhileNull(String),
    /// When this column of the new row is greater than the stored one, or the stored one is null.
    Newer(String),
}

impl From<&Manifest> for ManifestDescription {
    fn from(manifest: &Manifest) -> Self {
        let named = |table: &Table| NamedTable {
            name: table.name.to_string(),
            description: table.into(),
        };
        Self {
            name: manifest.name.to_string(),
            version: manifest.version.to_string(),
            doc: manifest.doc.clone(),
            sources: manifest.sources.iter().map(SourceDescription::from).collect(),
            tables: manifest.tables.iter().map(named).collect(),
            writes: manifest
                .writes
                .iter()
                .map(|write| WriteDescription::new(manifest, write))
                .collect(),
        }
    }
}

impl From<&Source> for SourceDescription {
    fn from(source: &Source) -> Self {
        Self {
            name: source.name.to_string(),
            stream: source.origin.stream().map(str::to_owned),
            subjects: source.origin.subjects().to_vec(),
            wants_headers: source.wants_headers,
        }
    }
}

impl WriteDescription {
    fn new(manifest: &Manifest, write: &Write) -> Self {
        let target = manifest.table_of(write);
        let name = |index: &usize| target.columns.get(*index).map(|column| column.name.to_string());
        let rule = ConflictRule::from(&write.on_conflict);
        Self {
            table: target.name.to_string(),
            columns: write.columns.iter().filter_map(name).collect(),
            on_conflict: rule.describe(),
            rule,
        }
    }
}

impl From<&OnConflict> for ConflictRule {
    fn from(rule: &OnConflict) -> Self {
        match rule {
            OnConflict::Fail => Self::Fail,
            OnConflict::Ignore => Self::Ignore,
            OnConflict::Update(rule) => {
                let merge = |(column, merge): &(_, Merge)| {
                    MergeDescription::of(*merge).map(|word| (ToString::to_string(column), word))
                };
                Self::Update {
                    key: rule.key.iter().map(ToString::to_string).collect(),
                    merges: rule.merges.iter().filter_map(merge).collect(),
                    guard: match &rule.guard {
                        Guard::Always => GuardDescription::Always,
                        Guard::WhileNull(column) => GuardDescription::WhileNull(column.to_string()),
                        Guard::Newer(column) => GuardDescription::Newer(column.to_string()),
                    },
                }
            }
        }
    }
}

impl MergeDescription {
    /// `None` for a column that is kept, which is the same as no rule.
    fn of(merge: Merge) -> Option<Self> {
        match merge {
            Merge::Keep => None,
            Merge::Replace => Some(Self::Replace),
            Merge::Fill => Some(Self::Fill),
            Merge::Add => Some(Self::Add),
            Merge::Min => Some(Self::Min),
            Merge::Max => Some(Self::Max),
        }
    }
}

impl ConflictRule {
    /// The rule as a sentence.
    pub fn describe(&self) -> String {
        match self {
            Self::Fail => "a conflicting row makes the message a dead letter".into(),
            Self::Ignore => "an existing row stays unchanged".into(),
            Self::Update { key, merges, guard } => {
                let guard = match guard {
                    GuardDescription::Always => String::new(),
                    GuardDescription::WhileNull(column) => format!(", while its {column} is null"),
                    GuardDescription::Newer(column) => {
                        format!(", when the new {column} is greater or the stored one is null")
                    }
                };
                format!(
                    "a row with the same {}{guard}: {}",
                    key.join(", "),
                    describe_merges(merges)
                )
            }
        }
    }
}

fn describe_merges(merges: &BTreeMap<String, MergeDescription>) -> String {
    let kinds = [
        (MergeDescription::Replace, "replaces"),
        (MergeDescription::Fill, "fills where null"),
        (MergeDescription::Add, "adds to"),
        (MergeDescription::Min, "keeps the smaller of"),
        (MergeDescription::Max, "keeps the greater of"),
    ];
    let clauses: Vec<String> = kinds
        .into_iter()
        .filter_map(|(kind, verb)| {
            let of_kind = merges.iter().filter(|(_, merge)| **merge == kind);
            let columns: Vec<&str> = of_kind.map(|(column, _)| column.as_str()).collect();
            (!columns.is_empty()).then(|| format!("{verb} {}", columns.join(", ")))
        })
        .collect();
    if clauses.is_empty() {
        "changes nothing".to_owned()
    } else {
        clauses.join("; ")
    }
}

impl From<&Table> for TableDescription {
    fn from(table: &Table) -> Self {
        Self {
            doc: table.doc.clone(),
            columns: table.columns.iter().map(ColumnDescription::from).collect(),
            primary_key: table.primary_key.iter().map(ToString::to_string).collect(),
            indexes: table.indexes.iter().map(IndexDescription::from).collect(),
            retention_days: table.retention_days,
            hints: table.hints.iter().cloned().collect(),
        }
    }
}

impl From<&Column> for ColumnDescription {
    fn from(column: &Column) -> Self {
        let (role, unit) = match &column.role {
            DeclaredRole::None => (None, None),
            DeclaredRole::Time => (Some(ColumnRole::Time), None),
            DeclaredRole::Entity => (Some(ColumnRole::Entity), None),
            DeclaredRole::Facet => (Some(ColumnRole::Facet), None),
            DeclaredRole::Measure(unit) => (
                Some(ColumnRole::Measure),
                Some(unit.clone()).filter(|u| !u.is_empty()),
            ),
        };
        Self {
            name: column.name.to_string(),
            column_type: column.column_type,
            nullable: column.nullable,
            role,
            unit,
            doc: column.doc.clone(),
            hints: column.hints.iter().cloned().collect(),
            retired: false,
        }
    }
}

impl From<&Index> for IndexDescription {
    fn from(index: &Index) -> Self {
        Self {
            columns: index.columns.iter().map(ToString::to_string).collect(),
            unique: index.unique,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ColumnName, TableName};

    #[test]
    fn a_table_survives_a_json_round_trip() {
        let name = |name: &str| ColumnName::parse(name).unwrap();
        let column = |at: &str, column_type, role| Column {
            name: name(at),
            column_type,
            nullable: true,
            role,
            doc: "A column.".into(),
            hints: vec![("format".into(), "bytes".into())],
        };
        let table = Table {
            name: TableName::parse("t").unwrap(),
            doc: "A table.".into(),
            columns: vec![
                column("at", ColumnType::Timestamp, DeclaredRole::Time),
                column("used", ColumnType::Integer, DeclaredRole::Measure("By".into())),
                column("note", ColumnType::Json, DeclaredRole::None),
            ],
            primary_key: vec![name("at")],
            indexes: vec![Index {
                columns: vec![name("used")],
                unique: false,
            }],
            retention_days: Some(30),
            hints: Vec::new(),
        };
        let description = TableDescription::from(&table);
        let json = serde_json::to_string(&description).unwrap();
        assert!(
            json.contains(r#""name":"used","type":"integer","nullable":true,"role":"measure","unit":"By""#)
        );
        assert_eq!(
            serde_json::from_str::<TableDescription>(&json).unwrap(),
            description
        );
        let strange = json.replace("\"integer\"", "\"decimal\"");
        let error = serde_json::from_str::<TableDescription>(&strange).unwrap_err();
        assert!(error.to_string().contains("unknown variant `decimal`"));
    }
}
