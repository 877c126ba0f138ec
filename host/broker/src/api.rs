//! One JetStream request and its errors. All requests to JetStream, except messages and acknowledgements, use
//! [`Inner::request`].

use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Request, RequestError, RequestErrorKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::link::{Link, denies_publish, wait_until_denied};
use super::{Inner, Server};
use lantern_model::batch::clean_text;

/// The payload of a request without parameters: JetStream accepts `{}`, but not `null`.
pub(super) const EMPTY: Empty = Empty {};

#[derive(Serialize)]
pub(super) struct Empty {}

/// Why a request to the broker failed.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no connection at the moment.
    #[error("the broker is not connected{}", because(last_error.as_deref()))]
    NotConnected {
        /// Error of the last attempt.
        last_error: Option<String>,
    },
    /// The broker refuses the login or is too old.
    #[error("{why}")]
    Refused {
        /// The reason.
        why: String,
        /// A remedy for the operator.
        hint: String,
    },
    /// Nobody answers JetStream requests.
    #[error("the broker does not answer JetStream requests ({what})")]
    NoJetStream {
        /// The request.
        what: String,
    },
    /// No answer arrived in time.
    #[error("no answer from the broker in time ({what}){}", because(last_server_error.as_deref()))]
    Timeout {
        /// The request.
        what: String,
        /// The broker's last error, which shows a missing permission.
        last_server_error: Option<String>,
    },
    /// No leader answers in the broker's cluster: an election is in progress, or a majority of the servers is missing.
    #[error(
        "the broker's cluster has no leader for {what} at the moment: an election usually ends within 9 s, and needs a \
         majority of the servers{}", because(last_server_error.as_deref())
    )]
    NoLeader {
        /// The request.
        what: String,
        /// The broker's last error, which shows a missing permission.
        last_server_error: Option<String>,
    },
    /// The user may not send this request.
    #[error("the broker does not permit {what} to this user")]
    Forbidden {
        /// The request's subject.
        what: String,
    },
    /// JetStream rejects the request.
    #[error("JetStream refuses {what}: {description} ({code})")]
    JetStream {
        /// The request.
        what: String,
        /// JetStream's error code.
        code: u64,
        /// JetStream's description.
        description: String,
    },
    /// The request could not be sent, or its answer could not be read.
    #[error("the request to the broker failed ({what})")]
    Request {
        /// The request.
        what: String,
        /// The cause.
        #[source]
        source: RequestError,
    },
    /// The answer is not valid.
    #[error("the broker's answer cannot be understood ({what}): {detail}")]
    Answer {
        /// The request.
        what: String,
        /// The reason.
        detail: String,
    },
}

/// Error codes of a cluster without a leader.
const LEADERLESS: [ErrorCode; 2] = [ErrorCode::CLUSTER_NOT_AVAILABLE, ErrorCode::CLUSTER_NOT_LEADER];

/// Error codes of other temporary trouble of JetStream.
const TEMPORARY: [ErrorCode; 5] = [
    ErrorCode::INSUFFICIENT_RESOURCES,
    ErrorCode::MEMORY_RESOURCES_EXCEEDED,
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::STREAM_OFFLINE,
    ErrorCode::STREAM_STORE_FAILED,
];

impl BrokerError {
    /// Whether a retry may succeed without an operator's action.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotConnected { .. } | Self::Timeout { .. } => true,
            Self::NoJetStream { .. } | Self::NoLeader { .. } => true,
            Self::Request { .. } | Self::Forbidden { .. } => true,
            Self::JetStream { code, .. } => TEMPORARY
                .iter()
                .chain(&LEADERLESS)
                .any(|temporary| temporary.0 == *code),
            Self::Refused { .. } | Self::Answer { .. } => false,
        }
    }

    /// A remedy for the operator.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => Some(hint),
            Self::NoJetStream { .. } => Some("enable JetStream on the broker, or check the JetStream domain"),
            Self::Forbidden { .. } => Some(
                "permit the user to publish to this subject; docs/operations.md lists the required permissions",
            ),
            Self::NoLeader { .. } => Some(
                "if it lasts longer: check that a majority of the servers runs, and that the user has permissions on \
                 $JS.API.> and on its inbox",
            ),
            Self::Timeout { .. } => Some("the user may lack permissions on $JS.API.> or on its inbox"),
            _ => None,
        }
    }
}

/// The error as a cluster means it. Its servers do not answer a request for a stream or consumer without a leader, or
/// report that the system is unavailable.
fn on_cluster(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Timeout {
            what,
            last_server_error,
        } => BrokerError::NoLeader {
            what,
            last_server_error,
        },
        BrokerError::JetStream { what, code, .. }
            if LEADERLESS.iter().any(|leaderless| leaderless.0 == code) =>
        {
            BrokerError::NoLeader {
                what,
                last_server_error: None,
            }
        }
        other => other,
    }
}

/// The broker's description, without the codes that the library appends: [`BrokerError::JetStream`] displays the code
/// once.
fn described<'a>(message: &'a str, error: &async_nats::jetstream::Error) -> &'a str {
    let codes = format!(" (code {}, error code {})", error.code(), error.error_code().0);
    message.strip_suffix(&codes).unwrap_or(message)
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

impl Inner {
    /// The connected server, or why there is none.
    pub(super) fn server(&self) -> Result<Server, BrokerError> {
        match &*self.link.borrow() {
            Link::Connected(server) => Ok(server.clone()),
            Link::Connecting { last_error, .. } => Err(BrokerError::NotConnected {
                last_error: last_error.clone(),
            }),
            Link::Refused { why, hint } => Err(BrokerError::Refused {
                why: why.clone(),
                hint: hint.clone(),
            }),
        }
    }

