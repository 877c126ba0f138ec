//! The data that passes through a projection: messages in, outcomes out. No I/O.

use bytes::Bytes;

pub use crate::text::{clean_text, is_hazardous};
pub use crate::timestamp::Timestamp;
pub use crate::value::Value;

/// One message of a source, as the broker delivered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The subject, with U+FFFD for NUL, which not every database can store.
    pub subject: String,
    /// The sequence in the stream. A core NATS source has none; the host then counts the messages received in this
    /// epoch, so that every row has an origin, and passes 0 to the plugin.
    pub sequence: u64,
    /// When the broker stored it (core NATS: when the host received it), in nanoseconds since 1970: the broker's
    /// precision, which the comparison of histories requires.
    pub published_ns: i64,
    /// Sorted by name, with the values of a name in the order sent. Always present, for dead letters; a plugin receives
    /// them only if its source requests them.
    pub headers: Vec<(String, String)>,
    /// The payload, which shares the receive buffer.
    pub payload: Bytes,
}

impl Delivery {
    /// When the broker stored it, in the precision of plugins and rows.
    pub fn published(&self) -> Timestamp {
        Timestamp(self.published_ns.div_euclid(1_000))
    }

    /// Whether the message only marks the deletion of a key or a subject: a deleted or purged key of a key-value
    /// bucket, or the broker's marker when the last message of a subject expires. It has no payload, so there is
    /// nothing to project.
    pub fn is_delete_marker(&self) -> bool {
        self.payload.is_empty()
            && self.headers.iter().any(|(name, value)| match name.as_str() {
                "KV-Operation" => matches!(value.as_str(), "DEL" | "PURGE"),
                "Nats-Marker-Reason" => true,
                _ => false,
            })
    }

    /// Bytes of memory that the message uses, for the bounds of batches and queues.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.subject.len() + headers + self.payload.len()
    }
}

/// One row for one of a plugin's writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Index into the manifest's writes.
    pub write: u32,
    /// Values in the order of the write's columns.
    pub values: Vec<Value>,
}

/// Why a message could not be projected. The plugin reports the first three, the host the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum RejectionClass {
    /// The bytes do not match the format.
    Malformed,
    /// A version or kind that the plugin does not support.
    Unsupported,
    /// Well formed, but it violates a rule.
    Invalid,
    /// The plugin trapped on it.
    Trap,
    /// The plugin exceeded the time limit for one message.
    Timeout,
    /// The plugin exceeded its memory limit.
    Memory,
    /// The plugin's answer violates its own description or a limit on rows and bytes.
    Output,
    /// The database rejected its rows.
    Constraint,
    /// An operator had it erased.
    Forgotten,
}

impl RejectionClass {
    /// The name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Constraint => "constraint",
            Self::Forgotten => "forgotten",
        }
    }
}

/// Why a message becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The class of the reason.
    pub class: RejectionClass,
    /// The reason for the operator: at most [`REASON_BYTES_MAX`] bytes, without control characters.
    pub reason: String,
}

/// Longest stored reason. A plugin may answer with megabytes of error text.
pub const REASON_BYTES_MAX: usize = 4 * 1024;

impl Rejection {
    /// Truncates and cleans `reason`, so that it is safe to store, log and display.
    pub fn new(class: RejectionClass, reason: &str) -> Self {
        Self {
            class,
            reason: clean_text(reason, REASON_BYTES_MAX),
        }
    }
}

/// The outcome of one message.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// These rows, all or none.
    Rows(Vec<Row>),
    /// Deliberately no row.
    Skip,
    /// A dead letter.
    Reject(Rejection),
}

impl Outcome {
    /// The outcome of a message that an operator had erased.
    pub fn forgotten() -> Self {
        Self::Reject(Rejection::new(RejectionClass::Forgotten, FORGOTTEN_REASON))
    }

    /// Whether an operator had the message erased.
    pub fn is_forgotten(&self) -> bool {
        matches!(self, Self::Reject(rejection) if rejection.class == RejectionClass::Forgotten)
    }
}

/// The reason that stands in the dead letter of an erased message.
pub const FORGOTTEN_REASON: &str = "erased with `lantern forget`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_hostile_text_is_truncated_and_cleaned() {
        let clean = clean_text(&format!("\u{1b}[31mred\0\n{}", "ä".repeat(10_000)), 64);
        assert!(clean.len() <= 64, "{} bytes", clean.len());
        assert!(clean.ends_with('…'));
        assert!(!clean.chars().any(char::is_control));
        assert_eq!(clean_text("a plain reason", 64), "a plain reason");
    }

    #[test]
    fn delete_markers_are_empty_messages_with_a_certain_header() {
        let marker = |name: &str, value: &str, payload: &'static [u8]| {
            let delivery = Delivery {
                subject: "$KV.j.a".into(),
                sequence: 1,
                published_ns: 1,
                headers: vec![("Z".into(), "1".into()), (name.into(), value.into())],
                payload: Bytes::from_static(payload),
            };
            delivery.is_delete_marker()
        };
        for (name, value, expected) in [
            ("KV-Operation", "DEL", true),
            ("KV-Operation", "PURGE", true),
            ("KV-Operation", "PUT", false),
            ("Nats-Marker-Reason", "MaxAge", true),
            ("Nats-Msg-Id", "1", false),
        ] {
            assert_eq!(marker(name, value, b""), expected, "{name}: {value}");
            assert!(
                !marker(name, value, b"{}"),
                "a message with a payload is not a marker"
            );
        }
    }

    #[test]
    fn times_before_1970_round_down() {
        let delivery = Delivery {
            subject: "s".into(),
            sequence: 1,
            published_ns: -1,
            headers: Vec::new(),
            payload: Bytes::new(),
        };
        assert_eq!(delivery.published(), Timestamp(-1));
        assert_eq!(Timestamp(0).to_rfc3339(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp(i64::MAX).to_rfc3339(), i64::MAX.to_string());
    }

    #[test]
    fn admissible_times_are_those_that_rfc_3339_can_represent() {
        for (time, text) in [
            (Timestamp::MIN, "0000-01-01T00:00:00.000000Z"),
            (Timestamp::MAX, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert!(time.is_admissible());
            assert_eq!(time.to_rfc3339(), text);
            assert_eq!(Timestamp::parse_rfc3339(text), Some(time));
        }
        for outside in [Timestamp::MIN.0 - 1, Timestamp::MAX.0 + 1] {
            assert!(!Timestamp(outside).is_admissible());
            assert_eq!(Timestamp(outside).to_rfc3339(), outside.to_string());
        }
        for text in [
            "9999-12-31T23:59:59-23:59",
            "0000-01-01T00:00:00+00:01",
            "+12345-01-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }
}
