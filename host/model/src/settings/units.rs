//! Sizes and durations in human-readable form, such as `64 MiB` and `500ms`, with their JSON serialization.

use std::fmt;

const UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Parses an integer with an optional unit as bytes. `None` when it is not a size or exceeds 64 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, *factor)))
        .unwrap_or((text, 1));
    number.trim().parse::<u64>().ok()?.checked_mul(factor)
}

/// Displays bytes in the largest binary unit that represents them exactly.
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..3]
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => write!(f, "{} {unit}", self.0 / factor),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// An optional size, as a number or as text with a unit; serialized as text.
pub(super) mod size {
    use serde::{Deserializer, Serializer, de};

    use super::{ByteSize, parse_size};
    use crate::batch::clean_text;

    pub fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.collect_str(&ByteSize(*bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Option<u64>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as \"64 MiB\", or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Self::Value, E> {
                Ok(Some(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let message = || format!("{:?} is not a size, such as \"64 MiB\"", clean_text(text, 80));
                parse_size(text).map(Some).ok_or_else(|| E::custom(message()))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// An optional duration, as text with a unit.
pub(super) mod time {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::batch::clean_text;

    pub fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(&humantime::format_duration(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        humantime::parse_duration(&text).map(Some).map_err(|_| {
            let text = clean_text(&text, 80);
            de::Error::custom(format!("{text:?} is not a duration, such as \"500ms\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_and_displayed_exactly() {
        let cases = [
            ("64 MiB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1 kB", 1000),
            ("17", 17),
            ("1 GiB", 1 << 30),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(parse_size(&ByteSize(bytes).to_string()), Some(bytes), "{text}");
        }
        for bad in ["", "MiB", "1.5 MiB", "-1 B", "64 mib", "20000000000 GiB", "1 TiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
