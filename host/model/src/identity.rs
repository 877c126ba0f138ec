//! The identity of a row: the message that last wrote it, and its index among the rows of that message.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Identifies a row within its table. The text `ORIGIN:SEQUENCE:ROW`, such as `12:48211:0`, is the same in SQL, API,
/// command line, exports and dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RowIdentity {
    /// The column `_origin`: the number of the source's epoch in this database.
    pub origin: i64,
    /// The column `_sequence`: the sequence of the message.
    pub sequence: i64,
    /// The column `_row`: the index of the row in its message.
    pub row: i64,
}

impl RowIdentity {
    /// The text as a regular expression.
    pub const PATTERN: &str = "^[0-9]+:[0-9]+:[0-9]+$";

    /// Parses the text; the error describes the form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut numbers = text.split(':').map(parse_number);
        match [numbers.next(), numbers.next(), numbers.next(), numbers.next()] {
            [Some(Some(origin)), Some(Some(sequence)), Some(Some(row)), None] => Ok(Self {
                origin,
                sequence,
                row,
            }),
            _ => Err("a row identity has the form ORIGIN:SEQUENCE:ROW, such as 12:48211:0".to_owned()),
        }
    }
}

/// Accepts the canonical form only, so that a row has one text.
fn parse_number(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number >= 0 && number.to_string() == text).then_some(number)
}

impl fmt::Display for RowIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.origin, self.sequence, self.row)
    }
}

impl TryFrom<String> for RowIdentity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<RowIdentity> for String {
    fn from(identity: RowIdentity) -> Self {
        identity.to_string()
    }
}

impl PartialSchema for RowIdentity {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "Identity of a row within its table: `ORIGIN:SEQUENCE:ROW`, the columns `_origin`, `_sequence` and `_row`.",
            ))
            .pattern(Some(Self::PATTERN))
            .examples(["12:48211:0"])
            .into()
    }
}

impl ToSchema for RowIdentity {
    fn name() -> Cow<'static, str> {
        "RowIdentity".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_one_text() {
        let identity = RowIdentity {
            origin: 12,
            sequence: i64::MAX,
            row: 0,
        };
        let text = format!("12:{}:0", i64::MAX);
        assert_eq!(identity.to_string(), text);
        assert_eq!(RowIdentity::parse(&text), Ok(identity));
        let json = serde_json::to_string(&identity).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<RowIdentity>(&json).unwrap(), identity);
        for wrong in [
            "",
            "1",
            "1:2",
            "1:2:",
            "1:2:3:4",
            "-1:2:3",
            "+1:2:3",
            "01:2:3",
            "1: 2:3",
            "1:x:3",
            "1:9223372036854775808:0",
        ] {
            assert!(RowIdentity::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(serde_json::from_str::<RowIdentity>("\"1:2\"").is_err());
    }
}
