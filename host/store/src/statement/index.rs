//! Indexes of plugin tables and their names.

use sha2::{Digest as _, Sha256};

use super::{ORIGIN_COLUMNS, quote_text};
use lantern_model::schema::{Index, Table};

/// The length of the longest name of an index. PostgreSQL truncates longer names, so that two of them could be equal.
const NAME_BYTES_MAX: usize = 63;

/// An index to create. It gets a free name when it is created (see `indexes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewIndex {
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
    pub(crate) kind: IndexKind,
}

/// The purpose of an index, which is a part of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexKind {
    /// The unique index on the origin columns, by which rows of a table without segments are found.
    Origin,
    /// A declared key.
    Key,
    /// Accelerates reads.
    Index,
}

impl NewIndex {
    /// The index on the origin columns.
    pub(crate) fn of_origin(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            columns: ORIGIN_COLUMNS.map(str::to_owned).to_vec(),
            kind: IndexKind::Origin,
        }
    }

    /// A declared index.
    pub(super) fn declared(table: &Table, index: &Index) -> Self {
        Self {
            table: table.name.to_string(),
            columns: index.columns.iter().map(ToString::to_string).collect(),
            kind: if index.unique {
                IndexKind::Key
            } else {
                IndexKind::Index
            },
        }
    }

    /// Its name if that is free. Tables and indexes share one set of names; no table of a plugin has this name, because
    /// the names in a manifest contain no `#`.
    pub(crate) fn name(&self) -> String {
        let (table, columns) = (&self.table, self.columns.join("__"));
        bounded(match self.kind {
            IndexKind::Origin => format!("{table}#origin"),
            IndexKind::Key => format!("{table}#{columns}#key"),
            IndexKind::Index => format!("{table}#{columns}#index"),
        })
    }

    /// The name with a number, for a name that is taken.
    pub(crate) fn numbered_name(&self, number: u64) -> String {
        bounded(format!("{}#{number}", self.name()))
    }

    /// The statement that creates the index under this name.
    pub(crate) fn create(&self, name: &str) -> String {
        let unique = match self.kind {
            IndexKind::Origin | IndexKind::Key => "UNIQUE ",
            IndexKind::Index => "",
        };
        let columns: Vec<String> = self.columns.iter().map(|column| quote_text(column)).collect();
        format!(
            "CREATE {unique}INDEX {} ON {} ({})",
            quote_text(name),
            quote_text(&self.table),
            columns.join(", ")
        )
    }
}

/// Replaces the end of a long name by a digest of the name.
fn bounded(mut name: String) -> String {
    const DIGEST_BYTES: usize = 8;
    if name.len() > NAME_BYTES_MAX {
        let digest: [u8; 32] = Sha256::digest(&name).into();
        let digest: String = digest[..DIGEST_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // Names in a manifest are ASCII.
        name.truncate(NAME_BYTES_MAX - digest.len() - 1);
        name = format!("{name}#{digest}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_indexes_are_short_and_differ() {
        let index = |columns: &[&str]| NewIndex {
            table: "t".repeat(60),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            kind: IndexKind::Index,
        };
        let (one, other) = (index(&["a", "b"]), index(&["a", "c"]));
        let names = [
            one.name(),
            other.name(),
            one.numbered_name(2),
            one.numbered_name(3),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() <= NAME_BYTES_MAX && name.contains('#'), "{name}");
            assert!(!names[at + 1..].contains(name), "{name}");
        }
        assert_eq!(NewIndex::of_origin("orders").name(), "orders#origin");
        assert_eq!(NewIndex::of_origin("orders").numbered_name(2), "orders#origin#2");
    }
}
