//! Values as SQLite stores them: the only place that maps types of columns to storage classes, in both directions.

use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::de::IgnoredAny;

use crate::sql::Engine;
use lantern_model::batch::{Timestamp, Value};
use lantern_model::schema::ColumnType;

/// How SQLite stores the values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StorageClass {
    Integer,
    Real,
    Text,
    Blob,
}

impl StorageClass {
    /// The storage class of a column type.
    pub(crate) fn of(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::Boolean | ColumnType::Integer | ColumnType::Timestamp => Self::Integer,
            ColumnType::Real => Self::Real,
            ColumnType::Text | ColumnType::Json => Self::Text,
            ColumnType::Blob => Self::Blob,
        }
    }

    /// The type of PostgreSQL.
    pub(crate) fn server_type(self) -> tokio_postgres::types::Type {
        use tokio_postgres::types::Type;
        match self {
            Self::Integer => Type::INT8,
            Self::Real => Type::FLOAT8,
            Self::Text => Type::TEXT,
            Self::Blob => Type::BYTEA,
        }
    }

    /// The type in `CREATE TABLE`.
    pub(crate) fn as_sql(self, engine: Engine) -> &'static str {
        match (self, engine) {
            (Self::Integer, Engine::Sqlite) => "INTEGER",
            (Self::Integer, Engine::Postgres) => "BIGINT",
            (Self::Real, Engine::Sqlite) => "REAL",
            (Self::Real, Engine::Postgres) => "DOUBLE PRECISION",
            (Self::Text, Engine::Sqlite) => "TEXT",
            // Text is compared byte by byte, as in SQLite: cursors depend on the order.
            (Self::Text, Engine::Postgres) => "TEXT COLLATE \"C\"",
            (Self::Blob, Engine::Sqlite) => "BLOB",
            (Self::Blob, Engine::Postgres) => "BYTEA",
        }
    }
}

/// A value as SQLite stores it.
pub(crate) fn stored(value: &Value) -> ValueRef<'_> {
    match value {
        Value::Null => ValueRef::Null,
        Value::Boolean(yes) => ValueRef::Integer(i64::from(*yes)),
        Value::Integer(integer) | Value::Timestamp(Timestamp(integer)) => ValueRef::Integer(*integer),
        Value::Real(real) => ValueRef::Real(*real),
        Value::Text(text) | Value::Json(text) => ValueRef::Text(text.as_bytes()),
        Value::Blob(bytes) => ValueRef::Blob(bytes),
    }
}

/// A value as a parameter of a statement.
pub(crate) fn parameter(value: &Value) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(stored(value))
}

/// A value as a parameter that outlives it.
pub(crate) fn into_parameter(value: Value) -> rusqlite::types::Value {
    use rusqlite::types::Value as Parameter;
    match value {
        Value::Text(text) | Value::Json(text) => Parameter::Text(text),
        Value::Blob(bytes) => Parameter::Blob(bytes),
        number => match stored(&number) {
            ValueRef::Integer(integer) => Parameter::Integer(integer),
            ValueRef::Real(real) => Parameter::Real(real),
            _ => Parameter::Null,
        },
    }
}

/// A value that was read from the database. Text may be any bytes.
#[derive(Debug, Default)]
pub(crate) enum Stored {
    #[default]
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Stored {
    pub(crate) fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(text) => Self::Text(text.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    pub(crate) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }
    }

    /// The value of a column of this type. Invalid UTF-8 is replaced.
    ///
    /// A real that is not finite and a time outside [`Timestamp::MIN`] to [`Timestamp::MAX`] are read as null: JSON cannot
    /// represent them, and one such value must not make the whole table unreadable. Only earlier versions stored them.
    ///
    /// # Errors
    /// A sentence that states why it is no value of this type.
    pub(crate) fn into_value(self, column_type: ColumnType) -> Result<Value, String> {
        Ok(match (column_type, self) {
            (_, Self::Null) => Value::Null,
            (ColumnType::Boolean, Self::Integer(number)) => Value::Boolean(number != 0),
            (ColumnType::Integer, Self::Integer(number)) => Value::Integer(number),
            (ColumnType::Timestamp, Self::Integer(number)) => match Timestamp(number) {
                time if time.is_admissible() => Value::Timestamp(time),
                _ => Value::Null,
            },
            (ColumnType::Real, Self::Real(number)) if number.is_finite() => Value::Real(number),
            (ColumnType::Real, Self::Real(_)) => Value::Null,
            (ColumnType::Text, Self::Text(text)) => Value::Text(lossy(text)),
            (ColumnType::Json, Self::Text(text)) => {
                let document = lossy(text);
                serde_json::from_str::<IgnoredAny>(&document).map_err(|error| error.to_string())?;
                Value::Json(document)
            }
            (ColumnType::Blob, Self::Blob(bytes)) => Value::Blob(bytes),
            (_, stored) => {
                let stored = stored.as_ref().data_type();
                return Err(format!("it is declared as {column_type} and stored as {stored}"));
            }
        })
    }

    /// The value by its storage class alone, for results without declared types. Invalid UTF-8 is replaced.
    pub(crate) fn into_untyped(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(number) => Value::Integer(number),
            Self::Real(number) => Value::Real(number),
            Self::Text(text) => Value::Text(lossy(text)),
            Self::Blob(bytes) => Value::Blob(bytes),
        }
    }
}

fn lossy(text: Vec<u8>) -> String {
    String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A count or a sequence as SQLite stores it. JetStream sequences stay far below 2^63.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The inverse of [`to_sql`].
pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_stored() {
        for value in [
            Value::Boolean(true),
            Value::Integer(i64::MIN),
            Value::Real(-0.5),
            Value::Text("a".into()),
            Value::Blob(vec![0]),
            Value::Timestamp(Timestamp::MAX),
            Value::Json("[1e400]".into()),
        ] {
            let column_type = value.column_type().unwrap();
            let read = Stored::of(stored(&value)).into_value(column_type);
            assert_eq!(read, Ok(value.clone()));
            assert_eq!(
                Stored::of(ValueRef::Null).into_value(column_type),
                Ok(Value::Null)
            );
            let parameter = into_parameter(value.clone());
            assert_eq!(ValueRef::from(&parameter), stored(&value));
        }
    }

    #[test]
    fn values_that_json_cannot_represent_are_null_and_damaged_ones_errors() {
        for (column_type, stored, expected) in [
            (ColumnType::Real, Stored::Real(f64::INFINITY), Ok(Value::Null)),
            (ColumnType::Timestamp, Stored::Integer(i64::MAX), Ok(Value::Null)),
            (
                ColumnType::Text,
                Stored::Text(vec![b'a', 0xff]),
                Ok(Value::Text("a\u{fffd}".into())),
            ),
            (
                ColumnType::Integer,
                Stored::Text(Vec::new()),
                Err("it is declared as integer and stored as Text".to_owned()),
            ),
        ] {
            assert_eq!(stored.into_value(column_type), expected);
        }
        assert!(Stored::Text(b"{".to_vec()).into_value(ColumnType::Json).is_err());
    }
}
