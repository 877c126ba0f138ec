//! Limits of declarations that the derives check. They equal those of the host, and a test of the host compares them.

/// Bytes of a table's name.
pub const TABLE_NAME_BYTES_MAX: usize = 48;

/// Bytes of a column's name.
pub const COLUMN_NAME_BYTES_MAX: usize = 63;

/// Columns of a key or index.
pub const KEY_COLUMNS_MAX: usize = 28;

/// Names of PostgreSQL's system columns, which no table can declare.
pub const SYSTEM_COLUMNS: [&str; 6] = ["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"];
