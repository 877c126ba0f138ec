//! Fixed limits of declarations and values, each defined here once. docs/plugins.md lists those that plugin authors need;
//! a test compares the document and the derives of the SDK with these constants.
//!
//! The limits on names and keys are those of the strictest database that Lantern supports, so that every declaration and
//! every value fits every database. PostgreSQL truncates identifiers to 63 bytes without an error, and cannot index an
//! entry of more than 2,704 bytes.

/// Bytes of a table's name. The host derives names of up to 63 bytes from it, such as `TABLE#ID` for a rebuild.
pub const TABLE_NAME_BYTES_MAX: usize = 48;

/// Bytes of a table's name in a version that an earlier release of the host installed.
pub const INSTALLED_TABLE_NAME_BYTES_MAX: usize = 63;

/// Bytes of a column's name.
pub const COLUMN_NAME_BYTES_MAX: usize = 63;

/// Names of PostgreSQL's system columns, which no table can declare.
pub const SYSTEM_COLUMNS: [&str; 6] = ["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"];

/// Bytes of the values of a key or index in one row. The rest of PostgreSQL's 2,704 bytes holds the headers of the entry
/// and columns that the host adds.
pub const KEY_BYTES_MAX: usize = 2_600;

/// Bytes that each column of a key or index after the first one takes from [`KEY_BYTES_MAX`], for its header and alignment.
pub const KEY_COLUMN_BYTES: usize = 8;

/// Bytes of a value of fixed size in a key or index.
pub const KEY_FIXED_VALUE_BYTES: usize = 8;

/// Columns of a key or index. PostgreSQL allows 32, and the host may add some.
pub const KEY_COLUMNS_MAX: usize = 28;

/// Nesting of arrays and objects in a JSON document. Common parsers reject deeper ones, and with them the complete API
/// answer that contains the document.
pub const JSON_DEPTH_MAX: usize = 128;

/// Bytes of all names, documentation, hints, units and subjects of a manifest together. The API returns all of it to every
/// client that lists tables, and the database stores it for each version.
pub const DESCRIPTION_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one doc. It is for people; a plugin must not fill the disk with it.
pub const DOC_BYTES_MAX: usize = 64 * 1024;

/// Hints of one table or column.
pub const HINTS_MAX: usize = 64;

/// Bytes of one hint.
pub const HINT_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a unit; UCUM units have a few letters.
pub const UNIT_BYTES_MAX: usize = 64;

/// Tables of a plugin. This limit and the next four bound what the host keeps for one plugin; they are generous by two
/// orders of magnitude.
pub const TABLES_MAX: usize = 64;

/// Sources of a plugin.
pub const SOURCES_MAX: usize = 64;

/// Writes of a plugin.
pub const WRITES_MAX: usize = 256;

/// Columns of a table. SQLite allows 2,000 columns and 32,766 variables; nobody can read a table of this width.
pub const COLUMNS_MAX: usize = 256;

/// Indexes of a table.
pub const INDEXES_MAX: usize = 32;

/// Subject filters of a source.
pub const SUBJECTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// The row of a table in docs/plugins.md that begins with these words.
    fn documented(limit: &str) -> &'static str {
        let document = include_str!("../../../docs/plugins.md");
        let row = document
            .lines()
            .find(|line| line.starts_with(&format!("| {limit} |")));
        row.unwrap_or_else(|| panic!("docs/plugins.md has no row {limit:?}"))
    }

    fn with_separators(number: usize) -> String {
        match number {
            0..1_000 => number.to_string(),
            _ => format!("{},{:03}", number / 1_000, number % 1_000),
        }
    }

    #[test]
    fn the_document_lists_the_limits() {
        let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
        for (limit, values) in [
            (
                "the name of a table",
                vec![format!("{TABLE_NAME_BYTES_MAX} characters")],
            ),
            ("the name of a column", {
                let names = SYSTEM_COLUMNS.iter().map(|name| format!("`{name}`"));
                names
                    .chain([format!("{COLUMN_NAME_BYTES_MAX} characters")])
                    .collect()
            }),
            (
                "the values of a key or index in one row",
                vec![
                    format!("{} bytes", with_separators(KEY_BYTES_MAX)),
                    format!("{KEY_COLUMN_BYTES} bytes less for each column after the first"),
                    format!("counts {KEY_FIXED_VALUE_BYTES} bytes"),
                ],
            ),
            ("columns of a key or index", vec![KEY_COLUMNS_MAX.to_string()]),
            (
                "nesting of arrays and objects in a `json` value",
                vec![JSON_DEPTH_MAX.to_string()],
            ),
            (
                "the description: all names, documentation, hints, units and subjects",
                vec![kib(DESCRIPTION_BYTES_MAX)],
            ),
            ("one doc", vec![kib(DOC_BYTES_MAX)]),
            (
                "hints of a table or column",
                vec![HINTS_MAX.to_string(), format!("up to {}", kib(HINT_BYTES_MAX))],
            ),
            ("a unit", vec![format!("{UNIT_BYTES_MAX} bytes")]),
            (
                "tables, sources and writes of a plugin",
                vec![format!("{TABLES_MAX}, {SOURCES_MAX} and {WRITES_MAX}")],
            ),
            (
                "columns and indexes of a table",
                vec![format!("{COLUMNS_MAX} and {INDEXES_MAX}")],
            ),
            ("subjects of a source", vec![SUBJECTS_MAX.to_string()]),
        ] {
            for value in values {
                let row = documented(limit);
                assert!(row.contains(&value), "{value:?} is not in {row:?}");
            }
        }
    }

    #[test]
    fn the_derives_of_the_sdk_use_the_same_limits() {
        let source = include_str!("../../../plugins/sdk-macros/src/limits.rs");
        for line in [
            format!("TABLE_NAME_BYTES_MAX: usize = {TABLE_NAME_BYTES_MAX};"),
            format!("COLUMN_NAME_BYTES_MAX: usize = {COLUMN_NAME_BYTES_MAX};"),
            format!("KEY_COLUMNS_MAX: usize = {KEY_COLUMNS_MAX};"),
            format!("SYSTEM_COLUMNS: [&str; 6] = {SYSTEM_COLUMNS:?};"),
        ] {
            assert!(
                source.contains(&line),
                "{line:?} is not in plugins/sdk-macros/src/limits.rs"
            );
        }
    }

    #[test]
    fn an_entry_of_the_largest_key_fits_a_page_of_postgresql() {
        // A header of 8 bytes and a bitmap of nulls; each column needs up to 7 bytes for its header and alignment; the
        // host may add an origin, a sequence, a row and an arrival number of 8 bytes each.
        for columns in 1..=KEY_COLUMNS_MAX {
            let values = KEY_BYTES_MAX - KEY_COLUMN_BYTES * (columns - 1);
            assert!(16 + values + 7 * columns + 4 * 8 <= 2_704, "{columns} columns");
        }
    }
}
