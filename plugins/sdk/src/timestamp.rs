//! Timestamps of the contract. A plugin has no clock, so there is no current time.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// A point in time, to the microsecond.
///
/// It is parsed from RFC 3339 text with any offset and any number of fractional digits, truncated to microseconds. A space
/// instead of the `T` is accepted.
///
/// ```
/// use lantern_sdk::Timestamp;
///
/// let time: Timestamp = serde_json::from_str(r#""2026-05-28T12:41:00.1234567+02:00""#)?;
/// assert_eq!(time.to_string(), "2026-05-28T10:41:00.123456Z");
/// assert_eq!(time, Timestamp::from_micros(1_779_964_860_123_456));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time `micros` microseconds after 1970-01-01T00:00:00Z; negative before it.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Parses RFC 3339 text; `None` if it is not valid.
    ///
    /// ```
    /// use lantern_sdk::Timestamp;
    ///
    /// assert_eq!(Timestamp::parse("1970-01-01T01:00:00+01:00"), Some(Timestamp::from_micros(0)));
    /// assert_eq!(Timestamp::parse("yesterday"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        // The strict parser is several times faster; the relaxed one accepts common variants.
        let time = DateTime::parse_from_rfc3339(text)
            .or_else(|_| text.parse::<DateTime<FixedOffset>>())
            .ok()?;
        Some(Self(time.timestamp_micros()))
    }
}

/// Like [`Timestamp::parse`], with an error for `?`.
impl FromStr for Timestamp {
    type Err = NoTimestamp;

    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        Self::parse(text).ok_or_else(|| NoTimestamp(text.chars().take(64).collect()))
    }
}

/// Text that is not a valid time.
///
/// ```
/// use lantern_sdk::Timestamp;
///
/// let error = "yesterday".parse::<Timestamp>().unwrap_err();
/// assert_eq!(error.to_string(), "not a valid time: `yesterday`; expected a time such as 2026-05-28T10:41:00Z");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoTimestamp(String);

impl fmt::Display for NoTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not a valid time: `{}`; expected a time such as 2026-05-28T10:41:00Z",
            self.0
        )
    }
}

impl std::error::Error for NoTimestamp {}

/// RFC 3339 in UTC with microseconds, or the number of microseconds outside of the calendar range.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Rfc3339)
    }
}

struct Rfc3339;

impl Visitor<'_> for Rfc3339 {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as 2026-05-28T10:41:00Z")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Timestamp, E> {
        Timestamp::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_same_texts_as_chrono() {
        let cases = [
            ("2026-05-28T10:41:00Z", "2026-05-28T10:41:00.000000Z"),
            ("2026-05-28t10:41:00z", "2026-05-28T10:41:00.000000Z"),
            ("2026-05-28 10:41:00.5Z", "2026-05-28T10:41:00.500000Z"),
            ("2026-05-28T10:41:00.123456789Z", "2026-05-28T10:41:00.123456Z"),
            (
                "2026-05-28T10:41:00.12345678901234+05:30",
                "2026-05-28T05:11:00.123456Z",
            ),
            ("2026-05-28T10:41:00-0800", "2026-05-28T18:41:00.000000Z"),
            ("1969-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59.999999Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000Z"),
        ];
        for (text, expected) in cases {
            let ours = Timestamp::parse(text).map(|time| time.to_string());
            assert_eq!(ours.as_deref(), Some(expected), "{text}");
            let chrono: DateTime<Utc> = text.parse().unwrap();
            assert_eq!(
                chrono.timestamp_micros(),
                Timestamp::parse(text).unwrap().as_micros(),
                "{text}"
            );
        }
        for text in [
            "",
            "2026-05-28",
            "2026-05-28T10:41:00",
            "2026-02-30T10:41:00Z",
            "1779964860",
            "x",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_timestamp_can_be_formatted() {
        assert_eq!(Timestamp::from_micros(i64::MIN).to_string(), i64::MIN.to_string());
        assert_eq!(
            Timestamp::from_micros(-1).to_string(),
            "1969-12-31T23:59:59.999999Z"
        );
    }

    #[test]
    fn an_invalid_time_is_reported() {
        let error = serde_json::from_str::<Timestamp>(r#""yesterday""#).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"invalid value: string "yesterday", expected a time such as 2026-05-28T10:41:00Z at line 1 column 11"#
        );
    }
}
