//! What a plugin declares: sources, tables and writes, checked once when it is loaded, and the check of every
//! row against them. Pure: no I/O, no SQL, no WebAssembly.
//!
//! A [`Manifest`] exists only in checked form: [`Manifest::check`] is the only way to make one. So a
//! [`TableName`] or [`ColumnName`] is always a plain lower-case word, and indexes into it always hit.

mod check;
pub mod description;
pub mod difference;
mod names;
mod row;
pub mod subjects;

pub use check::Problem;
pub use description::ManifestDescription;
pub use difference::{Difference, Effect};
pub use names::{ColumnName, PluginName, SourceName, TableName, TokenName};

use std::fmt;

/// Everything that a plugin says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// The plugin's name, unique in the host.
    pub name: PluginName,
    /// A version as semver.org has it.
    pub version: semver::Version,
    /// A sentence for people; may be empty.
    pub doc: String,
    /// What it reads; at least one.
    pub sources: Vec<Source>,
    /// The tables that it alone writes.
    pub tables: Vec<Table>,
    /// The ways in which it puts rows into them.
    pub writes: Vec<Write>,
}

/// One thing that a plugin reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Unique in the plugin.
    pub name: SourceName,
    /// Where its messages come from.
    pub origin: Origin,
    /// Whether messages come with their headers.
    pub wants_headers: bool,
}

/// Where a source's messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A JetStream stream: positions, replay, exactly once.
    JetStream {
        /// The stream's name.
        stream: String,
        /// Subjects wanted; empty means all.
        subjects: Vec<String>,
    },
    /// Core NATS subjects: at most once.
    Core {
        /// Subjects subscribed to; at least one.
        subjects: Vec<String>,
    },
}

impl Origin {
    /// The stream; none for core NATS.
    pub fn stream(&self) -> Option<&str> {
        match self {
            Self::JetStream { stream, .. } => Some(stream),
            Self::Core { .. } => None,
        }
    }
}

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum ColumnType {
    /// Yes or no.
    Boolean,
    /// A signed 64 bit number.
    Integer,
    /// A finite double.
    Real,
    /// Unicode text.
    Text,
    /// Bytes.
    Blob,
    /// A point in time, to the microsecond.
    Timestamp,
    /// A JSON document.
    Json,
}

impl ColumnType {
    /// The word that the contract, the API and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Text => "text",
            Self::Blob => "blob",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a column means to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing in particular.
    None,
    /// When it happened.
    Time,
    /// Whom it happened to.
    Entity,
    /// Worth filtering by.
    Facet,
    /// A quantity, with its UCUM unit or an empty string.
    Measure(String),
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Unique in the table.
    pub name: ColumnName,
    /// The type of its values.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it means to people.
    pub role: Role,
    /// A sentence for people; may be empty.
    pub doc: String,
    /// Key and value pairs for faces of the host.
    pub hints: Vec<(String, String)>,
}

/// An index that a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its columns, in order.
    pub columns: Vec<ColumnName>,
    /// Whether two rows may not agree on all of them.
    pub unique: bool,
}

/// A table that one plugin writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Unique in the host.
    pub name: TableName,
    /// A sentence for people; may be empty.
    pub doc: String,
    /// In the order declared; at least one.
    pub columns: Vec<Column>,
    /// May be empty.
    pub primary_key: Vec<ColumnName>,
    /// Indexes besides the primary key's.
    pub indexes: Vec<Index>,
    /// Days that rows are kept by the time column.
    pub retention_days: Option<u32>,
    /// Key and value pairs for faces of the host.
    pub hints: Vec<(String, String)>,
}

