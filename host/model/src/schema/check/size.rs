//! The size of an unchecked manifest.

use crate::schema::{DeclaredRole, RawColumn, RawManifest, RawOnConflict, RawSource, RawTable, RawWrite};

/// Size of each column, index, merge rule and so on besides its text.
const ENTRY_BYTES: usize = 32;

/// The size of a manifest, in bytes.
pub(super) fn of(raw: &RawManifest) -> usize {
    let texts = |texts: &[String]| -> usize { texts.iter().map(|text| text.len() + ENTRY_BYTES).sum() };
    let hints = |hints: &[(String, String)]| -> usize {
        hints
            .iter()
            .map(|(key, value)| key.len() + value.len() + ENTRY_BYTES)
            .sum()
    };
    let source = |source: &RawSource| {
        source.name.len() + source.origin.stream().map_or(0, str::len) + texts(source.origin.subjects())
    };
    let column = |column: &RawColumn| {
        let unit = match &column.role {
            DeclaredRole::Measure(unit) => unit.len(),
            _ => 0,
        };
        ENTRY_BYTES + column.name.len() + column.doc.len() + unit + hints(&column.hints)
    };
    let table = |table: &RawTable| {
        let columns: usize = table.columns.iter().map(column).sum();
        let indexes: usize = table.indexes.iter().map(|index| texts(&index.columns)).sum();
        table.name.len()
            + table.doc.len()
            + columns
            + texts(&table.primary_key)
            + indexes
            + hints(&table.hints)
    };
    let write = |write: &RawWrite| {
        let rule = match &write.on_conflict {
            RawOnConflict::Fail | RawOnConflict::Ignore => 0,
            RawOnConflict::Update { key, merges, .. } => {
                let merges: usize = merges.iter().map(|(column, _)| column.len() + ENTRY_BYTES).sum();
                texts(key) + merges
            }
        };
        write.table.len() + texts(&write.columns) + rule
    };
    raw.name.len()
        + raw.version.len()
        + raw.doc.len()
        + raw.sources.iter().map(source).sum::<usize>()
        + raw.tables.iter().map(table).sum::<usize>()
        + raw.writes.iter().map(write).sum::<usize>()
}
