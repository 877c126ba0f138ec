//! What the database keeps of a table that a plugin declared: the JSON in `_lantern_table.description`, which is
//! also what the API shows. Fields are only ever added, since old databases hold old descriptions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::schema::{Column, ColumnType, Index, Role, Table};

/// A table as its plugin described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDescription {
    /// A sentence for people; may be empty.
    pub doc: String,
    /// In the order declared.
    pub columns: Vec<ColumnDescription>,
    /// May be empty.
    pub primary_key: Vec<String>,
    /// Indexes besides the primary key's.
    pub indexes: Vec<IndexDescription>,
    /// Days that rows are kept by the time column.
    pub retention_days: Option<u32>,
    /// For faces of the host.
    pub hints: BTreeMap<String, String>,
}

/// A column as its plugin described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnDescription {
    /// Unique in the table.
    pub name: String,
    /// The type of its values.
    #[serde(rename = "type", with = "type_word")]
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it means to people.
    pub role: Option<RoleWord>,
    /// The UCUM unit of a measure that has one.
    pub unit: Option<String>,
    /// A sentence for people; may be empty.
    pub doc: String,
    /// For faces of the host.
    pub hints: BTreeMap<String, String>,
    /// The version that runs does not know it: it came with a later one that was rolled back. Its old values stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
}

/// What a column means to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleWord {
    /// When it happened.
    Time,
    /// Whom it happened to.
    Entity,
    /// Worth filtering by.
    Facet,
    /// A quantity.
    Measure,
}

/// An index as its plugin described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexDescription {
    /// In order.
    pub columns: Vec<String>,
    /// Whether two rows may not agree on all of them.
    pub unique: bool,
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
            Role::None => (None, None),
            Role::Time => (Some(RoleWord::Time), None),
            Role::Entity => (Some(RoleWord::Entity), None),
            Role::Facet => (Some(RoleWord::Facet), None),
            Role::Measure(unit) => (
                Some(RoleWord::Measure),
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

/// A column's type as the word that the contract uses.
mod type_word {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::schema::ColumnType;

    const ALL: [ColumnType; 7] = [
        ColumnType::Boolean,
        ColumnType::Integer,
        ColumnType::Real,
        ColumnType::Text,
        ColumnType::Blob,
        ColumnType::Timestamp,
        ColumnType::Json,
    ];

    pub fn serialize<S: Serializer>(column_type: &ColumnType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(column_type.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ColumnType, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = ALL.into_iter().find(|column_type| column_type.as_str() == word);
        found.ok_or_else(|| de::Error::custom(format!("{word:?} is not a column type")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ColumnName, TableName};

    #[test]
    fn a_table_survives_the_way_through_json() {
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
                column("at", ColumnType::Timestamp, Role::Time),
                column("used", ColumnType::Integer, Role::Measure("By".into())),
                column("note", ColumnType::Json, Role::None),
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
        assert!(error.to_string().contains("\"decimal\" is not a column type"));
    }
}
