//! What a failed publish means for the event. Pure.

use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};

use crate::status::chain;

/// What to do after a publish that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This broker can never take this event: move it aside and go on with the next one.
    Aside(String),
    /// The broker does not take this subject now: let it rest, others go on.
    Refused(String),
    /// No answer came in time. Whether the event is in the stream is not known.
    Unanswered,
    /// The connection is of no more use.
    Disconnected(String),
}

/// Judges an error of a publish or of its acknowledgement.
pub(crate) fn judge(error: &PublishError) -> Verdict {
    match error.kind() {
        PublishErrorKind::StreamNotFound => Verdict::Refused("no stream takes this subject".to_owned()),
        PublishErrorKind::TimedOut => Verdict::Unanswered,
        PublishErrorKind::BrokenPipe => Verdict::Disconnected("the connection was closed".to_owned()),
        PublishErrorKind::MaxPayloadExceeded => Verdict::Aside(chain(error)),
        // The producer asked for a condition in a header, and it does not hold. A later try would publish the
        // event after others that it was to stand before.
        PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => {
            Verdict::Aside(chain(error))
        }
        PublishErrorKind::MaxAckPending | PublishErrorKind::Other => judge_answer(error),
    }
}

fn judge_answer(error: &PublishError) -> Verdict {
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
            return Verdict::Refused("what answered on this subject is not a stream".to_owned());
        }
        cause = found.source();
    }
    // Neither an answer nor one of the named cases: the client could not hand the event to its connection.
    Verdict::Disconnected(chain(error))
}

/// Answers that are about the event itself. Everything else (limits, storage, leaders, sealed streams) an operator
/// can mend while the event waits.
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

    /// An answer as the broker words it, inside the error in which the client hands it over.
    fn answer(code: u64, description: &str) -> PublishError {
        let answer = format!(r#"{{"code":400,"err_code":{code},"description":"{description}"}}"#);
        let answer: jetstream::Error = serde_json::from_str(&answer).unwrap();
        PublishError::with_source(PublishErrorKind::Other, answer)
    }

    #[test]
    fn each_kind_of_failure_has_its_verdict() {
        let check = |error: PublishError, expected: fn(&Verdict) -> bool| {
            let verdict = judge(&error);
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
            answer(10054, too_large),
            |v| matches!(v, Verdict::Aside(reason) if reason.contains("exceeds")),
        );
        check(answer(10097, "header size exceeds"), |v| {
            matches!(v, Verdict::Aside(_))
        });
        check(answer(10077, "maximum messages exceeded"), |v| {
            matches!(v, Verdict::Refused(_))
        });
        check(answer(10109, "invalid operation on sealed stream"), |v| {
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