    /// Sends a JetStream request to `subject` (without the API prefix). Answers with one of the error codes in `none`
    /// are `Ok(None)`: the requested object does not exist.
    pub(super) async fn request<Answer: DeserializeOwned>(
        &self,
        subject: String,
        payload: &(impl Serialize + ?Sized),
        none: &[ErrorCode],
    ) -> Result<Option<Answer>, BrokerError> {
        let answer = self.request_once(subject, payload, none).await;
        answer.map_err(|error| match self.is_clustered() {
            true => on_cluster(error),
            false => error,
        })
    }

    async fn request_once<Answer: DeserializeOwned>(
        &self,
        subject: String,
        payload: &(impl Serialize + ?Sized),
        none: &[ErrorCode],
    ) -> Result<Option<Answer>, BrokerError> {
        // Without this check, a request would wait in the client's queue until it times out.
        self.server()?;
        let what = subject;
        let client = self.current().client;
        let full_subject = format!("{}.{what}", self.api_prefix);
        let request = async {
            let payload = serde_json::to_vec(payload).map_err(unreadable)?;
            let request = Request::new().payload(payload.into());
            let answer = client.send_request(full_subject.clone(), request).await?;
            parse_answer(&answer.payload).map_err(unreadable)
        };
        // Subscribe before the request is sent, so that no error about it is missed.
        let server_errors = self.main.signals().server_errors();
        let answer = tokio::select! {
            biased;
            answer = request => answer,
            () = wait_until_denied(server_errors, &full_subject) => {
                return Err(BrokerError::Forbidden { what: full_subject });
            }
        };
        match answer {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) if none.contains(&error.error_code()) => Ok(None),
            Ok(Err(error)) => Err(BrokerError::JetStream {
                what,
                code: error.error_code().0,
                description: clean_text(described(&error.to_string(), &error), 500),
            }),
            Err(source) => Err(match source.kind() {
                RequestErrorKind::NoResponders => BrokerError::NoJetStream { what },
                RequestErrorKind::TimedOut => match self.main.signals().last_server_error() {
                    // Another error followed it.
                    Some(last) if denies_publish(&last, &full_subject) => {
                        BrokerError::Forbidden { what: full_subject }
                    }
                    last_server_error => BrokerError::Timeout {
                        what,
                        last_server_error,
                    },
                },
                _ => BrokerError::Request { what, source },
            }),
        }
    }
}

/// Parses an answer, or the error that it contains. The library's type for this copies every answer into generic values
/// first, which takes most of the CPU time of a request.
fn parse_answer<Answer: DeserializeOwned>(
    payload: &[u8],
) -> Result<Result<Answer, jetstream::Error>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Failure {
        error: Option<jetstream::Error>,
    }
    if let Failure { error: Some(error) } = serde_json::from_slice(payload)? {
        return Ok(Err(error));
    }
    serde_json::from_slice(payload).map(Ok)
}

/// The error of a request whose JSON cannot be written, or whose answer cannot be read.
fn unreadable(error: serde_json::Error) -> RequestError {
    RequestError::with_source(RequestErrorKind::Other, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_a_leader_is_reported_as_such() {
        let timeout = BrokerError::Timeout {
            what: "STREAM.INFO.S".into(),
            last_server_error: None,
        };
        let code = |code: ErrorCode| BrokerError::JetStream {
            what: "STREAM.INFO.S".into(),
            code: code.0,
            description: "JetStream system temporarily unavailable".into(),
        };
        let unavailable = code(ErrorCode::CLUSTER_NOT_AVAILABLE);
        assert!(unavailable.is_retryable());
        for error in [timeout, unavailable, code(ErrorCode::CLUSTER_NOT_LEADER)] {
            let error = on_cluster(error);
            assert!(error.is_retryable());
            assert_eq!(
                error.to_string(),
                "the broker's cluster has no leader for STREAM.INFO.S at the moment: an election usually ends within 9 s, \
                 and needs a majority of the servers"
            );
        }
        let other = on_cluster(code(ErrorCode::STREAM_NAME_EXIST));
        assert!(matches!(other, BrokerError::JetStream { .. }), "{other}");
    }

    #[test]
    fn an_answer_is_the_object_or_an_error() {
        #[derive(Debug, Deserialize)]
        struct Deleted {
            success: bool,
        }
        let parse = |text: &str| parse_answer::<Deleted>(text.as_bytes());
        assert!(
            parse(r#"{"type":"answer","success":true}"#)
                .unwrap()
                .unwrap()
                .success
        );
        let error = parse(
            r#"{"type":"answer","error":{"code":404,"err_code":10059,"description":"stream not found"}}"#,
        );
        assert_eq!(
            error.unwrap().unwrap_err().error_code(),
            ErrorCode::STREAM_NOT_FOUND
        );
        for neither in ["", "{}", "[]", r#"{"error":7}"#, r#"{"success":1}"#] {
            assert!(parse(neither).is_err(), "{neither}");
        }
    }

    #[test]
    fn a_code_is_displayed_once() {
        let error: async_nats::jetstream::Error = serde_json::from_str(
            r#"{"code":400,"err_code":10138,"description":"consumer subject filters cannot overlap"}"#,
        )
        .unwrap();
        let message = error.to_string();
        assert!(message.ends_with("(code 400, error code 10138)"), "{message}");
        assert_eq!(
            described(&message, &error),
            "consumer subject filters cannot overlap"
        );
    }
}
