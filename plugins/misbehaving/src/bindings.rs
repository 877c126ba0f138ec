//! Generated Rust for the contract, and helpers for minimal manifests. The library and the examples include this file, because a
//! plugin that linked another one would have duplicate exports.

#![allow(
    missing_docs,
    dead_code,
    reason = "the contract in wit/ documents it, and not every plugin uses all of it"
)]

wit_bindgen::generate!({
    path: "../../wit/projection@0.1.0",
    world: "plugin",
    additional_derives: [PartialEq],
});

pub use exports::lantern::projection::projector::*;

/// A manifest with the stream `EVIL` as its source.
pub fn manifest(name: &str, tables: Vec<Table>, writes: Vec<Write>) -> Manifest {
    let origin = Origin::Jetstream(StreamSource {
        stream_name: "EVIL".into(),
        subjects: vec!["evil.>".into()],
    });
    Manifest {
        name: name.into(),
        version: "0.1.0".into(),
        doc: "Misbehaves.".into(),
        sources: vec![Source {
            name: "evil".into(),
            origin,
            wants_headers: false,
        }],
        tables,
        writes,
    }
}

/// A table without keys.
pub fn table(name: &str, columns: Vec<Column>) -> Table {
    Table {
        name: name.into(),
        doc: String::new(),
        columns,
        primary_key: Vec::new(),
        indexes: Vec::new(),
        retention_days: None,
        hints: Vec::new(),
    }
}

/// A column without a role.
pub fn column(name: &str, column_type: ColumnType, nullable: bool) -> Column {
    Column {
        name: name.into(),
        column_type,
        nullable,
        role: Role::None,
        doc: String::new(),
        hints: Vec::new(),
    }
}

/// A write of these columns that fails on conflicts.
pub fn write(table: &str, columns: &[&str]) -> Write {
    let columns = columns.iter().map(|&column| column.into()).collect();
    Write {
        table: table.into(),
        columns,
        on_conflict: OnConflict::Fail,
    }
}

/// Skips every message.
pub fn skip_all(messages: &[Message]) -> Vec<Outcome> {
    messages.iter().map(|_| Outcome::Skip).collect()
}
