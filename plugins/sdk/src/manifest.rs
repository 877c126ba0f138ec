//! The manifest of the contract, from the constants of a plugin.

use crate::bindings::exports::lantern::projection::projector::{self as wit, Manifest};
use crate::declare::{Guard, OnConflict, Role, Table, Update, Write};
use crate::plugin::{Plugin, SourceOrigin};

/// Converts the constants of a plugin to the manifest of the contract.
pub(crate) fn of_plugin<P: Plugin>() -> Manifest {
    let sources = P::SOURCES.iter().map(|source| wit::Source {
        name: source.name.to_owned(),
        origin: match source.origin {
            SourceOrigin::JetStream { stream, subjects } => wit::Origin::Jetstream(wit::StreamSource {
                stream_name: stream.to_owned(),
                subjects: owned(subjects),
            }),
            SourceOrigin::Core { subjects } => wit::Origin::Core(owned(subjects)),
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
