//! What a plugin says of itself, as constants. The derives write most of it; by hand it is the same. All rules of
//! the contract that can be checked while compiling are checked here or in the derives; the host checks all of them.

use crate::bindings::exports::lantern::projection::projector as wit;
use crate::native::Manifest;
use crate::plugin::{Origin, Plugin};

pub use wit::{ColumnType, Merge};

/// A table that one plugin, and no other, writes. Made by `#[derive(Table)]`.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Unique in the host.
    pub name: &'static str,
    /// A sentence for people; may be empty.
    pub doc: &'static str,
    /// In this order.
    pub columns: &'static [Column],
    /// May be empty: then each row stands for itself.
    pub primary_key: &'static [&'static str],
    /// Indexes besides the primary key's.
    pub indexes: &'static [Index],
    /// Days that rows are kept, by the time column; `None` keeps them for ever.
    pub retention_days: Option<u32>,
    /// Key and value pairs for faces of the host.
    pub hints: &'static [(&'static str, &'static str)],
}

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Unique in the table.
    pub name: &'static str,
    /// The type of its values.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it means to people.
    pub role: Role,
    /// A sentence for people; may be empty.
    pub doc: &'static str,
    /// Key and value pairs for faces of the host.
    pub hints: &'static [(&'static str, &'static str)],
}

/// What a column means to people: the dashboard builds filters, charts and timelines from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing in particular.
    None,
    /// When it happened. At most one for a table.
    Time,
    /// Whom or what it happened to.
    Entity,
    /// Few distinct values, worth filtering by.
    Facet,
    /// A quantity, with its unit as UCUM writes it (`By`, `ms`, `%`), or an empty string.
    Measure(&'static str),
}

/// An index of a table.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    /// Its columns, in order.
    pub columns: &'static [&'static str],
    /// Whether two rows may not agree on all of them. Rows in which one of them is null never collide.
    pub unique: bool,
}

/// One way of putting rows into a table. Made by `#[derive(Row)]`.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// The row type's path: by it a row finds its write.
    pub row: &'static str,
    /// The table.
    pub table: &'static Table,
    /// The columns that its rows bring, in this order.
    pub columns: &'static [&'static str],
    /// What happens to a row that collides with a stored one.
    pub on_conflict: OnConflict,
}

/// What happens to a row that collides with a stored one.
#[derive(Clone, Copy, Debug)]
pub enum OnConflict {
    /// It is an error: its message becomes a dead letter.
    Fail,
    /// It is dropped; the stored one stays.
    Ignore,
    /// It is merged into the stored one.
    Update(Update),
}

/// How a colliding row is merged into the stored one.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// The key by which the stored row is found.
    pub key: &'static [&'static str],
    /// What happens to each column; those that are not named are kept.
    pub merges: &'static [(&'static str, Merge)],
    /// When the update happens at all.
    pub guard: Guard,
}

/// When an update happens at all; when not, the stored row stays as it is.
#[derive(Clone, Copy, Debug)]
pub enum Guard {
    /// Always.
    Always,
    /// Only while this column of the stored row is null.
    WhileNull(&'static str),
    /// Only when this column of the new row is greater than the stored one, or the stored one is null.
    Newer(&'static str),
}

impl Table {
    /// Whether there is a column `name` that takes values of this type.
    pub const fn takes(&self, name: &str, column_type: ColumnType, nullable: bool) -> bool {
        let mut at = 0;
        while at < self.columns.len() {
            let column = &self.columns[at];
            if same(column.name, name) {
                return column.column_type as u8 == column_type as u8 && (column.nullable || !nullable);
            }
            at += 1;
        }
        false
    }

    /// Whether there is a column `name`.
    pub const fn has_column(&self, name: &str) -> bool {
        let mut at = 0;
        while at < self.columns.len() {
            if same(self.columns[at].name, name) {
                return true;
            }
            at += 1;
        }
        false
    }

    /// Whether all columns but `columns` may be null.
    pub const fn completes(&self, columns: &[&str]) -> bool {
        let mut at = 0;
        while at < self.columns.len() {
            if !self.columns[at].nullable && !contains(columns, self.columns[at].name) {
                return false;
            }
            at += 1;
        }
        true
    }

    /// Whether `columns` are, in any order, the primary key or a unique index.
    pub const fn has_key(&self, columns: &[&str]) -> bool {
        if !self.primary_key.is_empty() && same_set(self.primary_key, columns) {
            return true;
        }
        let mut at = 0;
        while at < self.indexes.len() {
            if self.indexes[at].unique && same_set(self.indexes[at].columns, columns) {
                return true;
            }
            at += 1;
        }
        false
    }
}

/// The index of a row type's write in a plugin's writes; a compile error when there is none, or several.
#[expect(
    clippy::panic,
    reason = "it is evaluated only while compiling, and this is its error"
)]
pub(crate) const fn write_index(writes: &[Write], row: &str) -> u32 {
    let mut found = None;
    let mut at = 0;
    while at < writes.len() {
        if same(writes[at].row, row) {
            assert!(
                found.is_none(),
                "two of the plugin's WRITES have row types with one name in one module"
            );
            found = Some(at as u32);
        }
        at += 1;
    }
    match found {
        Some(index) => index,
        None => panic!("this row type is not among the plugin's WRITES"),
    }
}