impl Table {
    /// The column with this name.
    pub fn column(&self, name: &ColumnName) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == *name)
    }

    /// The column that says when a row happened.
    pub fn time_column(&self) -> Option<&Column> {
        self.columns.iter().find(|column| column.role == Role::Time)
    }

    /// Whether `columns` are, in any order, what the primary key or a unique index is made of.
    pub fn has_key(&self, columns: &[ColumnName]) -> bool {
        let same = |key: &[ColumnName]| {
            key.len() == columns.len() && key.iter().all(|column| columns.contains(column))
        };
        (!self.primary_key.is_empty() && same(&self.primary_key))
            || self
                .indexes
                .iter()
                .any(|index| index.unique && same(&index.columns))
    }
}

/// What happens to a column of a row that is there already. See the contract for null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The new value.
    Replace,
    /// The stored value.
    Keep,
    /// The stored value, or the new one where it is null.
    Fill,
    /// The sum.
    Add,
    /// The smaller.
    Min,
    /// The greater.
    Max,
}

/// When an update happens at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Always.
    Always,
    /// While this column of the stored row is null.
    WhileNull(ColumnName),
    /// When this column of the new row is greater than the stored one, or the stored one is null.
    Newer(ColumnName),
}

/// How a colliding row is merged into the stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateRule {
    /// The key by which the stored row is found.
    pub key: Vec<ColumnName>,
    /// Rules by column; columns without one are kept.
    pub merges: Vec<(ColumnName, Merge)>,
    /// When the update happens.
    pub guard: Guard,
}

/// What happens to a row that collides with a stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Its message becomes a dead letter.
    Fail,
    /// It is dropped.
    Ignore,
    /// It is merged.
    Update(UpdateRule),
}

/// One way of putting rows into a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Index into [`Manifest::tables`].
    pub table: usize,
    /// For each of the write's columns its index in the table's columns.
    pub columns: Vec<usize>,
    /// What happens on a collision.
    pub on_conflict: OnConflict,
}

impl Manifest {
    /// The table that a write goes to.
    pub fn table_of(&self, write: &Write) -> &Table {
        &self.tables[write.table]
    }

    /// The source with this name, and its index.
    pub fn source(&self, name: &str) -> Option<(usize, &Source)> {
        self.sources
            .iter()
            .enumerate()
            .find(|(_, source)| source.name.as_str() == name)
    }
}

/// A manifest as a plugin sent it: nothing in it has been checked. The fields are those of the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the contract in wit/ documents these fields, one for one"
)]
pub struct RawManifest {
    pub name: String,
    pub version: String,
    pub doc: String,
    pub sources: Vec<RawSource>,
    pub tables: Vec<RawTable>,
    pub writes: Vec<RawWrite>,
}

/// A source as a plugin sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as for RawManifest")]
pub struct RawSource {
    pub name: String,
    pub origin: Origin,
    pub wants_headers: bool,
}

/// A column as a plugin sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as for RawManifest")]
pub struct RawColumn {
    pub name: String,
    pub column_type: ColumnType,
    pub nullable: bool,
    pub role: Role,
    pub doc: String,
    pub hints: Vec<(String, String)>,
}

/// A table as a plugin sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as for RawManifest")]
pub struct RawTable {
    pub name: String,
    pub doc: String,
    pub columns: Vec<RawColumn>,
    pub primary_key: Vec<String>,
    pub indexes: Vec<RawIndex>,
    pub retention_days: Option<u32>,
    pub hints: Vec<(String, String)>,
}

/// An index as a plugin sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as for RawManifest")]
pub struct RawIndex {
    pub columns: Vec<String>,
    pub unique: bool,
}

/// A guard as a plugin sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as for RawManifest")]
pub enum RawGuard {
    Always,
    WhileNull(String),
    Newer(String),
}

/// A conflict rule as a plugin sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as for RawManifest")]
pub enum RawOnConflict {
    Fail,
    Ignore,
    Update {
        key: Vec<String>,
        merges: Vec<(String, Merge)>,
        guard: RawGuard,
    },
}

/// A write as a plugin sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as for RawManifest")]
pub struct RawWrite {
    pub table: String,
    pub columns: Vec<String>,
    pub on_conflict: RawOnConflict,
}
