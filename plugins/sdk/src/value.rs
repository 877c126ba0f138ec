//! Converts Rust types to column values without loss. There is no `u64`, because an integer column holds an `i64`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::declare::ColumnType;
use crate::{Rejection, Result, Timestamp};

pub use crate::bindings::exports::lantern::projection::projector::Value;

/// A type that can be a column: `bool`, integers up to 64 bits, `f32`, `f64`, `String`, `&str`, `Cow<str>`,
/// `Vec<u8>`, [`Timestamp`], [`Json`], and an `Option` of any of them.
///
/// Implement it for your own types:
///
/// ```
/// use lantern_sdk::{ColumnValue, Value, declare::ColumnType};
///
/// enum Severity { Low, High }
///
/// impl ColumnValue for Severity {
///     const TYPE: ColumnType = ColumnType::Text;
///
///     fn into_value(self) -> Value {
///         Value::Text(match self { Severity::Low => "low", Severity::High => "high" }.to_owned())
///     }
/// }
/// # assert_eq!(Severity::High.into_value(), Value::Text("high".to_owned()));
/// # assert_eq!(Some(Severity::Low).into_value(), Value::Text("low".to_owned()));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a column",
    note = "a column is a bool, an integer up to 64 bits (i64, u32), a float, text, Vec<u8>, Timestamp, Json (for nested values), or an Option of one of them"
)]
pub trait ColumnValue {
    /// The type of the column.
    const TYPE: ColumnType;
    /// Whether the value may be null.
    const NULLABLE: bool = false;

    /// The value, of type [`Self::TYPE`], or null if [`Self::NULLABLE`].
    fn into_value(self) -> Value;
}

macro_rules! column_values {
    ($($rust:ty => $column_type:ident, |$value:ident| $make:expr;)*) => {$(
        // The diagnostic of the trait lists the alternatives.
        #[diagnostic::do_not_recommend]
        impl ColumnValue for $rust {
            const TYPE: ColumnType = ColumnType::$column_type;

            #[inline]
            fn into_value(self) -> Value {
                let $value = self;
                Value::$column_type($make)
            }
        }
    )*};
}

column_values! {
    bool => Boolean, |value| value;
    i64 => Integer, |value| value;
    i32 => Integer, |value| value.into();
    i16 => Integer, |value| value.into();
    i8 => Integer, |value| value.into();
    u32 => Integer, |value| value.into();
    u16 => Integer, |value| value.into();
    u8 => Integer, |value| value.into();
    f64 => Real, |value| value;
    f32 => Real, |value| value.into();
    String => Text, |value| value;
    &str => Text, |value| value.to_owned();
    Cow<'_, str> => Text, |value| value.into_owned();
    Vec<u8> => Blob, |value| value;
    Timestamp => Timestamp, |value| value.as_micros();
    Json => Json, |value| value.0;
}

impl<T: ColumnValue> ColumnValue for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = true;

    #[inline]
    fn into_value(self) -> Value {
        self.map_or(Value::Null, T::into_value)
    }
}

/// A JSON document that is stored unchanged, including key order, spaces and number formats. Parsing only validates it. The JSON
/// value `null` is a document with the text `null`, not a null value.
///
/// ```
/// use lantern_sdk::{Json, Message, Value, ColumnValue};
///
/// #[derive(serde::Deserialize)]
/// struct Event { payload: Json }
///
/// let message = Message { payload: br#"{"payload": {"b": 1.50, "a":2}}"#, ..Message::default() };
/// let event = message.json::<Event>()?;
/// assert_eq!(event.payload.as_str(), r#"{"b": 1.50, "a":2}"#);
/// # assert_eq!(event.payload.into_value(), Value::Json(r#"{"b": 1.50, "a":2}"#.to_owned()));
/// # Ok::<(), lantern_sdk::Rejection>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Box<RawValue>")]
pub struct Json(String);

impl Json {
    /// The text of the document.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Serializes a value as a JSON document.
    ///
    /// # Errors
    /// If the value cannot be JSON, such as a map with keys that are not strings.
    ///
    /// ```
    /// use lantern_sdk::Json;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Position { x: i64, y: i64 }
    ///
    /// assert_eq!(Json::of(&Position { x: 1, y: 2 })?.as_str(), r#"{"x":1,"y":2}"#);
    /// # Ok::<(), lantern_sdk::Rejection>(())
    /// ```
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        serde_json::to_string(value)
            .map(Self)
            .map_err(|error| Rejection::invalid(format_args!("cannot serialize as JSON: {error}")))
    }

    /// Creates a document from text without validation. The host validates it, and an invalid one makes the message a dead letter.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<Box<RawValue>> for Json {
    #[inline]
    fn from(raw: Box<RawValue>) -> Self {
        Self(String::from(Box::<str>::from(raw)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_document_is_an_error_and_a_null_one_is_a_document() {
        #[derive(Debug, Deserialize)]
        struct Event {
            payload: Json,
        }
        let event: Event = serde_json::from_str(r#"{"payload":null}"#).unwrap();
        assert_eq!(event.payload.into_value(), Value::Json("null".to_owned()));
        let error = serde_json::from_str::<Event>("{}").unwrap_err().to_string();
        assert!(error.starts_with("missing field `payload`"), "{error}");
    }

    #[test]
    fn documents_keep_every_byte() {
        let text = "{\"b\":1.50e+01 ,\n\t\"a\":\"\\u00e9\\ud800\", \"a\": 123456789012345678901234567890}";
        let json: Json = serde_json::from_str(&format!("  {text} ")).unwrap();
        assert_eq!(json.as_str(), text);
        assert!(serde_json::from_str::<Json>("{\"a\":}").is_err());
    }

    #[test]
    fn only_an_option_is_nullable() {
        const { assert!(Option::<u8>::NULLABLE && !u8::NULLABLE) }
        assert_eq!(None::<u8>.into_value(), Value::Null);
        assert_eq!(Some(7_u8).into_value(), Value::Integer(7));
        assert_eq!(0.5_f32.into_value(), Value::Real(0.5));
        assert_eq!(Cow::Borrowed("x").into_value(), Value::Text("x".to_owned()));
    }
}
