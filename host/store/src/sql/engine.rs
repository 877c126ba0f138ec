//! Expressions of queries that the two engines write differently.

use lantern_model::schema::ColumnType;

use super::Engine;

impl Engine {
    /// The sum of `v` as a real, zero without values.
    pub(crate) fn total(self) -> &'static str {
        match self {
            Self::Sqlite => "total(v)",
            Self::Postgres => "coalesce(sum(v), 0)",
        }
    }

    /// The mean of `v`. The mean of integers of PostgreSQL is a decimal number, which has other digits.
    pub(crate) fn average(self) -> &'static str {
        match self {
            Self::Sqlite => "avg(v)",
            Self::Postgres => "CAST(sum(v) AS REAL) / count(v)",
        }
    }

    /// A parameter in a list of values, where PostgreSQL does not infer its type from a column.
    pub(crate) fn typed(self, parameter: &str, column_type: ColumnType) -> String {
        let name = match column_type {
            ColumnType::Integer | ColumnType::Timestamp | ColumnType::Boolean => "BIGINT",
            ColumnType::Real => "REAL",
            ColumnType::Text | ColumnType::Json => "TEXT",
            ColumnType::Blob => "BYTEA",
        };
        match self {
            Self::Sqlite => parameter.to_owned(),
            Self::Postgres => format!("CAST({parameter} AS {name})"),
        }
    }

    /// A query for the pairs of numbers in a JSON document such as `[[7, 100], [3, 90]]`; the second number of each is null
    /// unless it is wanted.
    pub(crate) fn listed_rows(self, document: &str, has_second: bool) -> String {
        let number = |index: u8| match self {
            Self::Sqlite => format!("value ->> {index}"),
            Self::Postgres => format!("CAST(value ->> {index} AS BIGINT)"),
        };
        let second = if has_second { number(1) } else { "NULL".to_owned() };
        format!("SELECT {}, {second} FROM {}", number(0), self.elements(document))
    }

    /// A query for the numbers in a JSON document such as `[7, 3]`, in a column `r`.
    pub(crate) fn listed_numbers(self, document: &str) -> String {
        let value = match self {
            Self::Sqlite => "value",
            Self::Postgres => "CAST(CAST(value AS TEXT) AS BIGINT)",
        };
        format!("SELECT {value} AS r FROM {}", self.elements(document))
    }

    /// The elements of a JSON array in a parameter. PostgreSQL has a function of this name for JSON, and the host one for text.
    fn elements(self, document: &str) -> String {
        match self {
            Self::Sqlite => format!("json_each({document})"),
            Self::Postgres => format!("json_each(CAST({document} AS TEXT))"),
        }
    }
}
