//! Points in time.

use chrono::{DateTime, SecondsFormat, Utc};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest admissible time: 0000-01-01T00:00:00Z, the first that RFC 3339 can represent.
    pub const MIN: Self = Self(-62_167_219_200_000_000);

    /// The latest admissible time: 9999-12-31T23:59:59.999999Z, the last that RFC 3339 can represent.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// Whether the time is in the range that columns store and the API accepts. Every write path and every query
    /// parameter uses this definition.
    pub fn is_admissible(self) -> bool {
        (Self::MIN..=Self::MAX).contains(&self)
    }

    /// The current time of this machine's clock.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// Parses RFC 3339. `None` when the text is not RFC 3339, or when an offset moves the time out of the admissible
    /// range.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self(time.timestamp_micros())).filter(|time| time.is_admissible())
    }

    /// RFC 3339 in UTC with microseconds, or the number of microseconds outside the admissible range.
    pub fn to_rfc3339(self) -> String {
        match DateTime::<Utc>::from_timestamp_micros(self.0).filter(|_| self.is_admissible()) {
            Some(time) => time.to_rfc3339_opts(SecondsFormat::Micros, true),
            None => self.0.to_string(),
        }
    }
}
