//! One JetStream request and what can go wrong with it. Everything that this module asks of JetStream, apart from
//! messages and acknowledgements, goes through [`Inner::request`].

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{RequestError, RequestErrorKind};
use async_nats::jetstream::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::link::{Link, denied, denies};
use super::{Inner, Server};
use lantern_model::batch::clean_text;

/// The payload of a request that has none: JetStream takes `{}` for nothing, but not `null`.
pub(super) const EMPTY: Empty = Empty {};

#[derive(Serialize)]
pub(super) struct Empty {}

/// Why a question to the broker was not answered.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no connection just now.
    #[error("the broker is not connected{}", because(last_error.as_deref()))]
    NotConnected {
        /// Why the last attempt failed.
        last_error: Option<String>,
    },
    /// The broker is there and will not have us, or is too old.
    #[error("{why}")]
    Refused {
        /// What is wrong.
        why: String,
        /// What the operator can do about it.
        hint: String,
    },
    /// Nobody answers JetStream requests.
    #[error("the broker does not answer JetStream requests ({what})")]
    NoJetStream {
        /// The request.
        what: String,
    },
    /// No answer came in time.
    #[error("no answer from the broker in time ({what}){}", because(server_said.as_deref()))]
    Timeout {
        /// The request.
        what: String,
        /// The broker's last complaint; a missing permission shows here.
        server_said: Option<String>,
    },
    /// The user may not send this request.
    #[error("the broker does not permit {what} to this user")]
    Forbidden {
        /// The request's subject.
        what: String,
    },
    /// JetStream says no.
    #[error("JetStream refuses {what}: {description} ({code})")]
    JetStream {
        /// The request.
        what: String,
        /// JetStream's own error code.
        code: u64,
        /// JetStream's own words.
        description: String,
    },
    /// The request could not be sent, or its answer not be read.
    #[error("the request to the broker failed ({what})")]
    Request {
        /// The request.
        what: String,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// The answer says something that cannot be.
    #[error("the broker's answer cannot be understood ({what}): {detail}")]
    Answer {
        /// The request.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// What JetStream says when it has trouble of its own, which may pass.
const PASSING: [ErrorCode; 7] = [
    ErrorCode::CLUSTER_NOT_AVAILABLE,
    ErrorCode::CLUSTER_NOT_LEADER,
    ErrorCode::INSUFFICIENT_RESOURCES,
    ErrorCode::MEMORY_RESOURCES_EXCEEDED,
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::STREAM_OFFLINE,
    ErrorCode::STREAM_STORE_FAILED,
];

impl BrokerError {
    /// Whether the same question may be answered later without anybody doing anything about it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotConnected { .. } | Self::Timeout { .. } | Self::NoJetStream { .. } => true,
            Self::Request { .. } | Self::Forbidden { .. } => true,
            Self::JetStream { code, .. } => PASSING.iter().any(|passing| passing.0 == *code),
            Self::Refused { .. } | Self::Answer { .. } => false,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => Some(hint),
            Self::NoJetStream { .. } => Some("enable JetStream on the broker, or check the JetStream domain"),
            Self::Forbidden { .. } => {
                Some("permit it to publish to this subject; docs/operations.md lists what Lantern needs")
            }
            Self::Timeout { .. } => Some("the user may lack permissions on $JS.API.> or on its inbox"),
            _ => None,
        }
    }
}

/// What the broker said, without the codes that the library appends: [`BrokerError::JetStream`] shows the code once.
fn described<'a>(shown: &'a str, error: &async_nats::jetstream::Error) -> &'a str {
    let codes = format!(" (code {}, error code {})", error.code(), error.error_code().0);
    shown.strip_suffix(&codes).unwrap_or(shown)
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

impl Inner {
    /// The broker, when messages can flow.
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

    /// Asks JetStream `subject` (without the API prefix). Answers that name one of the codes in `none` are
    /// `Ok(None)`: the thing asked for does not exist.
    pub(super) async fn request<Answer: DeserializeOwned>(
        &self,
        subject: String,
        payload: &(impl Serialize + ?Sized),
        none: &[ErrorCode],
    ) -> Result<Option<Answer>, BrokerError> {
        // Without this, a request would wait in the client's queue until it times out.
        self.server()?;
        let what = subject.clone();
        let jetstream = self.current().jetstream;
        let full_subject = format!("{}.{subject}", self.api_prefix);
        // Before the request is sent, so that no complaint about it is missed.
        let complaints = self.main.signals().complaints();
        let answer = tokio::select! {
            biased;
            answer = jetstream.request::<_, _, Response<Answer>>(subject, payload) => answer,
            () = denied(complaints, &full_subject) => {
                return Err(BrokerError::Forbidden { what: full_subject });
            }
        };
        match answer {
            Ok(Response::Ok(answer)) => Ok(Some(answer)),
            Ok(Response::Err { error }) if none.contains(&error.error_code()) => Ok(None),
            Ok(Response::Err { error }) => Err(BrokerError::JetStream {
                what,
                code: error.error_code().0,
                description: clean_text(described(&error.to_string(), &error), 500),
            }),
            Err(source) => Err(match source.kind() {
                RequestErrorKind::NoResponders => BrokerError::NoJetStream { what },
                RequestErrorKind::TimedOut => match self.main.signals().server_said() {
                    // Another complaint came right after it.
                    Some(said) if denies(&said, &full_subject) => {
                        BrokerError::Forbidden { what: full_subject }
                    }
                    server_said => BrokerError::Timeout { what, server_said },
                },
                _ => BrokerError::Request { what, source },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_shown_once() {
        let error: async_nats::jetstream::Error = serde_json::from_str(
            r#"{"code":400,"err_code":10138,"description":"consumer subject filters cannot overlap"}"#,
        )
        .unwrap();
        let shown = error.to_string();
        assert!(shown.ends_with("(code 400, error code 10138)"), "{shown}");
        assert_eq!(
            described(&shown, &error),
            "consumer subject filters cannot overlap"
        );
    }
}