const fn same_set(a: &[&str], b: &[&str]) -> bool {
    let mut at = 0;
    while at < a.len() {
        if !contains(b, a[at]) {
            return false;
        }
        at += 1;
    }
    a.len() == b.len()
}

const fn contains(names: &[&str], name: &str) -> bool {
    let mut at = 0;
    while at < names.len() {
        if same(names[at], name) {
            return true;
        }
        at += 1;
    }
    false
}

/// `==` on text, which constants do not have.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A plugin's constants as the contract wants them.
pub(crate) fn manifest<P: Plugin>() -> Manifest {
    let sources = P::SOURCES.iter().map(|source| wit::Source {
        name: source.name.to_owned(),
        origin: match source.origin {
            Origin::JetStream { stream, subjects } => wit::Origin::Jetstream(wit::StreamSource {
                stream_name: stream.to_owned(),
                subjects: owned(subjects),
            }),
            Origin::Core { subjects } => wit::Origin::Core(owned(subjects)),
        },
        wants_headers: source.wants_headers,
    });
    let mut tables: Vec<wit::Table> = Vec::new();
    for write in P::WRITES {
        if !tables.iter().any(|table| table.name == write.table.name) {
            tables.push(table(write.table));
        }
    }
    Manifest {
        name: P::NAME.to_owned(),
        version: P::VERSION.to_owned(),
        doc: P::DOC.to_owned(),
        sources: sources.collect(),
        tables,
        writes: P::WRITES.iter().map(write).collect(),
    }
}

fn table(table: &Table) -> wit::Table {
    let columns = table.columns.iter().map(|column| wit::Column {
        name: column.name.to_owned(),
        column_type: column.column_type,
        nullable: column.nullable,
        role: match column.role {
            Role::None => wit::Role::None,
            Role::Time => wit::Role::Time,
            Role::Entity => wit::Role::Entity,
            Role::Facet => wit::Role::Facet,
            Role::Measure(unit) => wit::Role::Measure(unit.to_owned()),
        },
        doc: column.doc.to_owned(),
        hints: pairs(column.hints),
    });
    let indexes = table.indexes.iter().map(|index| wit::Index {
        columns: owned(index.columns),
        unique: index.unique,
    });
    wit::Table {
        name: table.name.to_owned(),
        doc: table.doc.to_owned(),
        columns: columns.collect(),
        primary_key: owned(table.primary_key),
        indexes: indexes.collect(),
        retention_days: table.retention_days,
        hints: pairs(table.hints),
    }
}

fn write(write: &Write) -> wit::Write {
    let on_conflict = match write.on_conflict {
        OnConflict::Fail => wit::OnConflict::Fail,
        OnConflict::Ignore => wit::OnConflict::Ignore,
        OnConflict::Update(Update { key, merges, guard }) => wit::OnConflict::Update(wit::UpdateRule {
            key: owned(key),
            merges: merges
                .iter()
                .map(|(column, merge)| wit::MergeRule {
                    column: (*column).to_owned(),
                    merge: *merge,
                })
                .collect(),
            guard: match guard {
                Guard::Always => wit::Guard::Always,
                Guard::WhileNull(column) => wit::Guard::WhileNull(column.to_owned()),
                Guard::Newer(column) => wit::Guard::Newer(column.to_owned()),
            },
        }),
    };
    wit::Write {
        table: write.table.name.to_owned(),
        columns: owned(write.columns),
        on_conflict,
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn pairs(hints: &[(&str, &str)]) -> Vec<(String, String)> {
    hints
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
