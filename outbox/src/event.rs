//! What a producer hands over: a subject, headers, a payload and a message id. This file owns the rules that an
//! event must keep before a byte of it is written; it knows neither files nor connections.

use std::str::FromStr;

use async_nats::header::{HeaderName, HeaderValue};
use bytes::Bytes;

/// Longest subject taken. The server's protocol line holds 4,096 bytes for the subject, the reply subject and
/// two numbers; a quarter of it leaves room for any prefix that an account mapping adds.
const SUBJECT_BYTES_MAX: usize = 1024;

/// The header that carries the message id, by which the broker recognises an event that it already has.
pub(crate) const MESSAGE_ID_HEADER: &str = "Nats-Msg-Id";

/// One event on its way to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The subject to publish to. No wildcard, no empty token, no whitespace.
    pub subject: String,
    /// The message's bytes, whatever they are.
    pub payload: Bytes,
    /// Headers, in the order sent. The message id is not among them.
    pub headers: Vec<(String, String)>,
    /// The message id. When none is given the event gets the id of its entry. Two events with the same id are
    /// one event to the broker, for as long as the stream's duplicate window remembers it.
    pub id: Option<String>,
}

impl Event {
    /// An event without headers whose message id is made by the outbox.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            subject: subject.into(),
            payload: payload.into(),
            headers: Vec::new(),
            id: None,
        }
    }

    /// The same event with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same event with a message id of the producer's own.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Checks everything that can be known without a broker.
    ///
    /// # Errors
    /// [`InvalidEvent`] with the first rule that is broken. `size_limit_bytes` is compared with headers and
    /// payload together, as the broker does.
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

    /// Bytes of headers and payload as they count against the broker's `max_payload`.
    fn size_bytes(&self) -> usize {
        const FRAME: usize = "NATS/1.0\r\n\r\n".len();
        // An id made by the outbox is a UUID, 36 characters.
        let id = self.id.as_ref().map_or(36, String::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        FRAME + MESSAGE_ID_HEADER.len() + id + 4 + headers + self.payload.len()
    }
}

/// Why an event cannot be taken. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    /// The subject is not one that can be published to.
    #[error("the subject {subject:?} {problem}")]
    Subject {
        /// The subject as given.
        subject: String,
        /// What is wrong with it, as the end of a sentence.
        problem: &'static str,
    },
    /// A header's name or value cannot be sent.
    #[error("the header {name:?} {problem}")]
    Header {
        /// The header's name as given.
        name: String,
        /// What is wrong with it, as the end of a sentence.
        problem: &'static str,
    },
    /// The message id is empty or cannot be sent as a header.
    #[error("the message id {id:?} must be one line of text that is not empty")]
    Id {
        /// The id as given.
        id: String,
    },
    /// Headers and payload are larger than the limit.
    #[error("headers and payload are {size_bytes} bytes, and the limit is {limit_bytes}")]
    TooLarge {
        /// What was given.
        size_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
}

/// Checks a subject by itself, before there is an event.
///
/// # Errors
/// [`InvalidEvent::Subject`] when nothing can be published to it.
pub fn check_subject(subject: &str) -> Result<(), InvalidEvent> {
    let problem = if subject.is_empty() {
        "is empty"
    } else if subject.len() > SUBJECT_BYTES_MAX {
        "is longer than 1024 bytes"
    } else if subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "contains whitespace or a control character"
    } else if subject.split('.').any(str::is_empty) {
        "has an empty token (a dot at an end, or two dots together)"
    } else if subject.contains(['*', '>']) {
        "contains a wildcard"
    } else if matches!(subject.split('.').next(), Some("$JS" | "$SYS")) {
        // A publish there is a command to the broker (`$JS.API.STREAM.DELETE.X`), not an event.
        "belongs to the broker itself"
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
            // The broker answers the parts of a batch differently, and a part alone is worth nothing.
            "makes the event part of a batch, which an outbox cannot send"
        } else if HeaderName::from_str(name).is_err() || name.is_empty() {
            "has a name that cannot be sent"
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
    // Surrounding spaces would be trimmed on the way, and the id on the broker would be another one.
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
    fn the_limit_counts_headers_and_payload() {
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
