//! Classifies failed publishes. No I/O.

use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};

use crate::status::chain;

/// The action after a publish that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This broker can never accept the event: move it to `aside/` and continue with the next one.
    Aside(String),
    /// The broker rejects the subject for now: retry it later, and continue with other subjects.
    Refused(String),
    /// The acknowledgement timed out. It is unknown whether the event is stored.
    Unanswered,
    /// The connection is lost.
    Disconnected(String),
}

/// Classifies an error of a publish or of its acknowledgement.
pub(crate) fn classify(error: &PublishError) -> Verdict {
    match error.kind() {
        PublishErrorKind::StreamNotFound => Verdict::Refused("no stream has this subject".to_owned()),
        PublishErrorKind::TimedOut => Verdict::Unanswered,
        PublishErrorKind::BrokenPipe => Verdict::Disconnected("the connection was closed".to_owned()),
        PublishErrorKind::MaxPayloadExceeded => Verdict::Aside(chain(error)),
        // A condition in a header is not met. A retry would publish the event after events that it should precede.
        PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => {
            Verdict::Aside(chain(error))
        }
        PublishErrorKind::MaxAckPending | PublishErrorKind::Other => classify_response(error),
    }
}

fn classify_response(error: &PublishError) -> Verdict {
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if let Some(answer) = found.downcast_ref::<jetstream::Error>() {
            return if is_permanent(answer.error_code()) {
                Verdict::Aside(chain(error))
            } else {
                Verdict::Refused(chain(error))
            };
        }
        if found.is::<serde_json::Error>() {
            return Verdict::Refused("the responder on this subject is not a stream".to_owned());
        }
        cause = found.source();
    }
    // Without a response, the client could not pass the event to its connection.
    Verdict::Disconnected(chain(error))
}

/// Errors of the event itself. All others (limits, storage, leaders, sealed streams) can be resolved by an operator while
/// the event is retained.
fn is_permanent(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
            | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM
            | ErrorCode::STREAM_NOT_MATCH
            | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
            | ErrorCode::MESSAGE_TTL_INVALID
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error response of the broker, wrapped by the client.
    fn response(code: u64, description: &str) -> PublishError {
        let answer = format!(r#"{{"code":400,"err_code":{code},"description":"{description}"}}"#);
        let answer: jetstream::Error = serde_json::from_str(&answer).unwrap();
        PublishError::with_source(PublishErrorKind::Other, answer)
    }

    #[test]
    fn each_kind_of_failure_is_classified() {
        let check = |error: PublishError, expected: fn(&Verdict) -> bool| {
            let verdict = classify(&error);
            assert!(expected(&verdict), "{error:?} became {verdict:?}");
        };
        let kind = PublishError::new;
        check(kind(PublishErrorKind::StreamNotFound), |v| {
            matches!(v, Verdict::Refused(_))
        });
        check(kind(PublishErrorKind::TimedOut), |v| *v == Verdict::Unanswered);
        check(kind(PublishErrorKind::BrokenPipe), |v| {
            matches!(v, Verdict::Disconnected(_))
        });
        check(kind(PublishErrorKind::Other), |v| {
            matches!(v, Verdict::Disconnected(_))
        });
        check(kind(PublishErrorKind::MaxPayloadExceeded), |v| {
            matches!(v, Verdict::Aside(_))
        });
        check(kind(PublishErrorKind::WrongLastSequence), |v| {
            matches!(v, Verdict::Aside(_))
        });
        let too_large = "message size exceeds maximum allowed";
        check(
            response(10054, too_large),
            |v| matches!(v, Verdict::Aside(reason) if reason.contains("exceeds")),
        );
        check(response(10097, "header size exceeds"), |v| {
            matches!(v, Verdict::Aside(_))
        });
        check(response(10077, "maximum messages exceeded"), |v| {
            matches!(v, Verdict::Refused(_))
        });
        check(response(10109, "invalid operation on sealed stream"), |v| {
            matches!(v, Verdict::Refused(_))
        });
        let not_json = serde_json::from_str::<u8>("+OK").unwrap_err();
        let foreign = PublishError::with_source(PublishErrorKind::Other, not_json);
        check(
            foreign,
            |v| matches!(v, Verdict::Refused(reason) if reason.contains("not a stream")),
        );
    }
}
