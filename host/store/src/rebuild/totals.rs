//! Totals of the columns of a table, as SQL and as values.

use crate::statement::quote_text;
use crate::values::StorageClass;
use lantern_model::schema::ColumnType;

/// Totals of one column.
pub(super) const SUMS: usize = 3;

/// A sum. That of integers is exact modulo 2^64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Total {
    Integer(i64),
    Real(f64),
}

impl Total {
    /// The sum as a number of rows.
    pub(super) fn count(self) -> u64 {
        match self {
            Self::Integer(number) => u64::try_from(number).unwrap_or(0),
            Self::Real(_) => 0,
        }
    }

    /// The last digits of a sum of real numbers depend on the order of the rows.
    pub(super) fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Integer(one), Self::Integer(other)) => one == other,
            (Self::Real(one), Self::Real(other)) => {
                one == other
                    || (one - other).abs() <= 1e-9 * one.abs().max(other.abs())
                    || (one.is_nan() && other.is_nan())
            }
            // One of the tables has no row.
            (Self::Real(real), Self::Integer(0)) | (Self::Integer(0), Self::Real(real)) => real == 0.0,
            _ => false,
        }
    }
}

impl std::ops::Add for Total {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Integer(one), Self::Integer(other)) => Self::Integer(one.wrapping_add(other)),
            (Self::Real(one), Self::Real(other)) => Self::Real(one + other),
            (Self::Real(real), Self::Integer(integer)) | (Self::Integer(integer), Self::Real(real)) => {
                Self::Real(real + integer as f64)
            }
        }
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
        }
    }
}

/// Non-null values, and their sum. The sum of integers is computed in two halves, so that it cannot overflow.
pub(super) fn column_sums(column: &str, column_type: ColumnType) -> [String; SUMS] {
    sums_of(&quote_text(column), column_type)
}

/// The same for the rows that meet a condition.
pub(super) fn column_sums_where(column: &str, column_type: ColumnType, condition: &str) -> [String; SUMS] {
    let column = quote_text(column);
    sums_of(&format!("CASE WHEN {condition} THEN {column} END"), column_type)
}

fn sums_of(value: &str, column_type: ColumnType) -> [String; SUMS] {
    let [sum, rest] = match StorageClass::of(column_type) {
        StorageClass::Integer => [
            format!("coalesce(sum({value} & 4294967295), 0)"),
            format!("coalesce(sum({value} >> 32), 0)"),
        ],
        StorageClass::Real => [format!("coalesce(sum({value}), 0.0)"), "0".to_owned()],
        StorageClass::Text | StorageClass::Blob => {
            [format!("coalesce(sum(octet_length({value})), 0)"), "0".to_owned()]
        }
    };
    [format!("count({value})"), sum, rest]
}
