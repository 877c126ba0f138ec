//! The event of a producer: subject, headers, payload and message id, and the rules that are checked before it is written.
//! Knows neither files nor connections.

use std::str::FromStr;

use async_nats::header::{HeaderName, HeaderValue};
use bytes::Bytes;

/// Maximum length of a subject. The protocol line of the server has 4,096 bytes for the subject, the reply subject and two
/// numbers; a quarter of it leaves space for the prefix of an account mapping.
const SUBJECT_BYTES_MAX: usize = 1024;

/// The header of the message id, by which the broker detects duplicates.
pub(crate) const MESSAGE_ID_HEADER: &str = "Nats-Msg-Id";

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The subject to publish to. No wildcard, no empty token, no whitespace.
    pub subject: String,
    /// The payload.
    pub payload: Bytes,
    /// Headers in order, without the message id.
    pub headers: Vec<(String, String)>,
    /// The message id; by default the id of the entry. Within the duplicate window of the stream, the broker treats events with
    /// the same id as one event.
    pub id: Option<String>,
}

impl Event {
    /// An event without headers, whose message id the outbox assigns.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            subject: subject.into(),
            payload: payload.into(),
            headers: Vec::new(),
            id: None,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the message id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Checks all rules that need no broker.
    ///
    /// # Errors
    /// [`InvalidEvent`] with the first violated rule. Like the broker, this compares `size_limit_bytes` with the size of
    /// headers and payload.
    pub fn check(&self, size_limit_bytes: usize) -> Result<(), InvalidEvent> {
        check_subject(&self.subject)?;
        check_headers(&self.headers)?;
        if let Some(id) = &self.id {
            check_id(id)?;
        }
        let size_bytes = self.size_bytes();
        if size_bytes > size_limit_bytes {
            return Err(InvalidEvent::TooLarge {
                size_bytes,
                limit_bytes: size_limit_bytes,
            });
        }
        Ok(())
    }

    /// The size that counts towards the broker's `max_payload`.
    fn size_bytes(&self) -> usize {
        const FRAME: usize = "NATS/1.0\r\n\r\n".len();
        // An id assigned by the outbox is a UUID with 36 characters.
        let id = self.id.as_ref().map_or(36, String::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        FRAME + MESSAGE_ID_HEADER.len() + id + 4 + headers + self.payload.len()
    }
}

/// An event violates a rule. It was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    /// Publishing to this subject is not possible.
    #[error("the subject {subject:?} {problem}")]
    Subject {
        /// The subject.
        subject: String,
        /// The problem, as the predicate of a sentence.
        problem: &'static str,
    },
    /// A header has an invalid name or value.
    #[error("the header {name:?} {problem}")]
    Header {
        /// The name of the header.
        name: String,
        /// The problem, as the predicate of a sentence.
        problem: &'static str,
    },
    /// The message id is empty or not a valid header value.
    #[error("the message id {id:?} must be one non-empty line of text")]
    Id {
        /// The message id.
        id: String,
    },
    /// Headers and payload are larger than the limit.
    #[error("headers and payload have {size_bytes} bytes; the limit is {limit_bytes}")]
    TooLarge {
        /// The size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
}

/// Checks a subject.
///
/// # Errors
/// [`InvalidEvent::Subject`] if publishing to it is not possible.
pub fn check_subject(subject: &str) -> Result<(), InvalidEvent> {
    let problem = if subject.is_empty() {
        "is empty"
    } else if subject.len() > SUBJECT_BYTES_MAX {
        "is longer than 1024 bytes"
    } else if subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "contains whitespace or a control character"
    } else if subject.split('.').any(str::is_empty) {
        "has an empty token (a leading, trailing or double dot)"
    } else if subject.contains(['*', '>']) {
        "contains a wildcard"
    } else if matches!(subject.split('.').next(), Some("$JS" | "$SYS")) {
        // Publishing there is a command to the broker (`$JS.API.STREAM.DELETE.X`), not an event.
        "is reserved for the broker"
    } else {
        return Ok(());
    };
    Err(InvalidEvent::Subject {
        subject: subject.to_owned(),
        problem,
    })
}

fn check_headers(headers: &[(String, String)]) -> Result<(), InvalidEvent> {
    for (name, value) in headers {
        let problem = if name.eq_ignore_ascii_case(MESSAGE_ID_HEADER) {
            "is set through the event's id"
        } else if name
            .get(..11)
            .is_some_and(|start| start.eq_ignore_ascii_case("Nats-Batch-"))
        {
            // The broker acknowledges the parts of a batch differently, and a single part is useless.
            "makes the event part of a batch, which the outbox does not support"
        } else if HeaderName::from_str(name).is_err() || name.is_empty() {
            "has an invalid name"
        } else if HeaderValue::from_str(value).is_err() || value.contains(['\r', '\n', '\0']) {
            "has a value that is not one line"
        } else {
            continue;
        };
        return Err(InvalidEvent::Header {
            name: name.clone(),
            problem,
        });
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), InvalidEvent> {
    let sendable = HeaderValue::from_str(id).is_ok() && !id.contains(['\r', '\n', '\0']);
    // The protocol trims surrounding spaces, which would change the id.
    if id.is_empty() || id.trim() != id || !sendable {
        return Err(InvalidEvent::Id { id: id.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects() {
        for good in [
            "a",
            "obs.pc-01",
            "events.started.e1.pc",
            "$KV.bucket.key",
            "ünïcode.x",
        ] {
            assert_eq!(check_subject(good), Ok(()), "{good}");
        }
        let long = "x".repeat(1025);
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a.\tb",
            "a.*",
            "a.>",
            ">",
            "*",
            "a\r\nb",
            "a\0b",
            "$JS.API.INFO",
            "$SYS.x",
            &long,
        ] {
            assert!(
                matches!(check_subject(bad), Err(InvalidEvent::Subject { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn headers_and_ids() {
        let event = |name: &str, value: &str| Event::new("a", "x").with_header(name, value).check(1000);
        assert_eq!(event("Trace", "1"), Ok(()));
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a:b", "x"),
            ("a", "x\r\ny"),
            ("nats-msg-id", "x"),
            ("Nats-Batch-Id", "x"),
        ] {
            assert!(
                matches!(event(name, value), Err(InvalidEvent::Header { .. })),
                "{name:?} {value:?}"
            );
        }
        for id in ["", " a", "a\n"] {
            let checked = Event::new("a", "x").with_id(id).check(1000);
            assert!(matches!(checked, Err(InvalidEvent::Id { .. })), "{id:?}");
        }
        assert_eq!(Event::new("a", "x").with_id("job 7/ß").check(1000), Ok(()));
    }

    #[test]
    fn the_size_limit_includes_headers_and_payload() {
        let event = Event::new("a", vec![0; 100]).with_header("k", "v").with_id("id");
        let size_bytes = 12 + 11 + 2 + 4 + 1 + 1 + 4 + 100;
        assert_eq!(event.check(size_bytes), Ok(()));
        let too_large = InvalidEvent::TooLarge {
            size_bytes,
            limit_bytes: size_bytes - 1,
        };
        assert_eq!(event.check(size_bytes - 1), Err(too_large));
    }
}
