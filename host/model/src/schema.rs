//! The declarations of a plugin: sources, tables and writes, checked once when it is loaded, and the check of every row
//! against them. Pure: no I/O, no SQL, no WebAssembly.
//!
//! A [`Manifest`] exists only in checked form: [`Manifest::check`] is the only way to create one. So a [`TableName`] or
//! [`ColumnName`] is always a plain lower-case word, and indexes into a manifest are always valid.

mod check;
mod column_type;
pub mod description;
pub mod difference;
mod keys;
mod names;
mod portability;
mod row;
pub mod subjects;

pub use check::Problem;
pub use column_type::ColumnType;
pub use description::ManifestDescription;
pub use difference::{Difference, Effect};
pub use names::{ColumnName, PluginName, SourceName, TableName, TokenName};

/// The checked description of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// The plugin's name, unique in the host.
    pub name: PluginName,
    /// The version, in semver format.
    pub version: semver::Version,
    /// A description for people; may be empty.
    pub doc: String,
    /// Its sources; at least one.
    pub sources: Vec<Source>,
    /// Its tables, which no other plugin writes.
    pub tables: Vec<Table>,
    /// Its writes into these tables.
    pub writes: Vec<Write>,
    measured_keys: keys::MeasuredKeys,
}

/// One input of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Unique in the plugin.
    pub name: SourceName,
    /// Where its messages come from.
    pub origin: Origin,
    /// Whether the plugin receives headers.
    pub wants_headers: bool,
}

/// Where a source's messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A JetStream stream: positions, replay, exactly once.
    JetStream {
        /// The stream's name.
        stream: String,
        /// Subject filters; empty means all subjects.
        subjects: Vec<String>,
    },
    /// Core NATS subjects: at most once.
    Core {
        /// Subscribed subjects; at least one.
        subjects: Vec<String>,
    },
}

impl Origin {
    /// The stream; `None` when the broker does not store the messages.
    pub fn stream(&self) -> Option<&str> {
        match self {
            Self::JetStream { stream, .. } => Some(stream),
            Self::Core { .. } => None,
        }
    }

    /// The subjects; empty means all subjects of the stream.
    pub fn subjects(&self) -> &[String] {
        match self {
            Self::JetStream { subjects, .. } | Self::Core { subjects } => subjects,
        }
    }

    /// The stream and the subjects that can be read again; `None` when the broker does not store the messages.
    pub fn replay(&self) -> Option<(&str, &[String])> {
        Some((self.stream()?, self.subjects()))
    }

    /// Whether messages have positions and can be read again.
    pub fn is_replayable(&self) -> bool {
        self.stream().is_some()
    }
}

/// The meaning of a column for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclaredRole {
    /// No special meaning.
    None,
    /// When the event happened.
    Time,
    /// Whom or what the event concerns.
    Entity,
    /// Useful as a filter.
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
    /// The meaning for people.
    pub role: DeclaredRole,
    /// A description for people; may be empty.
    pub doc: String,
    /// Key and value pairs for user interfaces.
    pub hints: Vec<(String, String)>,
}

/// A declared index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The columns, in order.
    pub columns: Vec<ColumnName>,
    /// Whether the combination of values is unique.
    pub unique: bool,
}

/// A table of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Unique in the host.
    pub name: TableName,
    /// A description for people; may be empty.
    pub doc: String,
    /// The columns, in the declared order; at least one.
    pub columns: Vec<Column>,
    /// The primary key; may be empty.
    pub primary_key: Vec<ColumnName>,
    /// Indexes in addition to the primary key's.
    pub indexes: Vec<Index>,
    /// Days for which rows are kept, by the time column.
    pub retention_days: Option<u32>,
    /// Key and value pairs for user interfaces.
    pub hints: Vec<(String, String)>,
}

impl Table {
    /// The column with this name.
    pub fn column(&self, name: &ColumnName) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == *name)
    }

    /// The column with the role time.
    pub fn time_column(&self) -> Option<&Column> {
        self.columns
            .iter()
            .find(|column| column.role == DeclaredRole::Time)
    }

    /// Whether `columns` are, in any order, the columns of the primary key or of a unique index.
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

/// How a column of an existing row is merged. The contract defines the treatment of null.
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

/// The condition of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Always.
    Always,
    /// While this column of the stored row is null.
    WhileNull(ColumnName),
    /// When this column of the new row is greater than the stored one, or the stored one is null.
    Newer(ColumnName),
}

/// How a conflicting row is merged into the stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateRule {
    /// The key that identifies the stored row.
    pub key: Vec<ColumnName>,
    /// Merge rules by column; columns without a rule keep their value.
    pub merges: Vec<(ColumnName, Merge)>,
    /// The condition of the update.
    pub guard: Guard,
}

impl UpdateRule {
    /// Whether a column of the stored row can change.
    pub fn changes(&self) -> bool {
        self.merges.iter().any(|(_, merge)| *merge != Merge::Keep)
    }
}

/// What happens to a row whose key is already stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Its message becomes a dead letter.
    Fail,
    /// The row is dropped.
    Ignore,
    /// The row is merged.
    Update(UpdateRule),
}

/// One way to write rows into a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Index into [`Manifest::tables`].
    pub table: usize,
    /// For each of the write's columns its index in the table's columns.
    pub columns: Vec<usize>,
    /// What happens on a conflict.
    pub on_conflict: OnConflict,
}

impl Manifest {
    /// The table of a write.
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

/// An unchecked manifest as a plugin sent it. The fields are those of the contract.
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
    pub role: DeclaredRole,
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
