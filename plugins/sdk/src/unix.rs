//! Times as a number of seconds, milliseconds, microseconds or nanoseconds since 1970.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::declare::ColumnType;
use crate::{ColumnValue, Timestamp, Value};

/// Seconds since 1970, such as `1779964860`, optionally with a fraction.
pub type UnixSeconds = Unix<1>;
/// Milliseconds since 1970, such as `1779964860123`.
pub type UnixMillis = Unix<1_000>;
/// Microseconds since 1970.
pub type UnixMicros = Unix<1_000_000>;
/// Nanoseconds since 1970, truncated to microseconds.
pub type UnixNanos = Unix<1_000_000_000>;

/// A time as a number of units since 1970, with `PER_SECOND` units per second, or as a string with that number, as in formats
/// whose numbers are too large for JavaScript. It is a `timestamp` column. See [`UnixSeconds`] and the other aliases.
///
/// ```
/// use lantern_sdk::{Timestamp, UnixNanos, UnixSeconds};
///
/// #[derive(serde::Deserialize)]
/// struct Times { pushed_at: UnixSeconds, time_unix_nano: UnixNanos, observed: Option<UnixNanos> }
///
/// let times: Times = serde_json::from_str(
///     r#"{"pushed_at": 1557933657, "time_unix_nano": "1544712660300000000", "observed": null}"#,
/// )?;
/// assert_eq!(times.pushed_at.0.to_string(), "2019-05-15T15:20:57.000000Z");
/// assert_eq!(Timestamp::from(times.time_unix_nano).to_string(), "2018-12-13T14:51:00.300000Z");
/// # assert!(times.observed.is_none());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unix<const PER_SECOND: i64>(
    /// The point in time.
    pub Timestamp,
);

impl<const PER_SECOND: i64> Unix<PER_SECOND> {
    /// The time `count` units after 1970-01-01T00:00:00Z; `None` if it is out of range.
    pub fn new(count: i64) -> Option<Self> {
        let micros = i128::from(count) * 1_000_000;
        let micros = micros.div_euclid(i128::from(PER_SECOND));
        i64::try_from(micros)
            .ok()
            .map(|micros| Self(Timestamp::from_micros(micros)))
    }

    /// The same for a fraction. A double is exact to the microsecond for about 280 years.
    fn from_fraction(count: f64) -> Option<Self> {
        let micros = (count * 1_000_000.0 / PER_SECOND as f64).floor();
        let range = i64::MIN as f64..i64::MAX as f64;
        range
            .contains(&micros)
            .then(|| Self(Timestamp::from_micros(micros as i64)))
    }
}

impl<const PER_SECOND: i64> From<Unix<PER_SECOND>> for Timestamp {
    fn from(time: Unix<PER_SECOND>) -> Self {
        time.0
    }
}

impl<const PER_SECOND: i64> ColumnValue for Unix<PER_SECOND> {
    const TYPE: ColumnType = ColumnType::Timestamp;

    fn into_value(self) -> Value {
        self.0.into_value()
    }
}

impl<'de, const PER_SECOND: i64> Deserialize<'de> for Unix<PER_SECOND> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number::<PER_SECOND>)
    }
}

struct Number<const PER_SECOND: i64>;

impl<const PER_SECOND: i64> Visitor<'_> for Number<PER_SECOND> {
    type Value = Unix<PER_SECOND>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match PER_SECOND {
            1 => "seconds",
            1_000 => "milliseconds",
            1_000_000 => "microseconds",
            _ => "nanoseconds",
        };
        write!(f, "a number of {unit} since 1970")
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<Self::Value, E> {
        Unix::new(count).ok_or_else(|| E::invalid_value(Unexpected::Signed(count), &self))
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Self::Value, E> {
        i64::try_from(count)
            .ok()
            .and_then(Unix::new)
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(count), &self))
    }

    fn visit_f64<E: Error>(self, count: f64) -> Result<Self::Value, E> {
        Unix::from_fraction(count).ok_or_else(|| E::invalid_value(Unexpected::Float(count), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let whole = text.parse().ok().and_then(Unix::new);
        whole
            .or_else(|| text.parse().ok().and_then(Unix::from_fraction))
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format<const PER_SECOND: i64>(json: &str) -> String {
        match serde_json::from_str::<Unix<PER_SECOND>>(json) {
            Ok(time) => time.0.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn numbers_and_strings_are_parsed() {
        assert_eq!(format::<1>("0"), "1970-01-01T00:00:00.000000Z");
        assert_eq!(format::<1>("1544712660.25"), "2018-12-13T14:51:00.250000Z");
        assert_eq!(format::<1>("\"1544712660.25\""), "2018-12-13T14:51:00.250000Z");
        assert_eq!(format::<1_000>("-1"), "1969-12-31T23:59:59.999000Z");
        assert_eq!(
            format::<1_000_000>("1544712660300000"),
            "2018-12-13T14:51:00.300000Z"
        );
        assert_eq!(
            format::<1_000_000_000>("1544712660300000999"),
            "2018-12-13T14:51:00.300000Z"
        );
        assert_eq!(format::<1_000_000_000>("\"-1\""), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn invalid_times_are_rejected_with_the_unit() {
        for json in ["9223372036854775807", "\"noon\"", "1e300", "\"NaN\""] {
            let error = format::<1>(json);
            assert!(
                error.contains("expected a number of seconds since 1970"),
                "{json}: {error}"
            );
        }
        assert!(format::<1_000_000_000>("18446744073709551615").contains("nanoseconds"));
        assert!(format::<1_000>("true").contains("expected a number of milliseconds"));
    }
}
