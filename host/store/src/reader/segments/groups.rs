//! Sums of rows for each value of a column and each bucket.

use std::collections::{BTreeMap, HashMap};

use rusqlite::types::ValueRef;

use crate::read_error::ReadError;
use crate::reader::shape::Shape;
use crate::values::{Stored, stored};
use lantern_model::batch::Value;

/// A value is compared with each of so few known values, instead of being copied and searched.
const VALUES_COMPARED: usize = 16;

/// The sums. Most rows of a query have the value of the row before, so that is compared first.
#[derive(Default)]
pub(super) struct Groups {
    numbers: BTreeMap<GroupValue, usize>,
    last: Option<(GroupValue, usize)>,
    sums: HashMap<(usize, i64), u64>,
}

/// A value of a facet, in the order of SQLite: all values of a column have one type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GroupValue {
    Null,
    Integer(i64),
    /// The bits, changed so that they have the order of the numbers.
    Real(u64),
    Text(Vec<u8>),
}

impl Groups {
    /// Adds rows with a value in a bucket.
    pub(super) fn add(&mut self, value: ValueRef<'_>, bucket: i64, rows: i64) {
        let number = self.number(value);
        *self.sums.entry((number, bucket)).or_default() += rows.unsigned_abs();
    }

    fn number(&mut self, value: ValueRef<'_>) -> usize {
        if let Some((last, number)) = &self.last
            && last.is(value)
        {
            return *number;
        }
        if self.numbers.len() <= VALUES_COMPARED
            && let Some((_, number)) = self.numbers.iter().find(|(known, _)| known.is(value))
        {
            return *number;
        }
        let value = GroupValue::of(value);
        let next = self.numbers.len();
        let number = *self.numbers.entry(value.clone()).or_insert(next);
        self.last = Some((value, number));
        number
    }

    /// The rows of each value in all buckets, in the order of the values.
    pub(super) fn into_values(self, shape: &Shape, column: usize) -> Result<Vec<(Value, u64)>, ReadError> {
        let mut rows = vec![0_u64; self.numbers.len()];
        for ((number, _), sum) in self.sums {
            rows[number] += sum;
        }
        let described = &shape.columns[column];
        let what = || format!("column {} of table {}", described.name, shape.entry.name);
        let values = self.numbers.into_iter();
        values
            .map(|(value, number)| {
                let value = value.into_stored().into_value(described.column_type);
                Ok((
                    value.map_err(|why| ReadError::corrupt(what(), why))?,
                    rows[number],
                ))
            })
            .collect()
    }

    /// The rows of these values in each bucket: the number of the bucket, the index of the value, and the rows.
    pub(super) fn of_values(&self, values: &[Value]) -> Vec<(i64, usize, u64)> {
        let index_of: HashMap<usize, usize> = values
            .iter()
            .enumerate()
            .filter_map(|(index, value)| Some((*self.numbers.get(&GroupValue::of(stored(value)))?, index)))
            .collect();
        let sums = self.sums.iter();
        sums.filter_map(|((number, bucket), rows)| Some((*bucket, *index_of.get(number)?, *rows)))
            .collect()
    }
}

impl GroupValue {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(in_order(number)),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Self::Text(bytes.to_vec()),
        }
    }

    fn is(&self, value: ValueRef<'_>) -> bool {
        match (self, value) {
            (Self::Null, ValueRef::Null) => true,
            (Self::Integer(one), ValueRef::Integer(other)) => *one == other,
            (Self::Real(one), ValueRef::Real(other)) => *one == in_order(other),
            (Self::Text(one), ValueRef::Text(other) | ValueRef::Blob(other)) => one == other,
            _ => false,
        }
    }

    fn into_stored(self) -> Stored {
        match self {
            Self::Null => Stored::Null,
            Self::Integer(number) => Stored::Integer(number),
            Self::Real(bits) => Stored::Real(from_order(bits)),
            Self::Text(bytes) => Stored::Text(bytes),
        }
    }
}

const SIGN: u64 = 1 << 63;

/// The bits of a double in the order of the numbers. Both zeros are one value, as in SQLite.
fn in_order(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn from_order(bits: u64) -> f64 {
    f64::from_bits(if bits & SIGN == 0 { !bits } else { bits & !SIGN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_keep_their_order_and_value() {
        let numbers = [f64::NEG_INFINITY, -1.5, -0.1, 0.0, 1e-300, 2.0, f64::INFINITY];
        for pair in numbers.windows(2) {
            assert!(in_order(pair[0]) < in_order(pair[1]), "{pair:?}");
        }
        for number in numbers {
            assert_eq!(from_order(in_order(number)).to_bits(), number.to_bits());
        }
        assert_eq!(in_order(-0.0), in_order(0.0));
    }
}
